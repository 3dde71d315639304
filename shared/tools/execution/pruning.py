"""Removes what runs of tools leave behind, once it is old: arguments, results, how many tools were in prompts."""

from collections.abc import Awaitable, Callable

from shared.db.batches import remove_in_batches
from shared.db.database import Connection, Database
from shared.tools.execution import store_pruning
from shared.tools.execution.store_pruning import Page

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
        return (
            await self._page_by_page(store_pruning.prune_finished)
            + await self._page_by_page(store_pruning.prune_never_run)
            + await remove_in_batches(self._database, self._prune_prompts, size=_BATCH, most=_MOST_BATCHES)
        )

    async def _page_by_page(self, prune: Callable[..., Awaitable[Page]]) -> int:
        """What a page keeps is passed over by the next one."""
        removed = kept = 0
        for _ in range(_MOST_BATCHES):
            async with self._database.system() as connection:
                page = await prune(connection, days=self._days, queue=self._queue, skip=kept, limit=_BATCH)
            removed += page.removed
            kept += page.seen - page.removed
            if page.seen < _BATCH:
                break
        return removed

    async def _prune_prompts(self, connection: Connection) -> int:
        return await store_pruning.prune_prompts(connection, days=self._days, limit=_BATCH)
