"""The SQL of vectors that were paid for."""

from collections.abc import Mapping, Sequence
from typing import Final

from shared.db.database import Connection, fetch_all
from shared.memory.embedding.port import Purpose, Vector
from shared.memory.indexing.store_index import literal

# A use is noted once a day, so that reading seldom writes.
_READ: Final = """
WITH used AS (
    UPDATE memory_embedding_cache SET used_at = now()
    WHERE microdao_id = current_microdao() AND model = %(model)s AND purpose = %(purpose)s AND hash IN (
        SELECT hash FROM memory_embedding_cache
        WHERE microdao_id = current_microdao() AND model = %(model)s AND purpose = %(purpose)s
            AND hash = ANY(%(hashes)s) AND used_at < now() - interval '1 day' FOR UPDATE SKIP LOCKED))
SELECT hash, embedding::real[] AS embedding FROM memory_embedding_cache
WHERE microdao_id = current_microdao() AND model = %(model)s AND purpose = %(purpose)s AND hash = ANY(%(hashes)s)
"""

_KEEP: Final = """
INSERT INTO memory_embedding_cache (microdao_id, model, purpose, hash, embedding)
SELECT current_microdao(), %(model)s, %(purpose)s, v.hash, v.embedding::halfvec
FROM unnest(%(hashes)s::bytea[], %(vectors)s::text[]) AS v (hash, embedding) ORDER BY v.hash ON CONFLICT DO NOTHING
"""

_PRUNE: Final = """
WITH batch AS MATERIALIZED (
    SELECT microdao_id, model, purpose, hash FROM memory_embedding_cache ORDER BY used_at
    LIMIT least(%(batch)s, greatest(
        (SELECT count(*) FROM memory_embedding_cache) - %(most)s,
        (SELECT count(*) FROM memory_embedding_cache WHERE used_at < now() - make_interval(secs => %(unused_s)s))))
    FOR UPDATE SKIP LOCKED)
DELETE FROM memory_embedding_cache c USING batch b
WHERE (c.microdao_id, c.model, c.purpose, c.hash) = (b.microdao_id, b.model, b.purpose, b.hash)
"""


async def read(connection: Connection, model: str, purpose: Purpose, hashes: Sequence[bytes]) -> dict[bytes, Vector]:
    """The vectors that are kept, by their text's hash."""
    asked = {"model": model, "purpose": purpose, "hashes": list(hashes)}
    return {row["hash"]: row["embedding"] for row in await fetch_all(connection, _READ, asked)}


async def keep(connection: Connection, model: str, purpose: Purpose, vectors: Mapping[bytes, Vector]) -> None:
    """Keep vectors by their text's hash."""
    literals = [literal(one) for one in vectors.values()]
    made = {"model": model, "purpose": purpose, "hashes": list(vectors), "vectors": literals}
    await connection.execute(_KEEP, made)


async def drop_others(connection: Connection, model: str, dimensions: int) -> None:
    """Drop a model's vectors of another length than this (system role)."""
    await connection.execute(
        "DELETE FROM memory_embedding_cache WHERE model = %s AND vector_dims(embedding) <> %s", (model, dimensions)
    )


async def prune(connection: Connection, *, most: int, unused_s: float, batch: int) -> int:
    """Drop what is above ``most`` vectors or was not used for so long, least lately used first, at most ``batch`` of
    them; how many (system role)."""
    cursor = await connection.execute(_PRUNE, {"most": most, "unused_s": unused_s, "batch": batch})
    return cursor.rowcount
