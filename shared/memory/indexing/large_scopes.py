"""Scopes with many vectors get a partition and an approximate index of their own; all others are searched exactly."""

from psycopg.errors import DuplicateTable

from shared.db.database import Database
from shared.errors import Unavailable
from shared.memory.embedding import store_spaces
from shared.observability import Log

MOST_EXACT_VECTORS = 20_000
"""About as many as an exact search looks at in 20 ms."""

_BUILD_S = 1800.0
_log = Log("memory")


class LargeScopes:
    """Looks for scopes that have grown large. ``most_exact`` vectors of one space are searched exactly."""

    def __init__(self, database: Database, *, most_exact: int = MOST_EXACT_VECTORS) -> None:
        self._database = database
        self._most_exact = most_exact

    async def sweep(self) -> tuple[int, int] | None:
        """Give the largest scope that lacks one an index of its own; which space and scope, None when there is none.

        Searches, stores and deletions go on meanwhile but for a moment. It takes a minute for 100,000 vectors; a
        process that goes away does not stop it.
        """
        async with self._database.system() as connection:
            found = await store_spaces.most_crowded(connection, self._most_exact)
        if found is None or found["vectors"] <= self._most_exact:
            return None
        place = {"space_id": found["space_id"], "scope_id": found["scope_id"]}
        try:
            await self._database.run(store_spaces.ENLARGE, place, timeout_s=_BUILD_S)
        except (Unavailable, DuplicateTable):
            _log.info("a large scope gets its index later: another one is at work, or searches take long", **place)
            return None
        _log.info("a large scope has its own index", vectors=found["vectors"], **place)
        return found["space_id"], found["scope_id"]
