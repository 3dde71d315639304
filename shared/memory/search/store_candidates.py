"""The SQL of candidates: one statement finds those of both arms with every signal that ranks them.

The vector arm is exact inside small scopes (a filter over an index that tenants share would silently lose rows) and
goes through the scope's own approximate index in large ones. The lexical arm is BM25 (k1 0.8, b 0.4; Robertson &
Zaragoza 2009) over the postings of any of the query's terms. Both arms' best are joined, and each candidate comes with
what its neighbours in the conversation or document have of both.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from psycopg.types.numeric import Int4

from shared.db.database import Connection
from shared.memory.embedding.port import Vector
from shared.memory.indexing.store_index import literal
from shared.memory.model import Filters
from shared.memory.store import MATCHING, filter_parameters

# Hashed: going through an array for each vector and posting takes seconds where thousands have just expired.
_EXPIRED: Final = "{item} NOT IN (SELECT number FROM expired)"

_MATCHING: Final = "EXISTS (SELECT 1 FROM memory_item i WHERE i.number = {item} AND " + MATCHING + ")"

# "+ 0" keeps the planner from any approximate index.
_EXACT: Final = """
    (SELECT e.item, (e.embedding <=> %(vector)s::halfvec) + 0 AS distance FROM memory_embedding e
    WHERE e.space_id = {space} AND e.scope_id = ANY(%(exact_scopes)s::integer[]) AND {matching}
    ORDER BY 2, 1 LIMIT {parts})"""

# The index's order is only nearly right, so that its rows are sorted again.
_APPROXIMATE: Final = """
    (SELECT e.item, (e.embedding <=> %(vector)s::halfvec) + 0 AS distance FROM memory_embedding e
    WHERE e.space_id = {space} AND e.scope_id = {scope} AND {matching}
    ORDER BY e.embedding::halfvec({dimensions}) <=> %(vector)s::halfvec({dimensions}) LIMIT {parts})"""

# Everything in double precision: numerics would take twenty times as long. Terms are looked up one by one, whatever
# the planner thinks of them (OFFSET 0).
_SEARCH: Final = """
WITH expired AS MATERIALIZED (
    SELECT number FROM memory_item WHERE scope_id = ANY(%(scopes)s::integer[]) AND expires_at <= now()),
hits AS MATERIALIZED (
    SELECT a.place, p.item, p.frequency, p.words
    FROM unnest(%(terms)s::text[]) WITH ORDINALITY AS a (term, place) CROSS JOIN LATERAL (
        SELECT p.item, p.frequency, p.words FROM memory_posting p
        WHERE p.scope_id = ANY(%(scopes)s::integer[]) AND p.term = a.term AND {matching_posting} OFFSET 0) p),
weight AS MATERIALIZED (
    SELECT place, ln(1 + (greatest(%(items)s::float8, found) - found + 0.5) / (found + 0.5)) AS idf
    FROM (
        SELECT place, count(h.item)::float8 AS found
        FROM generate_series(1, cardinality(%(terms)s::text[])::bigint) AS place LEFT JOIN hits h USING (place)
        GROUP BY place) t),
lexical AS MATERIALIZED (
    SELECT h.item, bit_or(CASE WHEN h.place < 64 THEN 1::bigint << (h.place - 1)::integer ELSE 0 END) AS held,
        sum(w.idf * h.frequency * 1.8 / (h.words * (0.32 / %(mean_words)s::float8) + 0.48 + h.frequency)) AS bm25
    FROM hits h JOIN weight w USING (place) GROUP BY h.item),
best AS MATERIALIZED (SELECT item FROM lexical ORDER BY bm25 DESC, item LIMIT {depth}),
near AS MATERIALIZED ({near}),
candidate AS MATERIALIZED (
    SELECT i.* FROM (SELECT item FROM near UNION SELECT item FROM best) o CROSS JOIN LATERAL (
        SELECT i.number, i.scope_id, i.thread, i.tier, i.occurred_at, i.author, i.importance, i.words, i.asks
        FROM memory_item i WHERE i.number = o.item OFFSET 0) i),
neighbour AS MATERIALIZED (
    SELECT c.number AS item, c.scope_id, n.number, n.step, n.asks FROM candidate c CROSS JOIN LATERAL (
        (SELECT p.number, p.asks, -row_number() OVER (ORDER BY p.occurred_at DESC, p.number DESC) AS step
        FROM memory_item p WHERE p.scope_id = c.scope_id AND p.thread = c.thread AND p.tier = c.tier
            AND (p.occurred_at, p.number) < (c.occurred_at, c.number) AND (p.expires_at IS NULL OR p.expires_at > now())
        ORDER BY p.occurred_at DESC, p.number DESC LIMIT {reach})
        UNION ALL
        (SELECT p.number, p.asks, row_number() OVER (ORDER BY p.occurred_at, p.number) AS step
        FROM memory_item p WHERE p.scope_id = c.scope_id AND p.thread = c.thread AND p.tier = c.tier
            AND (p.occurred_at, p.number) > (c.occurred_at, c.number) AND (p.expires_at IS NULL OR p.expires_at > now())
        ORDER BY p.occurred_at, p.number LIMIT {reach})) n),
scored AS MATERIALIZED (
    SELECT o.number, coalesce(l.bm25, 0) AS bm25, coalesce(l.held, 0) AS held, coalesce(1 - n.distance, (
        SELECT 1 - min(e.embedding <=> %(vector)s::halfvec) FROM memory_embedding e
        WHERE e.space_id = {space} AND e.scope_id = ANY(%(scopes)s::integer[]) AND e.scope_id = o.scope_id
            AND e.item = o.number)) AS cosine
    FROM (SELECT number, scope_id FROM candidate UNION SELECT number, scope_id FROM neighbour) o
    LEFT JOIN lexical l ON l.item = o.number LEFT JOIN near n ON n.item = o.number),
surrounding AS MATERIALIZED (
    SELECT n.item AS number, avg(least(greatest(coalesce(s.cosine, {low}), {low}), {high})) AS near_cosine,
        max(s.cosine) AS near_best, avg(s.bm25) AS near_bm25,
        bit_or(CASE WHEN n.step IN (-1, 1) THEN s.held ELSE 0 END) AS held_beside,
        bool_or(n.step = -1 AND n.asks) AS replies
    FROM neighbour n JOIN scored s USING (number) GROUP BY n.item)
SELECT array_agg(c.number) AS number, array_agg(c.thread) AS thread, array_agg(c.author) AS author,
    array_agg(c.occurred_at) AS occurred_at, array_agg(c.importance) AS importance,
    array_agg(coalesce(c.words, 0)) AS words, array_agg(s.cosine) AS cosine, array_agg(s.bm25) AS bm25,
    array_agg(s.held) AS held, array_agg(c.asks) AS asks, array_agg(a.near_cosine) AS near_cosine,
    array_agg(a.near_best) AS near_best, array_agg(a.near_bm25) AS near_bm25,
    array_agg(a.held_beside) AS held_beside, array_agg(a.replies) AS replies,
    ARRAY(SELECT idf FROM weight ORDER BY place) AS idf
FROM candidate c JOIN scored s USING (number) LEFT JOIN surrounding a USING (number)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchPlan:
    """What to search: the question in both forms, the space and the scopes, and how much to bring back.

    ``depth`` candidates from each arm, each with ``reach`` neighbours on both sides. No ``vector``, no vector arm; no
    ``terms``, no lexical arm. ``items`` and ``mean_words`` of the scopes are BM25's; ``marks`` are the cosines between
    which neighbours count.
    """

    space_id: int
    dimensions: int
    marks: tuple[float, float]
    vector: Vector | None
    terms: Sequence[str]
    scopes: Sequence[int]
    large_scopes: Sequence[int]
    filters: Filters
    depth: int
    parts: int
    reach: int
    items: int
    mean_words: float


@dataclass(frozen=True, slots=True)
class Found:
    """The candidates' signals (``SIGNALS``, in this order), and ``idf`` by query term.

    Cosine is None without an embedding; bit i of ``held`` is set when the i-th of the first 63 terms is held.
    """

    candidates: Iterable[tuple[Any, ...]]
    idf: tuple[float, ...]


SIGNALS: Final = (
    "number",
    "thread",
    "author",
    "occurred_at",
    "importance",
    "words",
    "cosine",
    "bm25",
    "held",
    "asks",
    "near_cosine",
    "near_best",
    "near_bm25",
    "held_beside",
    "replies",
)


async def find_candidates(connection: Connection, plan: SearchPlan) -> Found:
    """The best of both arms with all signals."""
    async with connection.cursor(binary=True) as cursor:
        # Without filters there is one way to go, whatever the tenant's size, and planning it takes longer than a
        # small tenant's search. With filters the best way depends on them.
        await cursor.execute(_statement(plan), _parameters(plan), prepare=not plan.filters.narrow)
        row = await cursor.fetchone()
    # One row of arrays, for each value of a row costs the driver as much as such an array.
    columns = row or {}
    return Found(
        zip(*(columns[name] or () for name in SIGNALS), strict=True),
        tuple(columns["idf"]),
    )


def _statement(plan: SearchPlan) -> str:
    condition = _MATCHING if plan.filters.narrow else _EXPIRED
    near = "SELECT item, NULL::float8 AS distance FROM lexical LIMIT 0"
    if plan.vector is not None:
        fields = {
            "space": plan.space_id,
            "matching": condition.replace("{item}", "e.item"),
            "dimensions": plan.dimensions,
            "parts": plan.parts,
        }
        arms = [_APPROXIMATE.format(scope=scope, **fields) for scope in _approximate_scopes(plan)]
        arms.append(_EXACT.format(**fields))
        near = (
            f"SELECT item, min(distance) AS distance FROM ({' UNION ALL '.join(arms)}) a GROUP BY item"
            f" ORDER BY 2, 1 LIMIT {plan.depth}"
        )
    return _SEARCH.format(
        near=near,
        space=plan.space_id,
        matching_posting=condition.replace("{item}", "p.item"),
        depth=plan.depth,
        reach=plan.reach,
        low=plan.marks[0],
        high=plan.marks[1],
    )


def _approximate_scopes(plan: SearchPlan) -> Sequence[int]:
    """An index that is filtered afterwards may come up short, so filtered searches are exact."""
    return () if plan.filters.narrow else plan.large_scopes


def _parameters(plan: SearchPlan) -> dict[str, Any]:
    approximate = set(_approximate_scopes(plan))
    return {
        "vector": literal(plan.vector or [0.0] * plan.dimensions),
        "terms": list(plan.terms),
        # Of the very types that the statement asks for: casting a parameter costs a prepared one milliseconds.
        "scopes": list(map(Int4, plan.scopes)),
        "exact_scopes": [Int4(scope) for scope in plan.scopes if scope not in approximate],
        "items": float(plan.items),
        "mean_words": plan.mean_words,
        **filter_parameters(plan.filters),
    }
