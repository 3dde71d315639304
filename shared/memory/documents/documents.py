"""The documents of long-term memory: parsed, cut into chunks that are items, listed, deleted whole."""

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from psycopg.types.json import Jsonb

from shared.clock import utc_now
from shared.db.database import Database, Row
from shared.db.deadlocks import repeated_after_deadlocks
from shared.errors import NotFound, TooLarge, Unauthorized
from shared.ids import derived_id
from shared.memory import store
from shared.memory.content import canonical_json, check_user
from shared.memory.documents import store_documents
from shared.memory.documents.chunk import chunk_blocks
from shared.memory.documents.limits import MAX_REPEATED_BYTES
from shared.memory.documents.model import Chunk, ParsedDocument
from shared.memory.documents.parse import parse_document
from shared.memory.intake import Intake, enqueue_items, item_row, no_agent, scope_key
from shared.memory.model import NewMemory, ScopeRef


@dataclass(frozen=True, slots=True, kw_only=True)
class NewDocument:
    """A document to keep, as its bytes. ``metadata`` can be filtered by; ``scope``, ``by_admin`` as of NewMemory."""

    microdao_id: str
    agent_id: str
    data: bytes
    media_type: str
    title: str | None = None
    source: str | None = None
    scope: ScopeRef | None = None
    by_admin: bool = False
    importance: float = 0.5
    occurred_at: datetime | None = None
    expires_at: datetime | None = None
    metadata: dict[str, Any] = field(default_factory=dict)


class Documents:
    """Keeps documents."""

    def __init__(self, database: Database, intake: Intake) -> None:
        self._database = database
        self._intake = intake

    async def add(self, document: NewDocument) -> Row:
        """Keep a document, all of it or nothing; the same bytes in the same scope are kept once.

        Adding them again renews importance and expiry, and brings back what was forgotten of it or has expired.

        Raises InvalidRequest, TooLarge, UnsupportedMediaType, NotFound (agent, scope) or Unauthorized.
        """
        parsed = await asyncio.to_thread(
            parse_document, document.data, document.media_type, title=document.title or None
        )
        chunks = await asyncio.to_thread(chunk_blocks, parsed)
        scope = document.scope or ScopeRef("agent", document.agent_id)
        row = _document_row(document, scope, parsed, len(chunks))
        _check_repeated(row["title"], document.metadata, len(chunks))
        items = await asyncio.to_thread(lambda: [_item_row(document, row, chunk) for chunk in chunks])
        await self._write(document, scope, row, items)
        async with self._database.agent(document.microdao_id, document.agent_id, scope.user_id) as connection:
            return _found(await store_documents.read_added(connection, row["id"]), row["id"], document.agent_id)

    @repeated_after_deadlocks
    async def _write(
        self, document: NewDocument, scope: ScopeRef, row: dict[str, Any], items: Sequence[dict[str, Any]]
    ) -> None:
        place = document.microdao_id, document.agent_id, scope
        async with self._intake.writing(*place, by_admin=document.by_admin) as (connection, scope_id):
            await store_documents.insert_document(connection, row | {"scope_id": scope_id})
            await store.insert_items(connection, [item | {"scope_id": scope_id} for item in items])
            await enqueue_items(connection, document.microdao_id, [item["id"] for item in items])

    async def get(self, microdao_id: str, agent_id: str, document_id: str, user_id: str | None = None) -> Row:
        """A document with how many of its chunks are ``pending`` or ``failed``. Raises NotFound.

        ``user_id``, here and below: it may be that end user's.
        """
        check_user(user_id)
        async with self._database.agent(microdao_id, agent_id, user_id) as connection:
            return _found(await store_documents.read_document(connection, document_id), document_id, agent_id)

    async def list_page(
        self, microdao_id: str, agent_id: str, after: str, limit: int, user_id: str | None = None
    ) -> list[Row]:
        """Documents that the agent may read, by id. Raises NotFound (agent)."""
        check_user(user_id)
        async with self._database.agent(microdao_id, agent_id, user_id) as connection:
            rows = await store_documents.list_documents(connection, after, limit)
            if not rows and not await store.agent_exists(connection):
                raise no_agent(agent_id)
        return rows

    @repeated_after_deadlocks
    async def delete(
        self, microdao_id: str, agent_id: str, document_id: str, user_id: str | None = None, *, by_admin: bool = False
    ) -> None:
        """Forget a document with all its chunks; ``by_admin`` one of the microDAO's own.

        Raises NotFound, or Unauthorized for what the agent may only read.
        """
        check_user(user_id)
        missing = NotFound(f"there is no document {document_id!r} that {agent_id} may delete", param="document_id")
        if by_admin:
            everyones = ScopeRef("microdao", microdao_id)
            async with self._intake.writing(microdao_id, agent_id, everyones, by_admin=True) as (connection, scope_id):
                if not await store_documents.delete_document(connection, document_id, scope_id):
                    raise missing
            return
        async with self._database.agent(microdao_id, agent_id, user_id) as connection:
            if not await store_documents.delete_document(connection, document_id):
                if await store_documents.read_document(connection, document_id):
                    raise Unauthorized(f"{agent_id} may read {document_id} but not delete it")
                raise missing


def _found(row: Row | None, document_id: str, agent_id: str) -> Row:
    if row is None:
        raise NotFound(f"there is no document {document_id!r} that {agent_id} may read", param="document_id")
    return row


def document_id(microdao_id: str, agent_id: str, scope: ScopeRef, media_type: str, content_hash: bytes) -> str:
    """The same bytes have one id in a scope (a user's: of this agent)."""
    return derived_id("doc", microdao_id, *scope_key(scope, agent_id), media_type, content_hash.hex())


def chunk_id(document: str, position: int) -> str:
    """The id of the item that holds a document's chunk."""
    return derived_id("mem", document, str(position))


def _document_row(document: NewDocument, scope: ScopeRef, parsed: ParsedDocument, chunks: int) -> dict[str, Any]:
    digest = hashlib.sha256(document.data).digest()
    return {
        "id": document_id(document.microdao_id, document.agent_id, scope, document.media_type, digest),
        "microdao_id": document.microdao_id,
        "agent_id": document.agent_id,
        "title": parsed.title or document.source or "untitled",
        "source": document.source,
        "media_type": document.media_type,
        "content_hash": digest,
        "characters": len(parsed.text),
        "chunks": chunks,
        "metadata": Jsonb(document.metadata),
    }


def _check_repeated(title: str, metadata: dict[str, Any], chunks: int) -> None:
    size = len(canonical_json({"title": title, "context": metadata}))
    if size * chunks > MAX_REPEATED_BYTES:
        raise TooLarge(
            f"title and metadata have {size:,} bytes and stand in each of {chunks:,} chunks; all together may have"
            f" {MAX_REPEATED_BYTES:,}",
            param="metadata",
        )


def _item_row(document: NewDocument, row: dict[str, Any], chunk: Chunk) -> dict[str, Any]:
    place = {"headings": list(chunk.heading_path), "page": chunk.page, "start": chunk.start, "end": chunk.end}
    item = NewMemory(
        microdao_id=document.microdao_id,
        agent_id=document.agent_id,
        tier="long_term",
        content={"title": row["title"], "text": chunk.embedding_text, "context": {**document.metadata, **place}},
        scope=document.scope,
        importance=document.importance,
        occurred_at=document.occurred_at or utc_now(),
        expires_at=document.expires_at,
        source=document.source,
    )
    return item_row(
        item,
        id=chunk_id(row["id"], chunk.position),
        document_id=row["id"],
        position=chunk.position,
        text=chunk.embedding_text,
    )
