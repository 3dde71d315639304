"""The one retry loop: attempts at a call's routes, one after another, until one is answered or nothing is left to try.

    while True:
        async with await tries.next() as attempt:
            return await attempt.answer(request)

An attempt that fails in a way that another may not ends the ``async with`` without an error, and the loop goes on.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from shared.clock import utc_now
from shared.errors import ApiError, LlmTimeout, Overloaded, RateLimitExceeded, Unavailable, UnsupportedParameter
from shared.llm.attempts.attempt import Attempt, Subject, TimeLimits
from shared.llm.attempts.capacity import Capacity
from shared.llm.money.ledger import LedgerEntry
from shared.llm.money.pricing import PriceTable, UnitPrices
from shared.llm.providers.base import Provider
from shared.llm.routing.health import Health
from shared.llm.routing.models import ProviderLimits, Route
from shared.llm.routing.retry import is_route_fault, wait_before_repeating


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstreams:
    """What all calls of a process share. ``timeout_s`` is for routes that state none of their own."""

    providers: Mapping[str, Provider]
    prices: PriceTable
    capacity: Capacity
    health: Health
    timeout_s: float
    draw: Callable[[], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The routes of a call in the order to try them, the limits of their providers, and when it must have ended.

    ``ends_at`` is on ``time.monotonic``. ``most_tries`` bounds the tries at each route on top of the route's own bound.
    """

    routes: Sequence[Route]
    limits: Mapping[str, ProviderLimits]
    ends_at: float
    most_tries: int | None = None

    def time_left_s(self) -> float:
        """Seconds until the call's deadline."""
        return self.ends_at - time.monotonic()


class Tries:
    """The attempts of one call. ``entries`` has one for every attempt that ended, the last one being the call's own."""

    def __init__(self, subject: Subject, plan: Plan, upstreams: Upstreams) -> None:
        self.entries: list[LedgerEntry] = []
        self._subject = subject
        self._plan = plan
        self._upstreams = upstreams
        self._routes = deque(plan.routes)
        self._failures = 0
        self._wait_s = 0.0
        self._error: ApiError = Unavailable("no route answered")

    async def next(self) -> Attempt:
        """The attempt to make now, after the wait that is due. Raises the last error when nothing is left to try."""
        if self._wait_s:
            await asyncio.sleep(self._wait_s)
        while self._routes and self._plan.time_left_s() > 0:
            try:
                return await self._open(self._routes[0])
            except (Unavailable, Overloaded) as error:  # nothing was called
                self._error = error
                self._leave_route()
        if self._routes:
            raise LlmTimeout("no route was left time to answer")
        raise self._error

    async def _open(self, route: Route) -> Attempt:
        """Raises Unavailable when nobody knows the route's price, Overloaded when its provider has no place for us."""
        upstreams, left_s = self._upstreams, self._plan.time_left_s()
        unit_prices = partial(_unit_prices, upstreams.prices, route)
        unit_prices(0)
        release = await upstreams.capacity.enter(route.provider, self._plan.limits.get(route.provider), left_s)
        is_probe = upstreams.health.began(route)

        def on_exit(attempt: Attempt, error: BaseException | None) -> bool:
            release()
            upstreams.health.ended(route, error, is_probe=is_probe)
            self.entries.append(attempt.entry(error))
            return self._goes_on(attempt, error)

        return Attempt(
            self._subject,
            route,
            len(self.entries) + 1,
            provider=upstreams.providers[route.provider],
            limits=_time_limits(route, upstreams.timeout_s, self._plan.time_left_s()),
            unit_prices=unit_prices,
            on_exit=on_exit,
        )

    def _goes_on(self, attempt: Attempt, error: BaseException | None) -> bool:
        """Whether another attempt follows; it decides where and after which wait."""
        if not isinstance(error, ApiError) or attempt.has_started or not _may_pass_elsewhere(error):
            return False
        self._error = error
        self._failures += 1
        allowed = min(attempt.route.attempts, self._plan.most_tries or attempt.route.attempts)
        left_s, draw = self._plan.time_left_s(), self._upstreams.draw
        wait = wait_before_repeating(error, self._failures, allowed=allowed, time_left_s=left_s, draw=draw)
        if wait is None:
            self._leave_route()
        self._wait_s = wait or 0.0
        goes_on = bool(self._routes) and left_s > 0
        if not goes_on:
            _discourage(error)
        return goes_on

    def _leave_route(self) -> None:
        self._routes.popleft()
        self._failures = 0


def _may_pass_elsewhere(error: ApiError) -> bool:
    return is_route_fault(error) or isinstance(error, UnsupportedParameter)


def _discourage(error: ApiError) -> None:
    """All retrying that makes sense was done here: clients that retry by themselves would only multiply it.

    After a 429 they may come back once the provider said so.
    """
    if is_route_fault(error) and not isinstance(error, RateLimitExceeded):
        error.headers.setdefault("x-should-retry", "false")


def _time_limits(route: Route, timeout_s: float, left_s: float) -> TimeLimits:
    return TimeLimits(
        answer_s=min(route.timeout_s or timeout_s, left_s),
        first_piece_s=min(route.first_token_timeout_s or timeout_s, left_s),
        silence_s=timeout_s,
        stream_s=min(route.timeout_s or left_s, left_s),
    )


def _unit_prices(prices: PriceTable, route: Route, prompt_tokens: int) -> UnitPrices:
    return prices.unit_prices(route.provider, route.model, utc_now(), prompt_tokens)
