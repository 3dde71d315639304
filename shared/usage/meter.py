"""Adds each usage event to its day's totals, once, however often its message comes."""

from collections.abc import Sequence

from shared.cloud.outbox import enqueue
from shared.db.database import Database
from shared.usage import store
from shared.usage.events import QUEUE

_SWEEP_LIMIT = 500


class Meter:
    """The consumer of usage events."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def apply(self, job_id: str, microdao_id: str, event_id: str) -> bool:
        """Meter the event of one job; False when a doubled delivery finds nothing left to do."""
        return await self.apply_all([(job_id, microdao_id)]) == 1

    async def apply_all(self, jobs: Sequence[tuple[str, str]]) -> int:
        """Meter the events of jobs (id, microDAO), all in one statement; the number of events that it counted."""
        return await store.meter_events(self._database, jobs)

    async def sweep(self) -> int:
        """Write a job for each event that waits without one; the number of events. The outbox sends them."""
        async with self._database.system() as connection:
            rows = await store.read_unqueued(connection, _SWEEP_LIMIT)
            for row in rows:
                await enqueue(connection, row["microdao_id"], QUEUE, {"event_id": row["id"]})
        return len(rows)
