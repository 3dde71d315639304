"""Snapshots: an agent's own memory as a sealed file, kept, taken away, and restored into this or another agent."""

import asyncio
import zlib
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass
from typing import Any, Final

from psycopg.types.json import Jsonb

from shared.clock import utc_now
from shared.db.database import Connection, Database, Row
from shared.errors import ApiError, LimitExceeded, NotFound, Unauthorized
from shared.ids import new_id
from shared.memory import store
from shared.memory.documents import store_documents
from shared.memory.documents.documents import chunk_id, document_id
from shared.memory.intake import Intake, enqueue_items, item_columns, no_agent, with_postings
from shared.memory.model import NewMemory, ScopeRef
from shared.memory.snapshots import store_snapshots
from shared.memory.snapshots.file import FileWriter, SnapshotFile, read_file
from shared.memory.snapshots.lines import DocumentLine, ItemLine
from shared.memory.snapshots.plan import Mode, Plan, Prepared, Target, plan_documents, plan_items

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


@dataclass(frozen=True, slots=True)
class _Contents:
    """A snapshot as rows of its target."""

    documents: list[dict[str, Any]]
    items: list[Prepared]


class Snapshots:
    """Saves and restores. Where ``agent_id`` may be None the microDAO itself asks, else only what that agent may."""

    def __init__(self, database: Database, intake: Intake) -> None:
        self._database = database
        self._intake = intake

    async def save(self, microdao_id: str, agent_id: str, name: str) -> Row:
        """Keep an agent's own memory as it is at one moment, without embeddings and without what expired.

        Raises NotFound (agent), LimitExceeded (too many snapshots), TooLarge.
        """
        writer = FileWriter()
        async with self._database.agent(microdao_id, agent_id) as connection:
            scope_id = await _own_scope(connection, agent_id)
            async with aclosing(store_snapshots.read_lines(connection, scope_id)) as rows:
                async for row in rows:
                    writer.add(row["kind"], row["line"].encode())
        data = await asyncio.to_thread(writer.finish, microdao_id, agent_id, utc_now())
        snapshot: dict[str, Any] = {
            "id": new_id("snap"),
            "microdao_id": microdao_id,
            "scope_id": scope_id,
            "name": name,
            "items": writer.items,
            "documents": writer.documents,
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

    async def _restore(
        self, microdao_id: str, agent_id: str, data: bytes, mode: Mode, *, origin: int | None
    ) -> Restored:
        contents = await asyncio.to_thread(_contents, microdao_id, agent_id, data)
        async with self._intake.writing(microdao_id, agent_id, ScopeRef("agent", agent_id)) as (connection, scope_id):
            target = Target(microdao_id=microdao_id, agent_id=agent_id, is_origin=scope_id == origin)
            return await _apply(connection, scope_id, target, contents, mode)

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


async def _apply(connection: Connection, scope_id: int, target: Target, contents: _Contents, mode: Mode) -> Restored:
    await store_snapshots.lock_scope(connection, scope_id)
    there = await store_snapshots.read_documents(connection, scope_id)
    documents, gone = plan_documents(contents.documents, there, mode)
    existing = [row for row in await store_snapshots.read_items(connection, scope_id) if row["document_id"] not in gone]
    plan = plan_items(target, contents.items, existing, mode, utc_now())
    await store_snapshots.remove(connection, scope_id, plan.remove, gone)
    for document in documents:
        row = {**document, "metadata": Jsonb(document["metadata"]), "scope_id": scope_id}
        await store_documents.insert_document(connection, row)
    await store_snapshots.date_documents_back(connection, documents)
    await _write_items(connection, scope_id, target, plan)
    added = {row["id"] for row in plan.add}
    return Restored(
        agent_id=target.agent_id,
        mode=mode,
        added=len(plan.add),
        kept=plan.kept - len(plan.change),
        changed=len(plan.change),
        removed=len(set(plan.remove) - added),
        documents_added=len(documents),
        documents_removed=len(gone),
    )


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


def _contents(microdao_id: str, agent_id: str, data: bytes) -> _Contents:
    """Everything checked, before anything is written. Raises InvalidRequest or TooLarge, naming the line."""
    file: SnapshotFile = read_file(data)
    scope = ScopeRef("agent", agent_id)
    ids = {one.id: document_id(microdao_id, scope, one.media_type, one.content_hash) for one in file.documents}
    documents = [_document_row(microdao_id, agent_id, one, ids[one.id]) for one in file.documents]
    file.items.reverse()
    # What has become a row is let go: a large file need not be in memory twice.
    return _Contents(
        documents, [_prepare(microdao_id, agent_id, file.items.pop(), ids) for _ in range(len(file.items))]
    )


def _document_row(microdao_id: str, agent_id: str, document: DocumentLine, own_id: str) -> dict[str, Any]:
    return {
        "id": own_id,
        "microdao_id": microdao_id,
        "agent_id": agent_id,
        "title": document.title,
        "source": document.source,
        "media_type": document.media_type,
        "content_hash": document.content_hash,
        "characters": document.characters,
        "chunks": document.chunks,
        "metadata": document.metadata,
        "created_at": document.created_at,
    }


def _prepare(microdao_id: str, agent_id: str, item: ItemLine, document_ids: dict[str, str]) -> Prepared:
    more: dict[str, Any] = {"id": item.id, "created_at": item.created_at, "position": item.position}
    if item.document_id is not None:
        more["document_id"] = document_ids[item.document_id]
        if item.position is not None:
            more["id"] = chunk_id(more["document_id"], item.position)
            more |= {"kept_text": text} if isinstance(text := item.content.get("text"), str) and text.strip() else {}
    memory = NewMemory(
        microdao_id=microdao_id,
        agent_id=agent_id,
        tier=item.tier,
        content=item.content,
        importance=item.importance,
        channel_id=item.channel_id,
        session_id=item.session_id,
        occurred_at=item.occurred_at,
        expires_at=item.expires_at,
        source=item.source,
    )
    try:
        columns = item_columns(memory)
    except ApiError as error:
        raise type(error)(f"line {item.line}: {error.message}", param=error.param) from None
    row = {**columns, "kept_text": columns["text"], **more}
    return Prepared(item.id, row, item.summary_id, item.is_chunk)


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
