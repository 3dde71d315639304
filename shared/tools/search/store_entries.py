"""The SQL of making tools findable: which versions lack words or vectors, and writing them."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from psycopg.types.json import Jsonb

from shared.cloud.outbox import new_job
from shared.db.database import Connection, Row, fetch_all, fetch_one
from shared.memory.embedding.port import Vector
from shared.memory.indexing.store_index import literal

_TEXT: Final = """
SELECT e.entry, e.text_hash, t.name, v.description, v.parameters
FROM tool_entry e JOIN tool t ON t.id = e.tool_id JOIN tool_version v ON v.tool_id = e.tool_id AND v.version = e.version
"""

# Locked in one order, and not where somebody else is at it.
_WORDLESS: Final = (
    _TEXT
    + """
WHERE e.microdao_id = current_microdao() AND e.lexicon IS DISTINCT FROM %(lexicon)s
    AND (%(tool_ids)s::text[] IS NULL OR e.tool_id = ANY(%(tool_ids)s))
ORDER BY e.entry LIMIT %(limit)s FOR NO KEY UPDATE OF e SKIP LOCKED
"""
)

_WRITE_WORDS: Final = """
UPDATE tool_entry e SET lexicon = %(lexicon)s, terms = w.terms, frequencies = w.frequencies,
    text_hash = decode(w.text_hash, 'hex')
FROM jsonb_to_recordset(%(words)s) AS w (entry bigint, terms text[], frequencies smallint[], text_hash text)
WHERE e.entry = w.entry
"""

_VECTORLESS: Final = (
    _TEXT
    + """
WHERE e.microdao_id = current_microdao() AND e.tool_id = ANY(%(tool_ids)s) AND e.text_hash IS NOT NULL AND NOT EXISTS (
    SELECT 1 FROM tool_embedding x WHERE x.space_id = %(space_id)s AND x.entry = e.entry)
ORDER BY e.entry
"""
)

_SAME_TEXT: Final = """
SELECT DISTINCT ON (e.text_hash) e.text_hash, x.embedding::text AS embedding
FROM tool_entry e JOIN tool_embedding x ON x.entry = e.entry AND x.space_id = %(space_id)s
WHERE e.text_hash = ANY(%(hashes)s) ORDER BY e.text_hash
"""

_WRITE_VECTORS: Final = """
INSERT INTO tool_embedding (space_id, microdao_id, entry, embedding)
SELECT %(space_id)s, e.microdao_id, e.entry, v.embedding::halfvec
FROM unnest(%(entries)s::bigint[], %(vectors)s::text[]) AS v (entry, embedding)
JOIN tool_entry e ON e.entry = v.entry AND e.microdao_id = current_microdao()
ORDER BY e.entry ON CONFLICT DO NOTHING
"""

_MARK_DONE: Final = """
UPDATE tool_entry e SET embedded_in = %(newest)s, attempts = 0, failure = NULL
WHERE e.microdao_id = current_microdao() AND e.tool_id = ANY(%(tool_ids)s) AND NOT EXISTS (
    SELECT 1 FROM unnest(%(spaces)s::smallint[]) AS s (space_id) WHERE NOT EXISTS (
        SELECT 1 FROM tool_embedding x WHERE x.space_id = s.space_id AND x.entry = e.entry))
"""

_MARK_FAILED: Final = """
UPDATE tool_entry e SET failure = f.failure FROM unnest(%s::bigint[], %s::text[]) AS f (entry, failure)
WHERE e.entry = f.entry
"""

# A quarter of an hour after the first try, then twice as long each time, up to a day.
_QUEUE_AGAIN: Final = """
UPDATE tool_entry SET queued_at = now(), attempts = least(attempts + 1, 100) WHERE entry = ANY(ARRAY(
    SELECT entry FROM tool_entry
    WHERE embedded_in < (SELECT max(space_id) FROM memory_space WHERE state <> 'retired')
        AND queued_at < now() - make_interval(
            secs => least(%(lost_after_s)s * power(2::float8, least(attempts, 20)), 86400))
    ORDER BY queued_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED))
RETURNING microdao_id, tool_id
"""

_INSERT_JOBS: Final = """
INSERT INTO outbox (id, microdao_id, queue, body)
SELECT id, microdao_id, queue, body FROM jsonb_to_recordset(%s) AS j (id text, microdao_id text, queue text, body jsonb)
"""

# What is younger than a minute may be of a transaction that others have not yet seen.
_PRUNE_CHANGES: Final = """
DELETE FROM tool_change c USING (
    SELECT microdao_id FROM tool_change GROUP BY microdao_id HAVING count(*) > %s) many
WHERE c.microdao_id = many.microdao_id AND c.changed_at < now() - interval '1 minute'
"""

# One tool for each space whose vectors cannot be used: indexing it again fits the frame.
_FRAMELESS: Final = """
SELECT x.microdao_id, x.tool_id FROM memory_space s CROSS JOIN LATERAL (
    SELECT e.microdao_id, e.tool_id FROM tool_embedding v JOIN tool_entry e USING (entry)
    WHERE v.space_id = s.space_id LIMIT 1) x
WHERE s.state <> 'retired' AND NOT EXISTS (
    SELECT 1 FROM tool_frame f WHERE f.space_id = s.space_id AND f.bank_hash = %s)
"""

_WRITE_FRAME: Final = """
INSERT INTO tool_frame (space_id, bank_hash, request_mean, tool_mean, direction)
VALUES (%(space_id)s, %(bank_hash)s, %(request_mean)s::halfvec, %(tool_mean)s::halfvec, %(direction)s::halfvec)
ON CONFLICT DO NOTHING
"""


async def lock_wordless(
    connection: Connection, lexicon: int, limit: int, tool_ids: Sequence[str] | None = None
) -> list[Row]:
    """Versions (of these tools) whose words are missing or of another lexicon, held until the transaction ends."""
    asked = {"lexicon": lexicon, "limit": limit, "tool_ids": None if tool_ids is None else list(tool_ids)}
    return await fetch_all(connection, _WORDLESS, asked)


async def write_words(connection: Connection, lexicon: int, words: Sequence[Mapping[str, Any]]) -> None:
    """Give entries their ``terms``, ``frequencies`` and ``text_hash`` (in hexadecimal digits)."""
    await connection.execute(_WRITE_WORDS, {"lexicon": lexicon, "words": Jsonb(list(words))})
    await note_change(connection)


async def read_vectorless(connection: Connection, space_id: int, tool_ids: Sequence[str]) -> list[Row]:
    """Versions of these tools that have no vector in the space."""
    return await fetch_all(connection, _VECTORLESS, {"space_id": space_id, "tool_ids": list(tool_ids)})


async def read_same_text(connection: Connection, space_id: int, hashes: Sequence[bytes]) -> dict[bytes, str]:
    """Vectors that equal texts have in the space, as pgvector writes them (system role: whosever they are)."""
    rows = await fetch_all(connection, _SAME_TEXT, {"space_id": space_id, "hashes": list(hashes)})
    return {row["text_hash"]: row["embedding"] for row in rows}


async def write_vectors(connection: Connection, space_id: int, vectors: Mapping[int, str]) -> None:
    """Keep the entries' vectors; those that are there stay."""
    made = {"space_id": space_id, "entries": list(vectors), "vectors": list(vectors.values())}
    await connection.execute(_WRITE_VECTORS, made)
    await note_change(connection)


async def mark_done(connection: Connection, spaces: Sequence[int], tool_ids: Sequence[str]) -> None:
    """Take the tools' versions that have a vector in each of the spaces off the list of what waits."""
    await connection.execute(_MARK_DONE, {"newest": max(spaces), "spaces": list(spaces), "tool_ids": list(tool_ids)})


async def mark_failed(connection: Connection, failures: Mapping[int, str]) -> None:
    """Write down why entries could not be embedded."""
    await connection.execute(_MARK_FAILED, (list(failures), list(failures.values())))


async def note_change(connection: Connection) -> None:
    """Let everybody read the microDAO's catalogue again."""
    await connection.execute("INSERT INTO tool_change (microdao_id) VALUES (current_microdao())")


async def queue_again(connection: Connection, lost_after_s: float, limit: int) -> list[Row]:
    """Take what lacks a vector and was queued long ago as queued now; ``microdao_id`` and ``tool_id`` (system role)."""
    return await fetch_all(connection, _QUEUE_AGAIN, {"lost_after_s": lost_after_s, "limit": limit})


async def read_frameless(connection: Connection, bank_hash: bytes) -> list[Row]:
    """``microdao_id`` and ``tool_id`` of a tool in each living space without a frame of this bank (system role)."""
    return await fetch_all(connection, _FRAMELESS, (bank_hash,))


async def enqueue_tools(connection: Connection, queue: str, tools: Sequence[tuple[str, Sequence[str]]]) -> None:
    """Write a job for each microDAO and its tools."""
    jobs = [new_job(microdao_id, queue, {"tool_ids": list(tool_ids)}) for microdao_id, tool_ids in tools]
    await connection.execute(_INSERT_JOBS, (Jsonb(jobs),))


async def prune_changes(connection: Connection, keep: int) -> int:
    """Forget changes where there are more than ``keep``; how many (system role)."""
    return (await connection.execute(_PRUNE_CHANGES, (keep,))).rowcount


async def has_frame(connection: Connection, space_id: int, bank_hash: bytes) -> bool:
    """Whether the space has a frame of this bank."""
    found = "SELECT 1 FROM tool_frame WHERE space_id = %s AND bank_hash = %s"
    return await fetch_one(connection, found, (space_id, bank_hash)) is not None


async def write_frame(connection: Connection, space_id: int, bank_hash: bytes, frame: Mapping[str, Vector]) -> None:
    """Keep a space's frame (system role)."""
    fields = {name: literal(vector) for name, vector in frame.items()}
    await connection.execute(_WRITE_FRAME, {"space_id": space_id, "bank_hash": bank_hash, **fields})
