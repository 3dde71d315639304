"""The SQL of analytics. Every list of scopes is the caller's; days are UTC's."""

from datetime import date, datetime
from typing import Any, Final

from shared.db.database import Connection, Row, fetch_all, fetch_one
from shared.memory.store import OF_AGENT

_ALL_SCOPES: Final = "SELECT scope_id FROM memory_scope WHERE microdao_id = current_microdao() ORDER BY scope_id"
_SCOPES: Final = f"SELECT scope_id FROM {OF_AGENT} s ORDER BY scope_id"

_ALIVE: Final = "i.scope_id = ANY(%(scopes)s::integer[]) AND (i.expires_at IS NULL OR i.expires_at > now())"

_GROWTH: Final = f"""
SELECT to_char(i.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD') AS day, i.tier, count(*) AS items,
    sum(i.bytes)::bigint AS bytes
FROM memory_item i WHERE {_ALIVE} AND i.created_at >= %(since)s AND i.created_at < %(until)s
GROUP BY 1, 2 ORDER BY 1, 2
"""

_ASKED: Final = """
SELECT to_char(day, 'YYYY-MM-DD') AS day, sum(queries)::bigint AS queries, sum(misses)::bigint AS misses,
    sum(queries - misses)::bigint AS hits
FROM memory_activity
WHERE microdao_id = current_microdao() AND (%(agent_id)s::text IS NULL OR agent_id = %(agent_id)s)
    AND day >= %(first)s AND day <= %(last)s
GROUP BY memory_activity.day ORDER BY 1
"""

# Of the newest only: all texts of a large memory would have to be read.
_DUPLICATES: Final = f"""
WITH newest AS (
    SELECT i.scope_id, md5(translate(lower(i.text), E' \\t\\r\\n', ''))::uuid AS digest
    FROM memory_item i WHERE {_ALIVE} ORDER BY i.created_at DESC, i.number DESC LIMIT %(most)s),
said AS (SELECT count(*) AS times FROM newest GROUP BY scope_id, digest)
SELECT coalesce(sum(times), 0)::integer AS looked_at, coalesce(sum(times - 1), 0)::integer AS duplicates FROM said
"""

_QUEUE: Final = f"""
SELECT count(*) FILTER (WHERE i.state = 'pending') AS pending, count(*) FILTER (WHERE i.state = 'failed') AS failed,
    extract(epoch FROM now() - min(i.created_at) FILTER (WHERE i.state = 'pending'))::float8 AS oldest_pending_s
FROM memory_item i WHERE {_ALIVE} AND i.state <> 'ready'
"""

_FAILURES: Final = f"""
SELECT coalesce(i.failure, '') AS reason, count(*) AS items FROM memory_item i
WHERE {_ALIVE} AND i.state = 'failed' GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 10
"""

# A row's header, keys and alignment beside the numbers of half precision.
_EMBEDDINGS: Final = """
SELECT m.model, m.state, m.dimensions, v.vectors, v.vectors * (2 * m.dimensions + 60) AS bytes
FROM memory_space m CROSS JOIN LATERAL (
    SELECT count(*) AS vectors FROM memory_embedding e
    WHERE e.space_id = m.space_id AND e.scope_id = ANY(%(scopes)s::integer[])) v
WHERE m.state <> 'retired' OR v.vectors > 0 ORDER BY m.space_id
"""

_STALE: Final = f"""
{_ALIVE} AND i.created_at < %(unused_since)s AND i.summary_id IS NULL
    AND (u.item IS NULL OR u.last_hit_at < %(unused_since)s)
"""

_COUNT_STALE: Final = f"""
SELECT count(*) AS n FROM memory_item i LEFT JOIN memory_use u ON u.item = i.number WHERE {_STALE}
"""

_USED_COLUMNS: Final = (
    "i.id, i.number, i.tier, s.kind AS scope_kind, s.name AS scope_name, left(i.text, 200) AS text, i.created_at,"
    " coalesce(u.hits, 0) AS hits, u.last_hit_at"
)

_MOST_USED: Final = f"""
SELECT {_USED_COLUMNS}
FROM memory_use u JOIN memory_item i ON i.number = u.item JOIN memory_scope s ON s.scope_id = i.scope_id
WHERE u.scope_id = ANY(%(scopes)s::integer[]) AND {_ALIVE} AND u.hits > 0
    AND (%(after_hits)s::bigint IS NULL OR (u.hits, u.item) < (%(after_hits)s, %(after)s))
ORDER BY u.hits DESC, u.item DESC LIMIT %(limit)s
"""

_LIST_STALE: Final = f"""
SELECT {_USED_COLUMNS}
FROM memory_item i JOIN memory_scope s ON s.scope_id = i.scope_id LEFT JOIN memory_use u ON u.item = i.number
WHERE {_STALE} AND (%(after)s::bigint IS NULL OR (i.created_at, i.number) > (%(after_moment)s, %(after)s))
ORDER BY i.created_at, i.number LIMIT %(limit)s
"""


async def read_scopes(connection: Connection, agent_id: str | None) -> list[int]:
    """An agent's own scope and its users', or all of the microDAO's."""
    query = _ALL_SCOPES if agent_id is None else _SCOPES
    return [row["scope_id"] for row in await fetch_all(connection, query, {"agent_id": agent_id})]


async def read_growth(connection: Connection, scopes: list[int], since: datetime, until: datetime) -> list[Row]:
    """What was stored by ``day`` and ``tier`` and is still there: ``items``, ``bytes``."""
    return await fetch_all(connection, _GROWTH, {"scopes": scopes, "since": since, "until": until})


async def read_queries(connection: Connection, agent_id: str | None, first: date, last: date) -> list[Row]:
    """``queries``, ``hits`` and ``misses`` by ``day``, of one agent or all."""
    return await fetch_all(connection, _ASKED, {"agent_id": agent_id, "first": first, "last": last})


async def read_duplicates(connection: Connection, scopes: list[int], most: int) -> Row:
    """Of the newest items (``looked_at``) how many say what another one of their scope says."""
    return await _one(connection, _DUPLICATES, {"scopes": scopes, "most": most})


async def read_queue(connection: Connection, scopes: list[int]) -> Row:
    """What is not found by meaning: ``pending``, since when, ``failed`` and why."""
    row = await _one(connection, _QUEUE, {"scopes": scopes})
    return {**row, "failures": await fetch_all(connection, _FAILURES, {"scopes": scopes})}


async def read_embeddings(connection: Connection, scopes: list[int]) -> list[Row]:
    """``vectors`` by model, and about how many ``bytes`` their rows take, without indexes."""
    return await fetch_all(connection, _EMBEDDINGS, {"scopes": scopes})


async def count_stale(connection: Connection, scopes: list[int], unused_since: datetime) -> int:
    """How many items are older than this and were not used since."""
    row = await _one(connection, _COUNT_STALE, {"scopes": scopes, "unused_since": unused_since})
    return int(row["n"])


async def list_most_used(
    connection: Connection, scopes: list[int], after: tuple[int, int] | None, limit: int
) -> list[Row]:
    """Items by how often they answered, after a cursor (hits and number)."""
    hits, number = after or (None, None)
    parameters = {"scopes": scopes, "after_hits": hits, "after": number, "limit": limit}
    return await fetch_all(connection, _MOST_USED, parameters)


async def list_stale(
    connection: Connection, scopes: list[int], unused_since: datetime, after: tuple[datetime, int] | None, limit: int
) -> list[Row]:
    """The items that :func:`count_stale` counts, oldest first, after a cursor (created_at and number)."""
    moment, number = after or (None, None)
    parameters = {"scopes": scopes, "unused_since": unused_since, "after_moment": moment, "after": number}
    return await fetch_all(connection, _LIST_STALE, {**parameters, "limit": limit})


async def _one(connection: Connection, query: str, parameters: dict[str, Any]) -> Row:
    return await fetch_one(connection, query, parameters) or {}
