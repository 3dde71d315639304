"""Snapshots: an agent's memory as a sealed file, kept, taken away, and restored into this or another agent.

What the agent keeps for its users is part of it, and is restored as theirs.
"""

import asyncio
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from psycopg.types.json import Jsonb

from shared.clock import utc_now
from shared.db.database import Connection, Database, Row, act_for
from shared.db.deadlocks import repeated_after_deadlocks
from shared.errors import LimitExceeded, NotFound, Unauthorized
from shared.ids import new_id
from shared.memory import store, store_users
from shared.memory.documents import store_documents
from shared.memory.intake import Intake, enqueue_items, forgotten_meanwhile, no_agent, with_postings
from shared.memory.model import ScopeRef
from shared.memory.snapshots import store_snapshots
from shared.memory.snapshots.contents import Contents, read_contents
from shared.memory.snapshots.file import FileWriter
from shared.memory.snapshots.plan import Mode, Plan, Target, plan_documents, plan_items

MAX_SNAPSHOTS: Final = 20
"""That an agent may have."""
_HIDDEN: Final[dict[str, Any]] = {"terms": [], "frequencies": [], "words": None, "lexicon": None}
_BATCH: Final = 500  # items whose postings are in memory at once
_PIECE: Final = 256 * 1024  # bytes of a file that are sent at once


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """How an agent's memory changed: items added, kept as they were, changed in place, removed; and its documents."""

    agent_id: str
    mode: Mode
    added: int
    kept: int
    changed: int
    removed: int
    documents_added: int
    documents_removed: int


class Snapshots:
    """Saves and restores. Where ``agent_id`` may be None the microDAO itself asks, else only what that agent may."""

    def __init__(self, database: Database, intake: Intake) -> None:
        self._database = database
        self._intake = intake

    async def save(self, microdao_id: str, agent_id: str, name: str) -> Row:
        """Keep an agent's own memory and its users' as it is at one moment, without embeddings and what expired.

        Raises NotFound (agent), LimitExceeded (too many snapshots), TooLarge.
        """
        writer = FileWriter()
        async with self._database.tenant(microdao_id) as connection:  # no agent's sees what is of several users
            scope_id = await _own_scope(connection, agent_id)
            async with aclosing(store_snapshots.read_lines(connection, agent_id)) as rows:
                async for row in rows:
                    writer.add(row["kind"], row["line"].encode(), row["user_id"])
        data = await asyncio.to_thread(writer.finish, microdao_id, agent_id, utc_now())
        snapshot: dict[str, Any] = {
            "id": new_id("snap"),
            "microdao_id": microdao_id,
            "scope_id": scope_id,
            "name": name,
            "items": writer.items,
            "documents": writer.documents,
            "users": writer.users,
            "bytes": len(data),
            "file": await asyncio.to_thread(zlib.compress, data),
        }
        async with self._database.agent(microdao_id, agent_id) as connection:
            await store_snapshots.lock_scope(connection, scope_id)
            if await store_snapshots.count_snapshots(connection, scope_id) >= MAX_SNAPSHOTS:
                raise LimitExceeded(f"{agent_id} has {MAX_SNAPSHOTS} snapshots, the most there may be: delete one")
            await store_snapshots.insert_snapshot(connection, snapshot)
        return await self.get(microdao_id, snapshot["id"])

    async def list_page(self, microdao_id: str, agent_id: str, after: str, limit: int) -> list[Row]:
        """An agent's snapshots, oldest first. Raises NotFound (agent)."""
        async with self._database.agent(microdao_id, agent_id) as connection:
            await _own_scope(connection, agent_id)
            return await store_snapshots.list_snapshots(connection, agent_id, after, limit)

    async def get(self, microdao_id: str, snapshot_id: str, agent_id: str | None = None) -> Row:
        """What is known of a snapshot. Raises NotFound."""
        async with self._acting(microdao_id, agent_id) as connection:
            return _found(await store_snapshots.read_snapshot(connection, snapshot_id), snapshot_id, agent_id)

    async def delete(self, microdao_id: str, snapshot_id: str, agent_id: str | None = None) -> None:
        """Forget a snapshot. Raises NotFound, or Unauthorized for what the agent may only read."""
        async with self._acting(microdao_id, agent_id) as connection:
            if not await store_snapshots.delete_snapshot(connection, snapshot_id):
                _found(await store_snapshots.read_snapshot(connection, snapshot_id), snapshot_id, agent_id)
                raise Unauthorized(f"{agent_id} may read {snapshot_id} but not delete it")

    async def file(self, microdao_id: str, snapshot_id: str, agent_id: str | None = None) -> Iterator[bytes]:
        """The snapshot's file, piece by piece. Raises NotFound."""
        return _inflated((await self._read(microdao_id, snapshot_id, agent_id))["file"])

    async def restore(
        self, microdao_id: str, snapshot_id: str, agent_id: str | None, mode: Mode, *, by_admin: bool = False
    ) -> Restored:
        """Make the memory of an agent (None: whose snapshot it is) what the snapshot says, or add what it lacks.

        All or nothing; who reads meanwhile sees the memory before or after. Raises NotFound (agent; snapshot, also for
        one that the agent may not read, unless ``by_admin``).
        """
        row = await self._read(microdao_id, snapshot_id, None if by_admin else agent_id)
        data = await asyncio.to_thread(zlib.decompress, row["file"])
        return await self._restore(microdao_id, agent_id or row["agent_id"], data, mode, origin=row["scope_id"])

    async def import_file(self, microdao_id: str, agent_id: str, data: bytes, mode: Mode) -> Restored:
        """The same with a file from anywhere. Raises InvalidRequest, TooLarge, NotFound (agent)."""
        return await self._restore(microdao_id, agent_id, data, mode, origin=None)

    @repeated_after_deadlocks
    async def _restore(
        self, microdao_id: str, agent_id: str, data: bytes, mode: Mode, *, origin: int | None
    ) -> Restored:
        contents = await asyncio.to_thread(read_contents, microdao_id, agent_id, data)
        gone = await self._users(microdao_id, agent_id) - contents.keys() if mode == "replace" else set()
        async with self._intake.writing(microdao_id, agent_id, ScopeRef("agent", agent_id)) as (connection, scope_id):
            await store_snapshots.lock_scope(connection, scope_id)
            users = sorted({one for one in contents if one is not None} | gone)
            await store_snapshots.hold_scopes(connection, scope_id, agent_id, users)
            target = Target(microdao_id=microdao_id, agent_id=agent_id, is_origin=scope_id == origin)
            done = [await _apply(connection, scope_id, target, contents.pop(None, Contents()), mode)]
            for user_id in users:
                done += await _apply_to_user(connection, replace(target, user_id=user_id), contents, mode)
        return _together(done)

    async def _users(self, microdao_id: str, agent_id: str) -> set[str]:
        """Whose memory the agent keeps. One who comes later is not known to a restore under way, and stays."""
        async with self._database.tenant(microdao_id) as connection:
            return set(await store_users.list_names(connection, agent_id))

    async def _read(self, microdao_id: str, snapshot_id: str, agent_id: str | None) -> Row:
        async with self._acting(microdao_id, agent_id) as connection:
            return _found(await store_snapshots.read_snapshot_file(connection, snapshot_id), snapshot_id, agent_id)

    def _acting(self, microdao_id: str, agent_id: str | None) -> AbstractAsyncContextManager[Connection]:
        return self._database.agent(microdao_id, agent_id) if agent_id else self._database.tenant(microdao_id)


async def _own_scope(connection: Connection, agent_id: str) -> int:
    found = await store.read_scope(connection, agent_id, ScopeRef("agent", agent_id))
    if not found["agent"]:
        raise no_agent(agent_id)
    return int(found["scope_id"])


async def _apply_to_user(
    connection: Connection, target: Target, contents: Mapping[str | None, Contents], mode: Mode
) -> list[Restored]:
    """The same for a user's memory, under that user's rights; one that is to be emptied and is gone stays gone."""
    scope = ScopeRef("user", target.user_id or "")
    await act_for(connection, scope.user_id)
    wanted = contents.get(scope.user_id)
    found = await (store.make_scope if wanted else store.read_scope)(connection, target.agent_id, scope)
    if found["scope_id"] is not None:
        return [await _apply(connection, found["scope_id"], target, wanted or Contents(), mode)]
    if wanted:
        raise forgotten_meanwhile()
    return []


async def _apply(connection: Connection, scope_id: int, target: Target, contents: Contents, mode: Mode) -> Restored:
    there = await store_snapshots.read_documents(connection, scope_id)
    documents, gone = plan_documents(contents.documents, there, mode)
    every = await store_snapshots.read_items(connection, scope_id)
    existing = [row for row in every if row["document_id"] not in gone]
    plan = plan_items(target, contents.items, existing, mode, utc_now())
    await store_snapshots.remove(connection, scope_id, plan.remove, gone)
    for document in documents:
        row = {**document, "metadata": Jsonb(document["metadata"]), "scope_id": scope_id}
        await store_documents.insert_document(connection, row)
    await store_snapshots.date_documents_back(connection, documents)
    await _write_items(connection, scope_id, target, plan)
    passages = {row["id"] for row in every if row["document_id"] in gone}
    added, removed = {row["id"] for row in plan.add}, {*plan.remove, *passages}
    return Restored(
        agent_id=target.agent_id,
        mode=mode,
        added=len(added - removed),
        kept=plan.kept - len(plan.change),
        changed=len(plan.change) + len(added & removed),
        removed=len(removed - added),
        documents_added=len(documents),
        documents_removed=len(gone),
    )


def _together(done: Sequence[Restored]) -> Restored:
    counts = [asdict(one) for one in done]
    names = ("added", "kept", "changed", "removed", "documents_added", "documents_removed")
    return replace(done[0], **{name: sum(one[name] for one in counts) for name in names})


async def _write_items(connection: Connection, scope_id: int, target: Target, plan: Plan) -> None:
    for start in range(0, len(plan.add), _BATCH):
        rows = await asyncio.to_thread(_findable, plan, scope_id, start)
        await store.insert_items(connection, rows)
    await store_snapshots.date_back(connection, plan.add)
    await store_snapshots.change_items(connection, plan.change)
    await store_snapshots.link_items(connection, plan.links)
    waiting = [row["id"] for row in plan.add if row["id"] not in plan.links]
    await enqueue_items(connection, target.microdao_id, waiting)


def _findable(plan: Plan, scope_id: int, start: int) -> list[dict[str, Any]]:
    """The next items to add, with postings unless a summary stands for them."""
    rows = []
    for columns in plan.add[start : start + _BATCH]:
        row = {**with_postings(columns), "text": columns["kept_text"], "scope_id": scope_id}
        rows.append(row | _HIDDEN if row["id"] in plan.links else row)
    return rows


def _inflated(compressed: bytes) -> Iterator[bytes]:
    decompressor = zlib.decompressobj()
    while piece := decompressor.decompress(compressed, _PIECE):
        yield piece
        compressed = decompressor.unconsumed_tail


def _found(row: Row | None, snapshot_id: str, agent_id: str | None) -> Row:
    if row is None:
        raise _no_snapshot(snapshot_id, agent_id)
    return row


def _no_snapshot(snapshot_id: str, agent_id: str | None) -> NotFound:
    """Says the same of one that does not exist and of one that the agent may not see."""
    seen = f" that {agent_id} may see" if agent_id else ""
    return NotFound(f"there is no snapshot {snapshot_id!r}{seen}", param="snapshot_id")
