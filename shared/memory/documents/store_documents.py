"""The SQL of documents."""

from collections.abc import Mapping
from typing import Any, Final

from shared.db.database import Connection, Row, fetch_all, fetch_one

# Held in any case, so that nobody deletes it while its items are kept.
_INSERT: Final = """
INSERT INTO memory_document (id, microdao_id, scope_id, agent_id, title, source, media_type, content_hash, characters,
    chunks, metadata)
VALUES (%(id)s, %(microdao_id)s, %(scope_id)s, %(agent_id)s, %(title)s, %(source)s, %(media_type)s, %(content_hash)s,
    %(characters)s, %(chunks)s, %(metadata)s)
ON CONFLICT (id) DO UPDATE SET title = memory_document.title
"""

_SELECT: Final = """
SELECT d.id, s.kind AS scope_kind, s.name AS scope_name, d.agent_id, d.title, d.source, d.media_type, d.characters,
    d.chunks, d.metadata, d.created_at,
    count(i.id) FILTER (WHERE i.state = 'pending') AS pending, count(i.id) FILTER (WHERE i.state = 'failed') AS failed
FROM memory_document d JOIN memory_scope s USING (scope_id) LEFT JOIN memory_item i ON i.document_id = d.id
    AND (i.expires_at IS NULL OR i.expires_at > now())
"""
# The document first, then its items in the order in which the indexer locks, or the two could wait for each other.
_LOCK: Final = """
WITH held AS MATERIALIZED (
    SELECT id FROM memory_document
    WHERE id = %(id)s AND (%(scope_id)s::integer IS NULL OR scope_id = %(scope_id)s) FOR UPDATE)
SELECT i.id FROM held d JOIN memory_item i ON i.document_id = d.id ORDER BY i.id FOR UPDATE OF i
"""
_GROUP: Final = " GROUP BY d.id, s.kind, s.name"
_ALIVE: Final = " HAVING count(i.id) > 0"


async def insert_document(connection: Connection, document: Mapping[str, Any]) -> None:
    """Keep a document's row, unless it is there already."""
    await connection.execute(_INSERT, document)


async def read_document(connection: Connection, document_id: str) -> Row | None:
    """One document that has not expired."""
    return await fetch_one(connection, f"{_SELECT} WHERE d.id = %s{_GROUP}{_ALIVE}", (document_id,))


async def read_added(connection: Connection, document_id: str) -> Row | None:
    """One document, though it may have expired before it came."""
    return await fetch_one(connection, f"{_SELECT} WHERE d.id = %s{_GROUP}", (document_id,))


async def list_documents(connection: Connection, after: str, limit: int) -> list[Row]:
    """Documents that have not expired by id, after a cursor."""
    query = f"{_SELECT} WHERE d.id > %s{_GROUP}{_ALIVE} ORDER BY d.id LIMIT %s"
    return await fetch_all(connection, query, (after, limit))


async def delete_document(connection: Connection, document_id: str, scope_id: int | None = None) -> bool:
    """Forget a document (of one scope only); its items go with it. False when there was none that may be changed."""
    named = {"id": document_id, "scope_id": scope_id}
    await connection.execute(_LOCK, named)
    cursor = await connection.execute(
        "DELETE FROM memory_document WHERE id = %(id)s AND (%(scope_id)s::integer IS NULL OR scope_id = %(scope_id)s)",
        named,
    )
    return cursor.rowcount > 0
