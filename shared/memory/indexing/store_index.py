"""The SQL of indexing: what waits, and what makes it findable."""

from collections.abc import Mapping, Sequence
from typing import Final

import orjson

from shared.db.database import Connection, Row, fetch_all
from shared.memory.embedding.port import Vector
from shared.memory.search.terms import frequencies

# An item waits while its state says so, its postings are of another lexicon, or a space lacks it.
_WAITING: Final = """
SELECT i.id, i.number, i.text, i.content_hash, i.author, i.occurred_at, d.title,
    i.lexicon IS DISTINCT FROM %(lexicon)s AS needs_postings,
    ARRAY(SELECT s.space_id FROM unnest(%(spaces)s::smallint[]) AS s (space_id) WHERE NOT EXISTS (
        SELECT 1 FROM memory_embedding e
        WHERE e.space_id = s.space_id AND e.scope_id = i.scope_id AND e.item = i.number)) AS spaces
FROM memory_item i LEFT JOIN memory_document d ON d.id = i.document_id
WHERE i.id = ANY(%(ids)s) AND i.summary_id IS NULL ORDER BY i.id
"""

# Locked against deletion, summaries and changes first, and in one order: what is written for an item must not outlive
# it, nor what it says.
_LOCK: Final = """
SELECT id, content_hash FROM memory_item WHERE id = ANY(%s) AND summary_id IS NULL ORDER BY id FOR NO KEY UPDATE
"""

# Of an item that a transaction changes twice (its words, then its state) the foreign key looks up and holds the
# document: whoever deletes that holds it first, then its items.
_LOCK_DOCUMENTS: Final = """
SELECT id FROM memory_document WHERE id IN (
    SELECT document_id FROM memory_item WHERE id = ANY(%s) AND document_id IS NOT NULL) ORDER BY id FOR KEY SHARE
"""

_INSERT_EMBEDDINGS: Final = """
INSERT INTO memory_embedding (space_id, scope_id, item, part, embedding)
SELECT %(space_id)s, i.scope_id, i.number, v.part, v.embedding::halfvec
FROM unnest(%(ids)s::text[], %(parts)s::smallint[], %(vectors)s::text[]) AS v (id, part, embedding)
JOIN memory_item i ON i.id = v.id AND i.summary_id IS NULL
ORDER BY i.number, v.part ON CONFLICT DO NOTHING
"""

_REPLACE_POSTINGS: Final = """
WITH old AS (DELETE FROM memory_posting WHERE item = %(number)s)
UPDATE memory_item SET lexicon = %(lexicon)s, words = %(words)s WHERE number = %(number)s
"""

_INSERT_POSTINGS: Final = """
INSERT INTO memory_posting (scope_id, term, item, frequency, words)
SELECT i.scope_id, t.term, i.number, t.frequency, %(words)s
FROM memory_item i, unnest(%(terms)s::text[], %(frequencies)s::smallint[]) AS t (term, frequency)
WHERE i.number = %(number)s ON CONFLICT DO NOTHING
"""

_READY: Final = """
UPDATE memory_item i SET state = 'ready', failure = NULL, indexed_at = now()
WHERE id = ANY(%s) AND state <> 'ready' AND (summary_id IS NOT NULL OR EXISTS (
    SELECT 1 FROM memory_embedding e WHERE e.space_id = (SELECT space_id FROM memory_space WHERE state = 'active')
        AND e.scope_id = i.scope_id AND e.item = i.number))
"""

_WAITS: Final = """
UPDATE memory_item SET state = 'pending', failure = %s, queued_at = now() WHERE id = ANY(%s) AND state <> 'ready'
"""

# The queue may have lost the message, or nobody ever sent one.
_QUEUE_AGAIN: Final = """
UPDATE memory_item SET queued_at = now() WHERE id = ANY(ARRAY(
    SELECT id FROM memory_item WHERE state = 'pending'
        AND (queued_at IS NULL OR queued_at < now() - make_interval(secs => %s))
    ORDER BY queued_at NULLS FIRST LIMIT %s FOR UPDATE SKIP LOCKED))
RETURNING id, microdao_id
"""


async def read_waiting(
    connection: Connection, item_ids: Sequence[str], spaces: Sequence[int], lexicon: int
) -> list[Row]:
    """The items that exist, each with the ``spaces`` it lacks and whether it ``needs_postings``."""
    return await fetch_all(connection, _WAITING, {"ids": list(item_ids), "spaces": list(spaces), "lexicon": lexicon})


async def lock_items(connection: Connection, items: Sequence[Row]) -> set[str]:
    """Hold the items until the transaction ends; those that are still there and say what they said."""
    said = {item["id"]: item["content_hash"] for item in items}
    if changed_twice := [item["id"] for item in items if item["needs_postings"]]:
        await connection.execute(_LOCK_DOCUMENTS, (changed_twice,))
    locked = await fetch_all(connection, _LOCK, (list(said),))
    return {row["id"] for row in locked if row["content_hash"] == said[row["id"]]}


async def insert_embeddings(connection: Connection, space_id: int, vectors: Mapping[str, Sequence[Vector]]) -> None:
    """Keep the vectors of each item's parts; those that are there stay."""
    rows = [(item_id, part, literal(one)) for item_id, parts in vectors.items() for part, one in enumerate(parts)]
    await connection.execute(
        _INSERT_EMBEDDINGS,
        {
            "space_id": space_id,
            "ids": [row[0] for row in rows],
            "parts": [row[1] for row in rows],
            "vectors": [row[2] for row in rows],
        },
    )


async def replace_postings(connection: Connection, number: int, terms: Mapping[str, int], lexicon: int) -> None:
    """Make an item findable by these words (and how often each stands in it) instead of what it had."""
    counted = {
        "number": number,
        "lexicon": lexicon,
        "words": sum(terms.values()),
        "terms": list(terms),
        "frequencies": frequencies(terms),
    }
    await connection.execute(_REPLACE_POSTINGS, counted)
    await connection.execute(_INSERT_POSTINGS, counted)


async def mark_ready(connection: Connection, item_ids: Sequence[str]) -> None:
    """Those of them are findable by meaning that are in the active space, or stand in a summary."""
    await connection.execute(_READY, (list(item_ids),))


async def mark_waiting(connection: Connection, item_ids: Sequence[str], reason: str) -> None:
    """Write down what those of them wait for that are not ready; the sweep queues them again."""
    await connection.execute(_WAITS, (reason, list(item_ids)))


async def mark_failed(connection: Connection, failures: Mapping[str, str]) -> None:
    """Write down why each item could not be embedded."""
    await connection.execute(
        "UPDATE memory_item i SET state = 'failed', failure = f.failure"
        " FROM unnest(%s::text[], %s::text[]) AS f (id, failure) WHERE i.id = f.id AND i.state <> 'ready'",
        (list(failures), list(failures.values())),
    )


async def queue_again(connection: Connection, older_than_s: float, limit: int) -> list[Row]:
    """Take items that wait although they were queued so long ago, if ever, as queued now (system role)."""
    return await fetch_all(connection, _QUEUE_AGAIN, (older_than_s, limit))


def literal(vector: Vector) -> str:
    """pgvector's text form, which is JSON's."""
    return orjson.dumps(vector).decode()
