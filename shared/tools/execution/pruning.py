"""Removes what runs of tools leave behind, once it is old: arguments, results, how many tools were in prompts."""

from shared.db.batches import remove_in_batches
from shared.db.database import Connection, Database
from shared.tools.execution import store_pruning

_BATCH = 1_000
_MOST_BATCHES = 20
"""Of each kind; what is left is removed by the next sweep, a minute later."""


class ExecutionPruning:
    """Works in every microDAO. ``days`` after it ended an execution goes, and with it what its idempotency key answers.

    ``queue`` is that of the executions' jobs.
    """

    def __init__(self, database: Database, *, days: int, queue: str) -> None:
        self._database = database
        self._days = days
        self._queue = queue

    async def sweep(self) -> int:
        """Remove what is old enough, the oldest first, so many batches at most, each a transaction; how many rows.

        Nobody is waited for: what another transaction holds is passed over.
        """
        kinds = (self._prune_finished, self._prune_never_run, self._prune_prompts)
        removed = [await remove_in_batches(self._database, prune, size=_BATCH, most=_MOST_BATCHES) for prune in kinds]
        return sum(removed)

    async def _prune_finished(self, connection: Connection) -> int:
        return await store_pruning.prune_finished(connection, days=self._days, queue=self._queue, limit=_BATCH)

    async def _prune_never_run(self, connection: Connection) -> int:
        return await store_pruning.prune_never_run(connection, days=self._days, queue=self._queue, limit=_BATCH)

    async def _prune_prompts(self, connection: Connection) -> int:
        return await store_pruning.prune_prompts(connection, days=self._days, limit=_BATCH)
