"""What this process knows of every route's health: one circuit each."""

from collections.abc import Callable

from shared.errors import ApiError
from shared.llm.routing import breaker
from shared.llm.routing.breaker import Circuit, CircuitRule
from shared.llm.routing.models import Route
from shared.llm.routing.retry import is_route_fault
from shared.observability import Log

_HEALTHY = Circuit()
_log = Log("llm")


class Health:
    """The circuits, kept in step with how calls end. ``rule`` is asked anew each time: the file may change."""

    def __init__(self, rule: Callable[[], CircuitRule], clock: Callable[[], float]) -> None:
        self._rule = rule
        self._clock = clock
        self._circuits: dict[str, Circuit] = {}

    def permits(self, route: Route) -> bool:
        """Whether a call may go this way now."""
        return breaker.permits(self._circuit(route), self._rule(), self._clock())

    def is_healthy(self, route: Route) -> bool:
        """Whether the circuit is closed."""
        return breaker.state(self._circuit(route), self._rule(), self._clock()) == "closed"

    def last_failed_at(self, route: Route) -> float:
        """On the process's clock; minus infinity for a route that never failed."""
        return self._circuit(route).last_failed_at

    def began(self, route: Route) -> bool:
        """A call goes this way; whether it is a probe, which ``ended`` wants to know."""
        self._circuits[route.name], is_probe = breaker.began(self._circuit(route), self._clock())
        return is_probe

    def ended(self, route: Route, error: BaseException | None, *, is_probe: bool) -> None:
        """How the call ended. A refusal of the caller's request shows a route at work; a cancelled call, nothing."""
        before, rule, now = self._circuit(route), self._rule(), self._clock()
        if is_route_fault(error):
            after = breaker.failed(before, rule, now, is_probe=is_probe)
        elif error is None or isinstance(error, ApiError):
            after = breaker.succeeded(before, rule, now, is_probe=is_probe)
        else:
            after = breaker.abandoned(before, is_probe=is_probe)
        self._circuits[route.name] = after
        if (before.opened_at is None) != (after.opened_at is None):
            _log.warning("a route's circuit changed", route=route.name, is_open=after.opened_at is not None)

    def _circuit(self, route: Route) -> Circuit:
        return self._circuits.get(route.name, _HEALTHY)
