"""The policies of each microDAO as this process knows them: parsed once, at most two seconds old."""

import asyncio
import time
from collections.abc import Callable
from typing import Final

from shared.db.database import Database
from shared.policy import store_policies
from shared.policy.decision import OwnPolicies

KNOWN_FOR_S: Final = 2.0
MOST_KNOWN: Final = 10_000
MOST_PARSED: Final = 500
"""MicroDAOs; a policy set takes at most ``own.MAX_POLICIES`` × ``check.MAX_CHARACTERS``."""

Known = tuple[float, OwnPolicies | None]


class KnownPolicies:
    """Loads policies when they are asked for. Failing to load raises: nobody is let in on an old answer."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._clock = clock
        self._known: dict[str, Known] = {}
        self._parsed: dict[str, OwnPolicies] = {}
        self._loading: dict[str, asyncio.Task[OwnPolicies | None]] = {}

    def fresh(self, microdao_id: str) -> Known | None:
        """What is known, if it is not too old."""
        known = self._known.get(microdao_id)
        return known if known is not None and self._clock() - known[0] < KNOWN_FOR_S else None

    async def load(self, microdao_id: str) -> OwnPolicies | None:
        """Ask the database, once for all who wait; None for a microDAO without policies. Raises Unavailable."""
        task = self._loading.get(microdao_id)
        if task is None:
            task = self._loading[microdao_id] = asyncio.create_task(self._load(microdao_id))
            task.add_done_callback(lambda done: self._loaded(microdao_id, done))
        return await asyncio.shield(task)

    def forget(self, microdao_id: str) -> None:
        """The policies were changed: ask again, whatever was or is being read."""
        self._known.pop(microdao_id, None)
        self._loading.pop(microdao_id, None)

    def _loaded(self, microdao_id: str, task: asyncio.Task[OwnPolicies | None]) -> None:
        if self._loading.get(microdao_id) is task:
            del self._loading[microdao_id]
        if not task.cancelled():
            task.exception()  # seen: it is raised where it is waited for, and perhaps nobody waits any more

    async def _load(self, microdao_id: str) -> OwnPolicies | None:
        began, own = self._clock(), await self._read(microdao_id)
        if self._loading.get(microdao_id) is asyncio.current_task():  # else it may be from before a change
            if len(self._known) >= MOST_KNOWN:
                self._known.clear()
            self._known[microdao_id] = (began, own)
        return own

    async def _read(self, microdao_id: str) -> OwnPolicies | None:
        version = await store_policies.read_version(self._database, microdao_id)
        parsed = self._parsed.get(microdao_id)
        if parsed is None or parsed.version != version:
            if version == 0:
                return None
            version, sources = await store_policies.read_active(self._database, microdao_id)
            parsed = OwnPolicies(microdao_id, version, sources)
            if len(self._parsed) >= MOST_PARSED:
                self._parsed.clear()
                self._known.clear()
            self._parsed[microdao_id] = parsed
        return parsed if parsed.count else None
