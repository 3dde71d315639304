"""What agents remember: store, find, list, forget, count. The one door to memory for agents, tools and the API."""

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from shared.cloud.outbox import Outbox
from shared.db.database import Database, Row
from shared.db.deadlocks import repeated_after_deadlocks
from shared.errors import InvalidRequest, NotFound, Unauthorized
from shared.memory import store
from shared.memory.analytics.analytics import Analytics
from shared.memory.channels import Channels
from shared.memory.content import check_filters, check_query, check_user
from shared.memory.documents.documents import Documents
from shared.memory.embedding import store_embedding_cache
from shared.memory.embedding.embedders import open_embedders
from shared.memory.embedding.spaces import Spaces
from shared.memory.indexing import store_index
from shared.memory.indexing.indexer import Indexer
from shared.memory.indexing.large_scopes import LargeScopes
from shared.memory.indexing.reindexing import Reindexing
from shared.memory.intake import Intake, enqueue_items, no_agent
from shared.memory.items import Items
from shared.memory.model import (
    TIERS,
    Filters,
    IndexJob,
    Listing,
    MemoryQuery,
    MemoryStats,
    NewMemory,
    Recollection,
    ScopeRef,
    StoredMemory,
)
from shared.memory.retention import store_retention
from shared.memory.retention.retention import Retention
from shared.memory.retention.summaries import Summaries
from shared.memory.search.searcher import Searcher
from shared.memory.sharing.sharing import Sharing
from shared.memory.snapshots.snapshots import Snapshots
from shared.memory.users import Users
from shared.settings import Settings

if TYPE_CHECKING:
    from shared.llm.gateway import Gateway

_SWEEP_LIMIT = 500
_RECLAIM_FOR_S = 10.0
_LOST_AFTER_S = 900.0
"""So long a job may take, with its deliveries after failures; then it is thought lost with its row."""

_KEPT_VECTORS = 200_000
_KEPT_FOR_S = 90 * 86_400.0
"""How many vectors that were paid for are kept, and how long after their last use."""


class Memory:
    """The memory of every agent of every microDAO; each call touches one microDAO, except :meth:`sweep`."""

    def __init__(
        self, database: Database, outbox: Outbox, spaces: Spaces, gateway: "Callable[[], Gateway] | None" = None
    ) -> None:
        self._database = database
        self._outbox = outbox
        self._intake = Intake(database, outbox)
        self._searcher = Searcher(database, spaces)
        self._indexer = Indexer(database, spaces)
        self.spaces = spaces
        self.items = Items(database, outbox, self._intake)
        self.documents = Documents(database, self._intake)
        self.channels = Channels(database, self._intake)
        self.sharing = Sharing(database)
        self.users = Users(database, outbox)
        self.retention = Retention(database, outbox, Summaries(gateway))
        self.snapshots = Snapshots(database, self._intake)
        self.analytics = Analytics(database)
        self.reindexing = Reindexing(database, outbox, spaces)
        self.large_scopes = LargeScopes(database)

    async def prepare(self) -> None:
        """Build the embedding model's file now if it is missing (some seconds), instead of at the first query.

        It is loaded (half a second, 60 MB) by whoever needs it first: a gateway of plain models never does.
        """
        await (await self.spaces.active()).embedder.prepare()

    async def warm(self) -> None:
        """Load the embedding model now instead of at the first query."""
        await (await self.spaces.active()).embedder.warm()

    async def store(self, item: NewMemory) -> StoredMemory:
        """Keep an item; it is found by its words at once, and by meaning when the indexer has seen it.

        The same content from the same agent, tier, scope, session and moment is kept once; where it was changed since,
        it is another memory. Raises InvalidRequest, TooLarge, NotFound (agent, scope) or Unauthorized (a scope that the
        agent may not write).
        """
        return await self._intake.store(item)

    async def query(self, query: MemoryQuery) -> list[Recollection]:
        """The ``k`` memories that answer best, best first. Raises InvalidRequest, NotFound (agent)."""
        check_query(query)
        return await self._searcher.search(query)

    async def list(self, listing: Listing) -> list[Row]:
        """Items as they are stored. Raises InvalidRequest, NotFound (agent)."""
        check_filters(listing.filters)
        check_user(listing.user_id)
        async with self._database.agent(listing.microdao_id, listing.agent_id, listing.user_id) as connection:
            rows = await store.list_items(connection, listing)
            if not rows and not await store.agent_exists(connection):
                raise no_agent(listing.agent_id)
        return rows

    @repeated_after_deadlocks
    async def forget(
        self, microdao_id: str, agent_id: str, item_id: str, user_id: str | None = None, *, by_admin: bool = False
    ) -> None:
        """Delete an item with its postings and embeddings; ``by_admin`` one of the microDAO's own.

        ``user_id``: it may be that end user's. A summary that was made of it goes, too; what else that summary stood
        for is found itself again.
        Raises NotFound, or Unauthorized for what the agent may only read.
        """
        check_user(user_id)
        missing = NotFound(f"there is no memory {item_id!r} that {agent_id} may delete", param="item_id")
        if by_admin:
            everyones = ScopeRef("microdao", microdao_id)
            async with self._intake.writing(microdao_id, agent_id, everyones, by_admin=True) as (connection, scope_id):
                if not await store.delete_items(connection, [item_id], scope_id):
                    raise missing
            return
        async with self._database.agent(microdao_id, agent_id, user_id) as connection:
            if not await store.delete_items(connection, [item_id]):
                if not await store.read_item(connection, item_id):
                    raise missing
                if not await store.delete_items(connection, [item_id]):  # it may have been stored again meanwhile
                    raise Unauthorized(f"{agent_id} may read {item_id} but not delete it")
        await self._outbox.committed()

    @repeated_after_deadlocks
    async def forget_matching(
        self, microdao_id: str, agent_id: str, filters: Filters, user_id: str | None = None
    ) -> int:
        """Delete what the agent owns, or keeps for one end user, and the filters match; how many.

        Raises InvalidRequest for empty filters.
        """
        check_filters(filters)
        check_user(user_id)
        if filters == Filters():
            raise InvalidRequest(
                "name at least one condition, in memory_types or filters; DELETE …/users/{id} forgets a user whole",
                param="filters",
            )
        scope = ScopeRef("agent", agent_id) if user_id is None else ScopeRef("user", user_id)
        async with self._database.agent(microdao_id, agent_id, user_id) as connection:
            forgotten = await store.delete_matching(connection, scope, filters)
        await self._outbox.committed()
        return forgotten

    async def stats(self, microdao_id: str, agent_id: str) -> MemoryStats:
        """An agent's own memory and its users' in figures, without what has expired. Raises NotFound (agent)."""
        async with self._database.tenant(microdao_id) as connection:
            row = await store.read_stats(connection, agent_id)
        if row is None:
            raise no_agent(agent_id)
        items = {tier: row.pop(tier) for tier in TIERS}
        return MemoryStats(items=items, **row)

    async def index(self, jobs: Sequence[IndexJob]) -> set[str]:
        """Index what the jobs name; the ids of the messages to deliver again.

        An item whose text cannot be embedded keeps the reason in its row. Raises when the model cannot be used at all.
        """
        is_reindexing = any(job.reindex_id for job in jobs)
        if is_reindexing:
            self.spaces.reread()
        for space in await self.spaces.written():
            await space.embedder.warm()
        again = await self._indexer.index(jobs)
        if is_reindexing:
            await self.reindexing.advance()
        return again

    async def sweep(self, *, older_than_s: float = _LOST_AFTER_S) -> int:
        """Reclaim what expired and queue again what waits for the indexer since so long; the number of those items.

        Drives reindexing and gives large scopes an index. The outbox sends the jobs.
        """
        await self._reclaim()
        async with self._database.system() as connection:
            rows = await store_index.queue_again(connection, older_than_s, _SWEEP_LIMIT)
            for microdao_id, item_ids in _by_microdao(rows).items():
                await enqueue_items(connection, microdao_id, item_ids)
            await store_embedding_cache.prune(
                connection, most=_KEPT_VECTORS, unused_s=_KEPT_FOR_S, batch=10 * _SWEEP_LIMIT
            )
        await self.reindexing.sweep()
        await self.large_scopes.sweep()
        return len(rows)

    async def _reclaim(self) -> None:
        """Delete what expired, a batch a transaction: it costs each query of its scope a little until it is gone."""
        until = time.monotonic() + _RECLAIM_FOR_S
        is_done = False
        while not is_done and time.monotonic() < until:
            async with self._database.system() as connection:
                is_done = await store_retention.delete_expired(connection, _SWEEP_LIMIT) < _SWEEP_LIMIT


def _by_microdao(rows: Sequence[Row]) -> dict[str, list[str]]:
    grouped: dict[str, list[str]] = {}
    for row in rows:
        grouped.setdefault(row["microdao_id"], []).append(row["id"])
    return grouped


def open_memory(
    settings: Settings, database: Database, outbox: Outbox, gateway: "Callable[[], Gateway] | None" = None
) -> Memory:
    """The memory of this process; without a ``gateway`` no provider embeds and no model writes summaries."""
    return Memory(database, outbox, Spaces(database, open_embedders(settings, database, gateway)), gateway)
