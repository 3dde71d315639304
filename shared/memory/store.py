"""The SQL of memory items. Every function runs in the caller's transaction, which says whose items it may see."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from shared.db.database import Connection, Row, fetch_all, fetch_one

ITEM_COLUMNS: Final = (
    "i.id, i.number, i.tier, s.kind AS scope_kind, s.name AS scope_name, i.agent_id, i.content, i.text, i.occurred_at,"
    " i.session_id, i.channel_id, i.document_id, i.position, i.source, i.author, i.importance, i.state, i.failure,"
    " i.expires_at, i.created_at"
)

_INSERT: Final = """
WITH scope AS (
    SELECT scope_id FROM memory_scope
    WHERE microdao_id = %(microdao_id)s AND kind = %(scope_kind)s AND name = %(scope_name)s),
item AS (
    INSERT INTO memory_item (id, microdao_id, scope_id, agent_id, tier, content, text, content_hash, source, author,
        channel_id, session_id, document_id, position, importance, occurred_at, expires_at, words, lexicon)
    SELECT %(id)s, %(microdao_id)s, scope_id, %(agent_id)s, %(tier)s, %(content)s::jsonb, %(text)s, %(content_hash)s,
        %(source)s, %(author)s, %(channel_id)s, %(session_id)s, %(document_id)s, %(position)s, %(importance)s,
        coalesce(%(occurred_at)s, now()), %(expires_at)s, %(words)s, %(lexicon)s
    FROM scope
    ON CONFLICT (id) DO UPDATE SET expires_at = EXCLUDED.expires_at, failure = NULL, queued_at = now(),
        state = CASE memory_item.state WHEN 'failed' THEN 'pending' ELSE memory_item.state END
    RETURNING number, scope_id, state, xmax = 0 AS is_new),
posting AS (
    INSERT INTO memory_posting (scope_id, term, item, frequency, words)
    SELECT i.scope_id, t.term, i.number, t.frequency, %(words)s
    FROM item i, unnest(%(terms)s::text[], %(frequencies)s::smallint[]) AS t (term, frequency) WHERE i.is_new),
job AS (
    INSERT INTO outbox (id, microdao_id, queue, body)
    SELECT %(job_id)s, %(microdao_id)s, 'memory', %(job_body)s::jsonb FROM item
    WHERE state = 'pending' AND %(job_id)s::text IS NOT NULL)
SELECT scope_id, state FROM item
"""

_RECENT: Final = f"""
SELECT {ITEM_COLUMNS} FROM memory_item i JOIN memory_scope s USING (scope_id)
WHERE i.scope_id = ANY (SELECT scope_id FROM memory_scope WHERE microdao_id = %(microdao_id)s)
  AND (%(tiers)s::text[] = '{{}}' OR i.tier = ANY(%(tiers)s))
  AND (%(channel_id)s::text IS NULL OR i.channel_id = %(channel_id)s)
  AND (%(session_id)s::text IS NULL OR i.session_id = %(session_id)s)
  AND (%(agent_id)s::text IS NULL OR i.agent_id = %(agent_id)s)
  AND (%(source)s::text IS NULL OR i.source = %(source)s)
  AND (%(until)s::timestamptz IS NULL OR i.occurred_at < %(until)s)
  AND (%(since)s::timestamptz IS NULL OR i.occurred_at >= %(since)s)
  AND (i.expires_at IS NULL OR i.expires_at > now())
  AND (%(before)s::bigint IS NULL OR (i.occurred_at, i.number) < (%(before_moment)s, %(before)s))
ORDER BY i.occurred_at DESC, i.number DESC LIMIT %(limit)s
"""

_STATS: Final = """
SELECT count(i.id) FILTER (WHERE i.tier = 'short_term') AS short_term,
    count(i.id) FILTER (WHERE i.tier = 'mid_term') AS mid_term,
    count(i.id) FILTER (WHERE i.tier = 'long_term') AS long_term,
    count(i.id) FILTER (WHERE i.state = 'pending') AS pending,
    count(i.id) FILTER (WHERE i.state = 'failed') AS failed,
    coalesce(sum(octet_length(i.content::text)), 0)::bigint AS bytes,
    coalesce((SELECT sum(queries) FROM memory_activity q
        WHERE q.microdao_id = a.microdao_id AND q.agent_id = a.agent_id), 0)::bigint AS queries,
    max(i.indexed_at) AS last_indexed_at
FROM agent a
JOIN memory_scope s ON s.microdao_id = a.microdao_id AND s.kind = 'agent' AND s.name = a.agent_id
LEFT JOIN memory_item i ON i.scope_id = s.scope_id AND (i.expires_at IS NULL OR i.expires_at > now())
WHERE a.microdao_id = %s AND a.agent_id = %s GROUP BY a.microdao_id, a.agent_id
"""


async def insert_item(connection: Connection, item: Mapping[str, Any]) -> Row | None:
    """Keep an item with its postings and its job, or find it kept already (then its expiry is renewed).

    Its ``scope_id`` and ``state``; None when there is no such scope.
    """
    return await fetch_one(connection, _INSERT, item)


async def insert_items(connection: Connection, items: Sequence[Mapping[str, Any]]) -> None:
    """Keep many items in few round trips."""
    async with connection.cursor() as cursor:
        await cursor.executemany(_INSERT, items)


async def read_item(connection: Connection, item_id: str) -> Row | None:
    """One item."""
    return await fetch_one(
        connection,
        f"SELECT {ITEM_COLUMNS} FROM memory_item i JOIN memory_scope s USING (scope_id)"
        " WHERE i.id = %s AND (i.expires_at IS NULL OR i.expires_at > now())",
        (item_id,),
    )


async def delete_items(connection: Connection, item_ids: Sequence[str]) -> list[str]:
    """Forget items with their postings and embeddings; the ids of those that were there."""
    rows = await fetch_all(connection, "DELETE FROM memory_item WHERE id = ANY(%s) RETURNING id", (list(item_ids),))
    return [row["id"] for row in rows]


async def list_items(
    connection: Connection, conditions: Mapping[str, Any], before: tuple[datetime, int] | None, limit: int
) -> list[Row]:
    """Items that fit the conditions, newest first, from before a cursor on."""
    moment, number = before or (None, None)
    return await fetch_all(
        connection, _RECENT, {**conditions, "before_moment": moment, "before": number, "limit": limit}
    )


async def read_stats(connection: Connection, microdao_id: str, agent_id: str) -> Row | None:
    """An agent's own memory in figures; None when there is no such agent."""
    return await fetch_one(connection, _STATS, (microdao_id, agent_id))


async def delete_expired(connection: Connection, limit: int) -> int:
    """Reclaim the space of what nobody can find any more; the number of items (system role)."""
    cursor = await connection.execute(
        "DELETE FROM memory_item WHERE id IN (SELECT id FROM memory_item WHERE expires_at < now()"
        " ORDER BY id LIMIT %s FOR UPDATE SKIP LOCKED)",
        (limit,),
    )
    return cursor.rowcount
