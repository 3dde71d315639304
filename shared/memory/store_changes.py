"""The SQL of changing one memory in place. Every function runs in the transaction of who changes it."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from shared.db.database import Connection, Row, fetch_one
from shared.memory.store import ITEM_COLUMNS, hold_items

_HELD: Final = """
SELECT i.id, i.number, i.microdao_id, i.content_hash, i.occurred_at, i.document_id,
    i.source = 'summary' AND i.content -> 'context' ->> 'kind' = 'summary'
        OR EXISTS (SELECT 1 FROM memory_item o WHERE o.summary_id = i.id) AS is_summary
FROM memory_item i WHERE i.id = %(id)s AND (%(scope_id)s::integer IS NULL OR i.scope_id = %(scope_id)s)
    AND (i.expires_at IS NULL OR i.expires_at > now())
"""

# A source that the platform gave (a channel's, a session's) is no part of the content and stays.
_REPLACE: Final = """
UPDATE memory_item SET content = %(content)s::jsonb, content_hash = %(content_hash)s, text = %(text)s,
    author = %(author)s, state = 'pending', failure = NULL, queued_at = now(),
    source = CASE WHEN source IS NOT DISTINCT FROM content ->> 'source' THEN %(source)s ELSE source END
WHERE id = %(id)s
"""

# A summary quotes what it stands for, so it expires no later.
_ADJUST: Final = """
WITH item AS (
    UPDATE memory_item i SET importance = coalesce(%(importance)s, importance),
        expires_at = CASE WHEN %(sets_expiry)s THEN least(%(expires_at)s::timestamptz, (
            SELECT min(o.expires_at) FROM memory_item o WHERE o.summary_id = i.id)) ELSE expires_at END
    WHERE id = %(id)s RETURNING summary_id),
summary AS (
    UPDATE memory_item s SET expires_at = least(s.expires_at, %(expires_at)s::timestamptz) FROM item i
    WHERE s.id = i.summary_id AND %(sets_expiry)s AND %(expires_at)s::timestamptz IS NOT NULL)
SELECT 1 FROM item
"""

_FIND_ID: Final = """
SELECT c.id FROM unnest(%s::text[]) WITH ORDINALITY AS c (id, place) LEFT JOIN memory_item i USING (id)
WHERE i.id IS NULL OR i.content_hash = %s ORDER BY i.id IS NULL, c.place LIMIT 1
"""


async def hold_item(connection: Connection, item_id: str, scope_id: int | None) -> Row | None:
    """An item (of one scope only) for this transaction alone, unless it has expired or may not be changed: what a
    change needs to know of it, and whether it ``is_summary``."""
    if item_id not in await hold_items(connection, [item_id]):
        return None
    return await fetch_one(connection, _HELD, {"id": item_id, "scope_id": scope_id})


async def replace_content(connection: Connection, item_id: str, columns: Mapping[str, Any]) -> None:
    """Give an item another content; it waits for the indexer. What was made of the old one goes, but its postings."""
    await connection.execute(_REPLACE, {**columns, "id": item_id})


async def adjust(connection: Connection, item_id: str, changes: Mapping[str, Any]) -> bool:
    """Set ``importance`` unless it is None, and ``expires_at`` if ``sets_expiry``; False when there is nothing that
    may be changed."""
    return await fetch_one(connection, _ADJUST, {**changes, "id": item_id}) is not None


async def read_changed(connection: Connection, item_id: str) -> Row | None:
    """One item, though it may have expired just now."""
    query = f"SELECT {ITEM_COLUMNS} FROM memory_item i JOIN memory_scope s USING (scope_id) WHERE i.id = %s"
    return await fetch_one(connection, query, (item_id,))


async def find_id(connection: Connection, item_ids: Sequence[str], content_hash: bytes) -> str | None:
    """Which of these ids an item has that says this; else the first that none has; None when all say something else."""
    row = await fetch_one(connection, _FIND_ID, (list(item_ids), content_hash))
    return str(row["id"]) if row else None
