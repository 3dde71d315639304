"""The SQL of consolidation: which exchanges may be summarised, and a summary in their place."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from shared.db.database import Connection, Row, fetch_all

# No summaries (what was recalled never becomes memory again), nothing pinned, and nothing with an expiry of its own,
# which a summary must not outlive. What is not indexed yet is left for later.
_FREE: Final = """i.tier = 'mid_term' AND i.summary_id IS NULL AND i.document_id IS NULL AND i.state = 'ready'
    AND i.importance < 1 AND i.expires_at IS NULL AND (i.content -> 'context' ->> 'kind') IS DISTINCT FROM 'summary'"""

_THREADS: Final = f"""
SELECT i.scope_id, i.thread, array_agg(i.id ORDER BY i.occurred_at, i.number) AS ids
FROM unnest(%(scopes)s::integer[], %(befores)s::timestamptz[], %(least)s::integer[]) AS r (scope_id, before, least)
JOIN memory_item i USING (scope_id)
WHERE i.thread IS NOT NULL AND {_FREE} AND greatest(i.created_at, i.freed_at) < r.before AND i.id <> ALL(%(seen)s)
GROUP BY i.scope_id, i.thread HAVING count(*) >= max(r.least)
ORDER BY min(i.occurred_at), i.scope_id, i.thread LIMIT %(limit)s
"""

_SOURCES: Final = f"""
SELECT i.id, i.agent_id, i.text, i.content_hash, i.session_id, i.channel_id,
    i.importance, i.occurred_at, i.bytes
FROM memory_item i WHERE i.id = ANY(%s) AND {_FREE} ORDER BY i.occurred_at, i.number
"""

_LOCK: Final = f"""
SELECT i.id, i.content_hash FROM memory_item i WHERE i.id = ANY(%s) AND {_FREE} ORDER BY i.id FOR UPDATE
"""

# The summary is as old as the newest of its sources, and was found as often as all of them.
_STAND_FOR: Final = """
WITH source AS (
    UPDATE memory_item SET summary_id = %(summary_id)s, words = NULL, lexicon = NULL, freed_at = NULL
    WHERE id = ANY(%(ids)s) RETURNING number, created_at),
posting AS (DELETE FROM memory_posting WHERE item IN (SELECT number FROM source)),
embedding AS (DELETE FROM memory_embedding WHERE item IN (SELECT number FROM source)),
summary AS (
    UPDATE memory_item SET created_at = (SELECT max(created_at) FROM source)
    WHERE id = %(summary_id)s RETURNING scope_id, number)
INSERT INTO memory_use (scope_id, item, hits, last_hit_at)
SELECT s.scope_id, s.number, u.hits, u.last_hit_at FROM summary s, (
    SELECT sum(hits)::integer AS hits, max(last_hit_at) AS last_hit_at FROM memory_use
    WHERE item IN (SELECT number FROM source)) u WHERE u.hits > 0
"""


async def find_threads(
    connection: Connection,
    rules: Sequence[tuple[int, datetime, int]],
    seen: Sequence[str],
    limit: int,
) -> list[Row]:
    """Threads with ``ids`` that may be summarised, in order of time. A rule: scope, stored before when, at least how
    many. The oldest threads first."""
    columns = {"scopes": [r[0] for r in rules], "befores": [r[1] for r in rules], "least": [r[2] for r in rules]}
    return await fetch_all(connection, _THREADS, {**columns, "seen": list(seen), "limit": limit})


async def read_sources(connection: Connection, ids: Sequence[str]) -> list[Row]:
    """What a summary is made of, in order of time; without what may not be summarised any more."""
    return await fetch_all(connection, _SOURCES, (list(ids),))


async def lock_sources(connection: Connection, sources: Sequence[Row]) -> set[str]:
    """Hold what was read until the transaction ends; what may still be summarised and says what it said."""
    said = {source["id"]: source["content_hash"] for source in sources}
    locked = await fetch_all(connection, _LOCK, (list(said),))
    return {row["id"] for row in locked if row["content_hash"] == said[row["id"]]}


async def stand_for(connection: Connection, summary_id: str, ids: Sequence[str]) -> None:
    """Let a summary be found in place of its sources, which lose their postings and embeddings."""
    await connection.execute(_STAND_FOR, {"summary_id": summary_id, "ids": list(ids)})
