"""How many calls a provider gets at once from this process. Those above that wait in line, first come first served."""

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial

from shared.errors import Overloaded
from shared.llm.routing.models import ProviderLimits


class Gate:
    """The line before one provider. For one event loop."""

    def __init__(self) -> None:
        self._inside = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def enter(self, limits: ProviderLimits, patience_s: float) -> None:
        """Take a place, waiting in line for ``patience_s`` at most. Raises Overloaded: line too long, or no turn."""
        if self._inside < limits.max_concurrency and not self._waiting:
            self._inside += 1
            return
        if len(self._waiting) >= limits.max_queue:
            raise _overloaded("too many calls wait for it")
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            async with asyncio.timeout(min(limits.queue_timeout_s, patience_s)):
                await turn
        except BaseException as error:
            self._step_back(turn, limits)
            if isinstance(error, TimeoutError):
                raise _overloaded("no call ended in time") from None
            raise

    def leave(self, limits: ProviderLimits) -> None:
        """Give the place back; the first in line takes it."""
        self._inside -= 1
        while self._waiting and self._inside < limits.max_concurrency:
            turn = self._waiting.popleft()
            if not turn.done():
                self._inside += 1
                turn.set_result(None)

    def _step_back(self, turn: "asyncio.Future[None]", limits: ProviderLimits) -> None:
        """Leave the line; a turn that came at the very moment of giving up is passed on."""
        if turn.done() and not turn.cancelled():
            self.leave(limits)
        elif turn in self._waiting:
            self._waiting.remove(turn)


class Capacity:
    """The gates of all providers."""

    def __init__(self) -> None:
        self._gates: dict[str, Gate] = {}

    async def enter(self, provider: str, limits: ProviderLimits | None, patience_s: float) -> Callable[[], None]:
        """Take a place at the provider; calling what is returned gives it back. Without limits there is no line.

        Raises Overloaded.
        """
        if limits is None:
            return _nothing
        gate = self._gates.setdefault(provider, Gate())
        await gate.enter(limits, patience_s)
        return partial(gate.leave, limits)


def _nothing() -> None:
    pass


def _overloaded(reason: str) -> Overloaded:
    return Overloaded(f"The model's provider is at the limit of this server: {reason}.", headers={"retry-after": "1"})
