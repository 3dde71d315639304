"""How much of a sandbox one microDAO may have at once, so that its long runs do not keep all others out."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from shared.tools.model import ToolFailed


class Shares:
    """``size`` places for each microDAO. They hold in one process; what nobody holds or waits for takes no memory."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._gates: dict[str, asyncio.Semaphore] = {}
        self._users: dict[str, int] = {}

    @asynccontextmanager
    async def held(self, microdao_id: str, wait_s: float) -> AsyncIterator[None]:
        """Have a place for the block. Raises ToolFailed (``tool_timeout``) where none comes free in time."""
        gate = self._gates.setdefault(microdao_id, asyncio.Semaphore(self._size))
        self._users[microdao_id] = self._users.get(microdao_id, 0) + 1
        try:
            try:
                await asyncio.wait_for(gate.acquire(), wait_s)
            except TimeoutError:
                message = f"the microDAO's other {self._size} runs in the sandbox left it no time; nothing was done"
                raise ToolFailed(message, code="tool_timeout") from None
            try:
                yield
            finally:
                gate.release()
        finally:
            self._users[microdao_id] -= 1
            if not self._users[microdao_id]:
                del self._users[microdao_id], self._gates[microdao_id]
