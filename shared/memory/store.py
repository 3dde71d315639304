"""The SQL of memory. Every function runs in the caller's transaction."""

from collections.abc import Mapping, Sequence
from typing import Any

from shared.db.database import Connection, Row, fetch_all, fetch_one
from shared.memory.embedding import Vector
from shared.memory.model import MemoryQuery

_INSERT = """
INSERT INTO memory_item (id, microdao_id, agent_id, tier, content, text, content_hash, source, channel_id, session_id,
    importance, occurred_at, expires_at)
VALUES (%(id)s, %(microdao_id)s, %(agent_id)s, %(tier)s, %(content)s::jsonb, %(text)s, %(content_hash)s, %(source)s,
    %(channel_id)s, %(session_id)s, %(importance)s, coalesce(%(occurred_at)s, now()), %(expires_at)s)
ON CONFLICT (id) DO UPDATE SET expires_at = EXCLUDED.expires_at, failure = NULL,
    state = CASE memory_item.state WHEN 'failed' THEN 'pending' ELSE memory_item.state END
RETURNING state
"""

# The tenant's own rows are scanned in full: exact, where an index shared by all tenants would silently lose rows.
# "+ 0" keeps the planner from any approximate index.
_NEAREST = """
WITH nearest AS MATERIALIZED (
    SELECT e.item_id, (e.embedding <=> %(vector)s::halfvec) + 0 AS distance
    FROM memory_embedding_minilm_l6_v2 e JOIN memory_item i ON i.id = e.item_id
    WHERE e.microdao_id = %(microdao_id)s AND e.agent_id = %(agent_id)s
      AND (i.expires_at IS NULL OR i.expires_at > now())
      AND (%(tiers)s::text[] = '{}' OR i.tier = ANY(%(tiers)s))
      AND (%(channel_id)s::text IS NULL OR i.channel_id = %(channel_id)s)
      AND (%(session_id)s::text IS NULL OR i.session_id = %(session_id)s)
      AND (%(source)s::text IS NULL OR i.source = %(source)s)
      AND (%(since)s::timestamptz IS NULL OR i.occurred_at >= %(since)s)
      AND (%(until)s::timestamptz IS NULL OR i.occurred_at < %(until)s)
    ORDER BY 2, 1 LIMIT %(k)s)
SELECT i.id, i.tier, CASE WHEN %(with_content)s THEN i.content ELSE '{}' END AS content,
    i.text, i.occurred_at, i.session_id, i.source, 1 - n.distance AS cosine
FROM nearest n JOIN memory_item i ON i.id = n.item_id ORDER BY n.distance, i.id
"""

# Rows are locked in one order, or two queries that found the same items could wait for each other.
_COUNT_USE = """
WITH found AS (SELECT id FROM memory_item WHERE id = ANY(%(ids)s) ORDER BY id FOR NO KEY UPDATE),
    counted AS (UPDATE memory_item i SET hits = i.hits + 1 FROM found WHERE i.id = found.id)
INSERT INTO memory_activity (microdao_id, agent_id, queries) VALUES (%(microdao_id)s, %(agent_id)s, 1)
ON CONFLICT (microdao_id, agent_id) DO UPDATE SET queries = memory_activity.queries + 1
"""

_INSERT_EMBEDDINGS = """
INSERT INTO memory_embedding_minilm_l6_v2 (microdao_id, agent_id, item_id, embedding)
SELECT i.microdao_id, i.agent_id, i.id, v.embedding::halfvec
FROM unnest(%s::text[], %s::text[]) AS v (item_id, embedding) JOIN memory_item i ON i.id = v.item_id
ORDER BY i.id ON CONFLICT DO NOTHING
"""

_STATS = """
SELECT count(i.id) FILTER (WHERE i.tier = 'short_term') AS short_term,
    count(i.id) FILTER (WHERE i.tier = 'mid_term') AS mid_term,
    count(i.id) FILTER (WHERE i.tier = 'long_term') AS long_term,
    count(i.id) FILTER (WHERE i.state = 'pending') AS pending,
    count(i.id) FILTER (WHERE i.state = 'failed') AS failed,
    coalesce(sum(octet_length(i.content::text)), 0)::bigint AS bytes,
    coalesce(min(m.queries), 0) AS queries,
    max(i.indexed_at) AS last_indexed_at
FROM agent a LEFT JOIN memory_activity m USING (microdao_id, agent_id)
LEFT JOIN memory_item i ON i.microdao_id = a.microdao_id AND i.agent_id = a.agent_id
    AND (i.expires_at IS NULL OR i.expires_at > now())
WHERE a.microdao_id = %s AND a.agent_id = %s GROUP BY a.agent_id
"""

_UNQUEUED = """
SELECT i.id, i.microdao_id FROM memory_item i WHERE i.state = 'pending'
    AND NOT EXISTS (SELECT 1 FROM outbox o WHERE o.queue = 'memory' AND o.body->>'item_id' = i.id)
ORDER BY i.created_at LIMIT %s FOR UPDATE SKIP LOCKED
"""

_RECLAIM = """
DELETE FROM memory_item WHERE id IN (
    SELECT id FROM memory_item WHERE expires_at < now() ORDER BY id LIMIT %s FOR UPDATE SKIP LOCKED)
"""


async def insert_item(connection: Connection, item: Mapping[str, Any]) -> str:
    """Keep an item, or find it kept already (then its expiry is renewed); its state."""
    row = await fetch_one(connection, _INSERT, item)
    return str(row["state"]) if row else "pending"


async def find_nearest(connection: Connection, query: MemoryQuery, vector: Vector) -> list[Row]:
    """The items nearest in meaning, nearest first, each with its ``cosine``."""
    return await fetch_all(
        connection,
        _NEAREST,
        {
            "vector": _literal(vector),
            "microdao_id": query.microdao_id,
            "agent_id": query.agent_id,
            "tiers": list(query.tiers),
            "channel_id": query.channel_id,
            "session_id": query.session_id,
            "source": query.source,
            "since": query.since,
            "until": query.until,
            "k": query.k,
            "with_content": query.with_content,
        },
    )


async def count_use(connection: Connection, query: MemoryQuery, found: Sequence[str]) -> None:
    """Count the query, and a hit for each item it found."""
    await connection.execute(
        _COUNT_USE, {"ids": list(found), "microdao_id": query.microdao_id, "agent_id": query.agent_id}
    )


async def read_unembedded(connection: Connection, item_ids: Sequence[str]) -> list[Row]:
    """Those of the items that exist and have no embedding yet."""
    return await fetch_all(
        connection,
        "SELECT id, text FROM memory_item WHERE id = ANY(%s) AND state <> 'ready' ORDER BY id",
        (list(item_ids),),
    )


async def insert_embeddings(connection: Connection, vectors: Mapping[str, Vector]) -> None:
    """Keep each item's vector and make the item findable; items gone meanwhile are left out."""
    literals = [_literal(vector) for vector in vectors.values()]
    await connection.execute(_INSERT_EMBEDDINGS, (list(vectors), literals))
    await connection.execute(
        "UPDATE memory_item SET state = 'ready', failure = NULL, indexed_at = now()"
        " WHERE id = ANY(%s) AND state <> 'ready'",
        (list(vectors),),
    )


async def mark_failed(connection: Connection, failures: Mapping[str, str]) -> None:
    """Write down why each item could not be embedded."""
    await connection.execute(
        "UPDATE memory_item i SET state = 'failed', failure = f.failure"
        " FROM unnest(%s::text[], %s::text[]) AS f (item_id, failure) WHERE i.id = f.item_id AND i.state <> 'ready'",
        (list(failures), list(failures.values())),
    )


async def read_stats(connection: Connection, microdao_id: str, agent_id: str) -> Row | None:
    """An agent's figures; None when there is no such agent."""
    return await fetch_one(connection, _STATS, (microdao_id, agent_id))


async def read_unqueued(connection: Connection, limit: int) -> list[Row]:
    """Items that wait for their embedding although no job stands for them (system role)."""
    return await fetch_all(connection, _UNQUEUED, (limit,))


async def delete_expired(connection: Connection, limit: int) -> int:
    """Reclaim the space of what nobody can find any more, embeddings included; the number of items (system role)."""
    return (await connection.execute(_RECLAIM, (limit,))).rowcount


def _literal(vector: Vector) -> str:
    """pgvector's text form; half precision keeps fewer digits than these."""
    return f"[{','.join(format(value, '.6g') for value in vector)}]"
