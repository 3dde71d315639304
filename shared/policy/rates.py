"""How often a tool may be called in a minute: by a whole microDAO, or by one agent of it."""

import math
from typing import Final

from shared.db.database import Database
from shared.errors import RateLimitExceeded
from shared.policy import store_rates

WINDOW_S: Final = 60.0


class ToolRates:
    """Counts calls in Postgres, so that all processes share one count. A minute begins with its first call.

    ``database`` is a pool that no caller's transaction holds a connection of.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def take(self, microdao_id: str, tool: str, limit: int, agent_id: str | None = None) -> None:
        """Count a call, of the agent alone if one is named. Raises RateLimitExceeded (with ``retry-after``).

        Exactly ``limit`` calls of a minute pass, however many come at once.
        """
        row = await store_rates.take(self._database, microdao_id, tool, agent_id or "", limit)
        if row["taken"]:
            return
        wait_s = min(max(row["wait_s"] if row["wait_s"] is not None else WINDOW_S, 0.001), WINDOW_S)
        waits = {"retry-after": str(math.ceil(wait_s)), "retry-after-ms": str(math.ceil(wait_s * 1000))}
        raise RateLimitExceeded(
            f"{tool} may be called {limit} times a minute; there is room in {math.ceil(wait_s)} s", headers=waits
        )
