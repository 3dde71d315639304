"""What agents remember: store, find by meaning, count. The one door to memory for agents, tools and the API."""

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, cast

from psycopg.errors import ForeignKeyViolation

from shared.cloud.outbox import Outbox, enqueue
from shared.db.database import Database, Row
from shared.errors import NotFound
from shared.ids import derived_id
from shared.memory import store
from shared.memory.content import canonical_json, check_new, check_query, compose_text, content_hash
from shared.memory.embedders import open_embedder
from shared.memory.embedding import Embedder, embed
from shared.memory.indexing import Indexer
from shared.memory.model import TIERS, IndexJob, MemoryQuery, MemoryStats, NewMemory, Recollection, State, StoredMemory
from shared.settings import Settings

QUEUE = "memory"
_SWEEP_LIMIT = 500


class Memory:
    """The memory of every agent of every microDAO; each call touches one microDAO, except :meth:`sweep`."""

    def __init__(self, database: Database, outbox: Outbox, embedder: Embedder) -> None:
        self._database = database
        self._outbox = outbox
        self._embedder = embedder
        self._indexer = Indexer(database, embedder)

    async def prepare(self) -> None:
        """Build the embedding model's file now if it is missing (some seconds), instead of at the first query.

        It is loaded (a third of a second, 100 MB) by whoever needs it first: a gateway of plain models never does.
        """
        await asyncio.to_thread(self._embedder.prepare)

    async def warm(self) -> None:
        """Load the embedding model now instead of at the first query."""
        await asyncio.to_thread(self._embedder.warm)

    async def store(self, item: NewMemory) -> StoredMemory:
        """Keep an item; it is found by meaning once the indexer has seen it.

        The same content from the same agent, tier and session is kept once. Raises InvalidRequest, TooLarge,
        NotFound (agent).
        """
        check_new(item)
        row = _new_row(item)
        try:
            async with self._database.tenant(item.microdao_id) as connection:
                state = await store.insert_item(connection, row)
                if state == "pending":
                    await enqueue(connection, item.microdao_id, QUEUE, {"item_id": row["id"]})
        except ForeignKeyViolation:
            raise _no_agent(item.agent_id) from None
        if state == "pending":
            await self._outbox.committed()
        return StoredMemory(row["id"], cast(State, state))

    async def query(self, query: MemoryQuery) -> list[Recollection]:
        """The ``k`` memories nearest in meaning, best first. Raises InvalidRequest, NotFound (agent)."""
        check_query(query)
        (vector,) = await embed(self._embedder, [query.query])
        try:
            async with self._database.tenant(query.microdao_id) as connection:
                rows = await store.find_nearest(connection, query, vector)
                await store.count_use(connection, query, [row["id"] for row in rows])
        except ForeignKeyViolation:
            raise _no_agent(query.agent_id) from None
        return [_recollection(row, query.explain) for row in rows]

    async def stats(self, microdao_id: str, agent_id: str) -> MemoryStats:
        """An agent's memory in figures, without what has expired. Raises NotFound (agent)."""
        async with self._database.tenant(microdao_id) as connection:
            row = await store.read_stats(connection, microdao_id, agent_id)
        if row is None:
            raise _no_agent(agent_id)
        items = {tier: row.pop(tier) for tier in TIERS}
        return MemoryStats(items=items, **row)

    async def index(self, jobs: Sequence[IndexJob]) -> set[str]:
        """Embed what the jobs name; the ids of the messages to deliver again.

        An item whose text cannot be embedded keeps the reason in its row. Raises when the model cannot be used at all.
        """
        await self.warm()
        return await self._indexer.index(jobs)

    async def sweep(self) -> int:
        """Reclaim what expired and write a job for each item that waits without one; the number of those items.

        The outbox sends the jobs.
        """
        async with self._database.system() as connection:
            await store.delete_expired(connection, _SWEEP_LIMIT)
            rows = await store.read_unqueued(connection, _SWEEP_LIMIT)
            for row in rows:
                await enqueue(connection, row["microdao_id"], QUEUE, {"item_id": row["id"]})
        return len(rows)


def open_memory(settings: Settings, database: Database, outbox: Outbox) -> Memory:
    """The memory of this process."""
    return Memory(database, outbox, open_embedder(settings))


def _new_row(item: NewMemory) -> dict[str, Any]:
    canonical = canonical_json(item.content)
    digest = content_hash(canonical)
    source = item.content.get("source")
    return {
        **asdict(item),
        "id": derived_id("mem", item.microdao_id, item.agent_id, item.tier, item.session_id or "", digest.hex()),
        "importance": round(item.importance, 6),  # the column's precision; less than it can hold would be a fault
        "content": canonical.decode(),
        "content_hash": digest,
        "text": compose_text(item.content),
        "source": item.source or (source if isinstance(source, str) else None),
    }


def _recollection(row: Row, explain: bool) -> Recollection:
    cosine = row.pop("cosine")
    why = {"cosine": round(cosine, 4)} if explain else {}
    return Recollection(**row, score=min(1.0, max(0.0, cosine)), why=why)


def _no_agent(agent_id: str) -> NotFound:
    return NotFound(f"there is no agent {agent_id!r} in this microDAO", param="agent_id")
