"""How memories come in: one at a time, or many in one transaction."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, cast

from psycopg.errors import ForeignKeyViolation, InsufficientPrivilege
from psycopg.types.json import Jsonb

from shared.clock import utc_now
from shared.cloud.outbox import Outbox, enqueue, new_job
from shared.db.database import Connection, Database
from shared.db.deadlocks import repeated_after_deadlocks
from shared.errors import Conflict, NotFound, Unauthorized
from shared.ids import derived_id
from shared.memory import store, store_changes
from shared.memory.content import author_of, canonical_json, check_new, check_user, compose_text, content_hash
from shared.memory.model import NewMemory, ScopeRef, State, StoredMemory
from shared.memory.search.terms import LEXICON, frequencies, item_terms

QUEUE = "memory"
_ITEMS_A_JOB = 32
_IDS_LOOKED_AT = 64
"""At once, for a memory whose own id another one has."""


class Intake:
    """Keeps what agents are to remember."""

    def __init__(self, database: Database, outbox: Outbox) -> None:
        self._database = database
        self._outbox = outbox

    @repeated_after_deadlocks
    async def store(self, item: NewMemory) -> StoredMemory:
        """Keep an item; it is found by its words at once, and by meaning when the indexer has seen it.

        The same content from the same agent, tier, scope, session and moment is kept once; where it was changed since,
        it is another memory. Raises as :meth:`writing`, InvalidRequest or TooLarge.
        """
        row = await asyncio.to_thread(item_row, item)  # a megabyte has many words to stem
        place = item.microdao_id, item.agent_id, scope_of(item)
        async with self.writing(*place, by_admin=item.by_admin) as (connection, scope_id):
            return await _keep(connection, row | {"scope_id": scope_id, "may_differ": False})

    @asynccontextmanager
    async def writing(
        self, microdao_id: str, agent_id: str, scope: ScopeRef, *, by_admin: bool = False
    ) -> AsyncIterator[tuple[Connection, int]]:
        """A transaction of the agent's, and the number of the scope that it writes; jobs leave after it.

        Into the microDAO's own scope no agent can write: that takes ``by_admin``, and the transaction is the tenant's.
        An end user's scope is made if it is missing. Raises InvalidRequest (no user's id), NotFound (agent, scope that
        the agent may not even read), Unauthorized (one it may not write) or Conflict (forgotten meanwhile).
        """
        check_user(scope.user_id)
        for_all = by_admin and scope.kind == "microdao"
        tenant, agent = self._database.tenant, self._database.agent
        with _taken_away(scope):
            async with tenant(microdao_id) if for_all else agent(microdao_id, agent_id, scope.user_id) as connection:
                found = await store.make_scope(connection, agent_id, scope)
                if not found["agent"]:
                    raise no_agent(agent_id)
                if found["scope_id"] is None and scope.kind == "user":
                    raise forgotten_meanwhile()
                if found["scope_id"] is None or not (found["readable"] or for_all):
                    raise NotFound(f"there is no memory of {scope.kind} {scope.name!r} for {agent_id}", param="scope")
                if not (found["writable"] or for_all):
                    raise Unauthorized(f"{agent_id} may not write into the memory of {scope.kind} {scope.name}")
                yield connection, found["scope_id"]
        await self._outbox.committed()


async def _keep(connection: Connection, row: Mapping[str, Any]) -> StoredMemory:
    """Under its own id or, if what has that id was changed and says something else now, under another one."""
    item_id = row["id"]
    while True:
        job = new_job(row["microdao_id"], QUEUE, {"item_ids": [item_id]})
        more = {"id": item_id, "job_id": job["id"], "job_body": Jsonb(job["body"])}
        state = await store.insert_item(connection, {**row, **more})
        if state is not None:
            return StoredMemory(item_id, cast(State, state))
        item_id = await _other_id(connection, row["id"], row["content_hash"])


async def _other_id(connection: Connection, taken: str, digest: bytes) -> str:
    """The id under which this content is kept beside what has its own id: derived, so that a retry finds it."""
    numbers = itertools.count(1)
    found = None
    while found is None:
        ids = [derived_id("mem", taken, str(number)) for number in itertools.islice(numbers, _IDS_LOOKED_AT)]
        found = await store_changes.find_id(connection, ids, digest)
    return found


async def enqueue_items(
    connection: Connection, microdao_id: str, item_ids: Sequence[str], *, reindex_id: str | None = None
) -> None:
    """Write the jobs that index these items, in the caller's transaction; ``reindex_id`` is the run they belong to."""
    run = {"reindex_id": reindex_id} if reindex_id else {}
    for start in range(0, len(item_ids), _ITEMS_A_JOB):
        await enqueue(connection, microdao_id, QUEUE, {"item_ids": list(item_ids[start : start + _ITEMS_A_JOB])} | run)


def scope_of(item: NewMemory) -> ScopeRef:
    """Whose memory an item becomes part of."""
    return item.scope or ScopeRef("agent", item.agent_id)


def scope_key(scope: ScopeRef, agent_id: str) -> tuple[str, ...]:
    """What names a scope in its microDAO: users of the same id are each agent's own."""
    return (scope.kind, scope.name, agent_id) if scope.kind == "user" else (scope.kind, scope.name)


def item_row(item: NewMemory, **more: Any) -> dict[str, Any]:
    """The row of an item and its postings, without a job. Raises InvalidRequest or TooLarge."""
    return {**with_postings(item_columns(item)), **more}


def item_columns(item: NewMemory) -> dict[str, Any]:
    """The row of an item without what finds it. Raises InvalidRequest or TooLarge."""
    check_new(item)
    columns = content_columns(item.content)
    return {
        **columns,
        "id": _item_id(item, scope_of(item), columns["content_hash"]),
        "microdao_id": item.microdao_id,
        "agent_id": item.agent_id,
        "tier": item.tier,
        "source": item.source or columns["source"],
        "channel_id": item.channel_id,
        "session_id": item.session_id,
        "document_id": None,
        "position": None,
        "importance": round(item.importance, 6),  # the column's precision; less than it can hold would be a fault
        "occurred_at": item.occurred_at or utc_now(),
        "expires_at": item.expires_at,
    }


def content_columns(content: Mapping[str, Any]) -> dict[str, Any]:
    """What an item's row says of its content. Raises InvalidRequest or TooLarge."""
    canonical = canonical_json(content)
    source = content.get("source")
    return {
        "content": canonical.decode(),
        "content_hash": content_hash(canonical),
        "text": compose_text(content),
        "author": author_of(content),
        "source": source if isinstance(source, str) else None,
    }


def with_postings(columns: Mapping[str, Any]) -> dict[str, Any]:
    """The row with the words that find the item, without a job; as one that is kept under its id whatever it says,
    and renewed by whoever stores it again."""
    terms = item_terms(columns["text"], columns["author"], columns["occurred_at"])
    return {
        **columns,
        "words": sum(terms.values()),
        "lexicon": LEXICON,
        "terms": list(terms),
        "frequencies": frequencies(terms),
        "job_id": None,
        "job_body": None,
        "may_differ": True,
        "renews": True,
    }


def _item_id(item: NewMemory, scope: ScopeRef, digest: bytes) -> str:
    moment = item.occurred_at.isoformat() if item.occurred_at else ""
    place = (
        item.microdao_id,
        scope.kind,
        scope.name,
        item.agent_id,
        item.tier,
        item.session_id or "",
        item.channel_id or "",
    )
    return derived_id("mem", *place, moment, digest.hex())


@contextmanager
def _taken_away(scope: ScopeRef) -> Iterator[None]:
    """The right to write, or what is written to, may go between the look and the write; the database then refuses."""
    try:
        yield
    except (InsufficientPrivilege, ForeignKeyViolation) as error:
        if scope.kind == "user":
            raise forgotten_meanwhile() from None
        if isinstance(error, ForeignKeyViolation):
            raise Conflict("something that this belongs to was forgotten at this moment; try again") from None
        raise Unauthorized(f"the memory of {scope.kind} {scope.name} was taken away meanwhile") from None


def forgotten_meanwhile() -> Conflict:
    """A user's scope was made or found and then deleted: it comes again with the next try."""
    return Conflict("what was kept for this user was forgotten at this moment; try again", param="user_id")


def no_agent(agent_id: str) -> NotFound:
    """What an unknown agent is answered with."""
    return NotFound(f"there is no agent {agent_id!r} in this microDAO", param="agent_id")
