"""The SQL of pruning: which units may go, what they are worth, and their end. A unit is an item or a document.

A unit's value is 0.5 × importance + 0.3 × use + 0.2 × recency, where use is 1 - e^(-hits / 3), halved for every 30 days
since the last hit, and recency is 1, halved for every 30 days since it was stored. What a summary stands for is worth 1
less: it goes before all that is still found itself.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from shared.db.database import Connection, Row, fetch_all

_ALIVE: Final = "(i.expires_at IS NULL OR i.expires_at > now())"

# By way of numeric, 0.7 as a real is 0.7 and not a little less. Half-lives that are long past would underflow.
_HALVED: Final = "power(0.5::float8, least(greatest(extract(epoch FROM now() - {since}) / 86400 / 30, 0), 500))::float8"

_UNITS: Final = f"""
SELECT *, 0.5 * importance + 0.2 * {_HALVED.format(since="created_at")}
    + CASE WHEN hits = 0 THEN 0
        ELSE 0.3 * (1 - exp(-least(hits, 1000) / 3.0::float8)) * {_HALVED.format(since="last_hit_at")} END
    - CASE WHEN is_summarised THEN 1 ELSE 0 END AS value
FROM (
    SELECT coalesce(i.document_id, i.id) AS id, i.document_id IS NOT NULL AS is_document, i.scope_id,
        min(i.tier) AS tier, count(*)::integer AS items, sum(i.bytes)::bigint AS bytes,
        max(i.importance)::numeric::float8 AS importance, coalesce(sum(u.hits), 0)::bigint AS hits,
        max(u.last_hit_at) AS last_hit_at, min(i.created_at) AS created_at,
        bool_and(i.summary_id IS NOT NULL) AS is_summarised
    FROM memory_item i LEFT JOIN memory_use u ON u.item = i.number
    WHERE {_ALIVE} AND {{where}}
    GROUP BY coalesce(i.document_id, i.id), i.document_id IS NOT NULL, i.scope_id) unit
"""

_READ: Final = _UNITS.format(where="(i.id = ANY(%(ids)s) OR i.document_id = ANY(%(ids)s))")

_IN_SCOPES: Final = "i.scope_id = ANY(%(scopes)s) AND coalesce(i.document_id, i.id) <> ALL(%(seen)s)"

_LOWEST: Final = f"""
SELECT id FROM ({_UNITS.format(where=_IN_SCOPES)}) u
WHERE importance < 1 ORDER BY value, id LIMIT %(limit)s
"""

_OUTDATED: Final = f"""
WITH rule AS (
    SELECT * FROM unnest(%(scopes)s::integer[], %(short_term)s::timestamptz[], %(mid_term)s::timestamptz[],
        %(long_term)s::timestamptz[], %(unused)s::timestamptz[], %(below)s::real[])
        AS r (scope_id, short_term, mid_term, long_term, unused, below))
SELECT id FROM (
    SELECT i.id, i.created_at FROM rule r JOIN memory_item i USING (scope_id)
    WHERE i.document_id IS NULL AND i.importance < 1 AND {_ALIVE}
      AND (i.created_at < CASE i.tier WHEN 'short_term' THEN r.short_term WHEN 'mid_term' THEN r.mid_term
            ELSE r.long_term END
        OR i.created_at < r.unused AND i.importance < r.below
            AND NOT EXISTS (SELECT 1 FROM memory_use u WHERE u.item = i.number))
    UNION ALL
    SELECT d.id, d.created_at FROM rule r JOIN memory_document d USING (scope_id)
    WHERE (d.created_at < r.long_term OR d.created_at < r.unused)
      AND EXISTS (SELECT 1 FROM memory_item i WHERE i.document_id = d.id AND {_ALIVE})
      AND NOT EXISTS (SELECT 1 FROM memory_item i WHERE i.document_id = d.id AND i.importance >= 1)
      AND (d.created_at < r.long_term OR NOT EXISTS (
        SELECT 1 FROM memory_item i LEFT JOIN memory_use u ON u.item = i.number
        WHERE i.document_id = d.id AND (i.importance >= r.below OR u.item IS NOT NULL)))) unit
WHERE id <> ALL(%(seen)s) ORDER BY created_at, id LIMIT %(limit)s
"""

_LOCK: Final = """
SELECT id FROM (SELECT id FROM memory_item WHERE id = ANY(%(ids)s) ORDER BY id FOR UPDATE SKIP LOCKED) i
UNION ALL
SELECT id FROM (SELECT id FROM memory_document WHERE id = ANY(%(ids)s) ORDER BY id FOR UPDATE SKIP LOCKED) d
"""

# A document is worth what its chunks are, and one of them may be pinned meanwhile.
_LOCK_CHUNKS: Final = "SELECT id FROM memory_item WHERE document_id = ANY(%s) ORDER BY id FOR UPDATE"

_USAGE: Final = """
SELECT scope_id, count(*) AS items, coalesce(sum(bytes), 0)::bigint AS bytes FROM memory_item
WHERE scope_id = ANY(%s) AND (expires_at IS NULL OR expires_at > now()) GROUP BY scope_id ORDER BY scope_id
"""


async def find_outdated(
    connection: Connection, rules: Mapping[str, Sequence[Any]], seen: Sequence[str], limit: int
) -> list[str]:
    """Units of the rules' scopes that are too old, or old, unused and of little importance; the oldest first.

    ``rules`` has columns of equal length: ``scopes``, the moments before which ``short_term``, ``mid_term``,
    ``long_term`` items and those ``unused`` go, and the importance ``below`` which the last does.
    """
    rows = await fetch_all(connection, _OUTDATED, {**rules, "seen": list(seen), "limit": limit})
    return [row["id"] for row in rows]


async def find_lowest(connection: Connection, scopes: Sequence[int], seen: Sequence[str], limit: int) -> list[str]:
    """The units of the scopes that are worth least."""
    rows = await fetch_all(connection, _LOWEST, {"scopes": list(scopes), "seen": list(seen), "limit": limit})
    return [row["id"] for row in rows]


async def lock_units(connection: Connection, ids: Sequence[str]) -> list[str]:
    """Hold units until the transaction ends; those that nobody else holds."""
    held = [row["id"] for row in await fetch_all(connection, _LOCK, {"ids": list(ids)})]
    await connection.execute(_LOCK_CHUNKS, (held,))
    return held


async def read_units(connection: Connection, ids: Sequence[str]) -> list[Row]:
    """Units with what decides about them, in no order; those that are still there."""
    return await fetch_all(connection, _READ, {"ids": list(ids)})


async def read_usage(connection: Connection, scopes: Sequence[int]) -> list[Row]:
    """``items`` and ``bytes`` of each scope that has any, without what has expired."""
    return await fetch_all(connection, _USAGE, (list(scopes),))


async def delete_units(connection: Connection, item_ids: Sequence[str], document_ids: Sequence[str]) -> None:
    """Remove units; the summaries that stand for some of them stay."""
    await connection.execute("SELECT set_config('daarion.keeps_summaries', 'on', true)")
    await connection.execute("DELETE FROM memory_item WHERE id = ANY(%s)", (list(item_ids),))
    await connection.execute("DELETE FROM memory_document WHERE id = ANY(%s)", (list(document_ids),))
    await connection.execute("SELECT set_config('daarion.keeps_summaries', '', true)")
