"""Adds each usage event to its day's totals, once, however often its message comes."""

from shared.cloud.outbox import claim, enqueue
from shared.db.database import Database
from shared.usage import store
from shared.usage.events import QUEUE

_SWEEP_LIMIT = 500


class Meter:
    """The consumer of usage events."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def apply(self, job_id: str, microdao_id: str, event_id: str) -> bool:
        """Meter one event in one transaction; False when a doubled delivery finds nothing left to do."""
        async with self._database.tenant(microdao_id) as connection:
            return await claim(connection, job_id) and await store.meter_event(connection, event_id)

    async def sweep(self) -> int:
        """Write a job for each event that waits without one; the number of events. The outbox sends them."""
        async with self._database.system() as connection:
            rows = await store.read_unqueued(connection, _SWEEP_LIMIT)
            for row in rows:
                await enqueue(connection, row["microdao_id"], QUEUE, {"event_id": row["id"]})
        return len(rows)
