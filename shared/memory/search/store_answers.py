"""The SQL that ends a search: the texts of what ranks first, their neighbours, and the counting of hits."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from shared.db.database import Connection, Row, fetch_all
from shared.memory.store import MAX_ANSWER_BYTES

_FOUND: Final = f"""
WITH measured AS (
    SELECT i.number, place, sum(octet_length(i.text)) OVER (ORDER BY place) - octet_length(i.text) AS bytes_before
    FROM unnest(%(numbers)s::bigint[]) WITH ORDINALITY AS f (number, place) JOIN memory_item i USING (number)),
found AS (SELECT number, place FROM measured WHERE bytes_before < {MAX_ANSWER_BYTES}),
counted AS (
    INSERT INTO memory_use AS u (scope_id, item, hits)
    SELECT i.scope_id, i.number, 1 FROM found JOIN memory_item i USING (number) ORDER BY i.number
    ON CONFLICT (item, scope_id) DO UPDATE SET hits = u.hits + 1, last_hit_at = now()),
asked AS (
    INSERT INTO memory_activity AS a (microdao_id, agent_id, queries, misses)
    VALUES (%(microdao_id)s, %(agent_id)s, 1, %(misses)s)
    ON CONFLICT (microdao_id, agent_id, day) DO UPDATE SET queries = a.queries + 1, misses = a.misses + %(misses)s)
SELECT i.id, i.number, i.tier, s.kind AS scope_kind, s.name AS scope_name, i.text, i.occurred_at, i.session_id,
    i.channel_id, i.document_id, i.position, i.source,
    CASE WHEN %(with_content)s THEN i.content ELSE '{{}}' END AS content
FROM found JOIN memory_item i USING (number) JOIN memory_scope s USING (scope_id) ORDER BY place
"""

_TURN_CHARACTERS: Final = 10_000

_TURNS: Final = f"""
SELECT c.number AS item, n.id, left(n.text, {_TURN_CHARACTERS}) AS text, n.occurred_at, n.step
FROM memory_item c CROSS JOIN LATERAL (
    (SELECT p.id, p.text, p.occurred_at, -1 AS step, p.number FROM memory_item p
    WHERE p.scope_id = c.scope_id AND p.thread = c.thread AND p.tier = c.tier
        AND (p.occurred_at, p.number) < (c.occurred_at, c.number) AND (p.expires_at IS NULL OR p.expires_at > now())
    ORDER BY p.occurred_at DESC, p.number DESC LIMIT %(turns)s)
    UNION ALL
    (SELECT p.id, p.text, p.occurred_at, 1 AS step, p.number FROM memory_item p
    WHERE p.scope_id = c.scope_id AND p.thread = c.thread AND p.tier = c.tier
        AND (p.occurred_at, p.number) > (c.occurred_at, c.number) AND (p.expires_at IS NULL OR p.expires_at > now())
    ORDER BY p.occurred_at, p.number LIMIT %(turns)s)) n
WHERE c.number = ANY(%(numbers)s) ORDER BY n.occurred_at, n.number
"""


async def read_texts(connection: Connection, numbers: Sequence[int], characters: int) -> dict[int, str]:
    """How each item begins, by its number."""
    rows = await fetch_all(
        connection,
        "SELECT number, left(text, %s) AS text FROM memory_item WHERE number = ANY(%s)",
        (characters, list(numbers)),
    )
    return {row["number"]: row["text"] for row in rows}


async def finish(connection: Connection, numbers: Sequence[int], asked: Mapping[str, Any]) -> list[Row]:
    """The items with these numbers, in this order, as far as an answer may go; ends the transaction, too.

    One round trip for all. Counts the query (``microdao_id``, ``agent_id``, ``misses`` 0 or 1) and a hit for each item.
    """
    async with connection.pipeline():
        cursor = await connection.execute(_FOUND, {"numbers": list(numbers), **asked})
        await connection.commit()
    return await cursor.fetchall()


async def read_turns(connection: Connection, numbers: Sequence[int], turns: int) -> list[Row]:
    """So many neighbours on both sides of each item: ``item``, ``step`` (-1 before, 1 after), in order of time."""
    return await fetch_all(connection, _TURNS, {"numbers": list(numbers), "turns": turns})
