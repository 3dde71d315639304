"""How many requests may be under way to one host for one microDAO."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from shared.tools.web.addresses import Place

REQUESTS_PER_HOST = 8


class HostSlots:
    """Slots by microDAO and place, so that one microDAO's slow service keeps nobody else waiting.

    They hold in one process. What nobody holds or waits for takes no memory.
    """

    def __init__(self, size: int = REQUESTS_PER_HOST) -> None:
        self._size = size
        self._gates: dict[tuple[str, Place], asyncio.Semaphore] = {}
        self._users: dict[tuple[str, Place], int] = {}

    @asynccontextmanager
    async def held(self, microdao_id: str, place: Place) -> AsyncIterator[None]:
        """Wait for a slot, and give it back at the end of the block."""
        key = (microdao_id, place)
        gate = self._gates.setdefault(key, asyncio.Semaphore(self._size))
        self._users[key] = self._users.get(key, 0) + 1
        try:
            async with gate:
                yield
        finally:
            self._users[key] -= 1
            if not self._users[key]:
                del self._users[key], self._gates[key]
