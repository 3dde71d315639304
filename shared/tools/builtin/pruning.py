"""Removes what notifications, webhooks and follow-ups leave behind, once it is old."""

from shared.db.batches import remove_in_batches
from shared.db.database import Connection, Database
from shared.tools.builtin import store_pruning
from shared.tools.builtin.notifying import QUEUE

_BATCH = 500
_MOST_BATCHES = 20
"""Of each kind; what is left is removed by the next sweep, a minute later."""


class Pruning:
    """Works in every microDAO. ``read_days`` after it was read a notification goes, ``days`` after it was made in any
    case; so do deliveries after they were taken, and follow-ups after they fired or were cancelled.
    """

    def __init__(self, database: Database, *, read_days: int, days: int) -> None:
        self._database = database
        self._read_days = read_days
        self._days = days

    async def sweep(self) -> int:
        """Remove what is old enough, so many batches at most, each its own transaction; how many rows."""
        kinds = (self._prune_notifications, self._prune_delivered, self._prune_followups)
        removed = [await remove_in_batches(self._database, prune, size=_BATCH, most=_MOST_BATCHES) for prune in kinds]
        return sum(removed)

    async def _prune_notifications(self, connection: Connection) -> int:
        return await store_pruning.prune_notifications(
            connection, read_days=self._read_days, days=self._days, queue=QUEUE, limit=_BATCH
        )

    async def _prune_delivered(self, connection: Connection) -> int:
        return await store_pruning.prune_delivered(connection, read_days=self._read_days, limit=_BATCH)

    async def _prune_followups(self, connection: Connection) -> int:
        return await store_pruning.prune_followups(connection, days=self._days, limit=_BATCH)
