"""The SQL of kept answers."""

from typing import Any, cast

from shared.db.database import Connection, Database

_PUT = """
INSERT INTO llm_response_cache (microdao_id, digest, model, completion, bytes, expires_at)
VALUES (%(microdao_id)s, %(digest)s, %(model)s, %(completion)s::jsonb, %(bytes)s,
    now() + make_interval(secs => %(ttl_s)s))
ON CONFLICT (microdao_id, digest) DO UPDATE SET completion = EXCLUDED.completion, bytes = EXCLUDED.bytes,
    created_at = now(), expires_at = EXCLUDED.expires_at
"""

# Expired rows count: they take up room until they are swept. The newest answer is always kept.
_EVICT = """
DELETE FROM llm_response_cache WHERE (microdao_id, digest) IN (
    SELECT microdao_id, digest FROM (
        SELECT microdao_id, digest, sum(bytes) OVER (ORDER BY created_at DESC, digest) AS total,
            row_number() OVER (ORDER BY created_at DESC, digest) AS place
        FROM llm_response_cache WHERE microdao_id = %s) AS newest_first
    WHERE total > %s AND place > 1)
"""

_DELETE_EXPIRED = """
WITH batch AS MATERIALIZED (
    SELECT microdao_id, digest FROM llm_response_cache WHERE expires_at <= now()
    ORDER BY expires_at LIMIT %s FOR UPDATE SKIP LOCKED)
DELETE FROM llm_response_cache c USING batch b WHERE (c.microdao_id, c.digest) = (b.microdao_id, b.digest)
RETURNING c.digest
"""


async def find(database: Database, microdao_id: str, digest: bytes) -> dict[str, Any] | None:
    """The answer, unless its time is over."""
    rows = await database.run(
        "SELECT completion FROM llm_response_cache WHERE microdao_id = %s AND digest = %s AND expires_at > now()",
        (microdao_id, digest),
        microdao_id=microdao_id,
    )
    return cast(dict[str, Any], rows[0]["completion"]) if rows else None


async def put(
    connection: Connection, microdao_id: str, model: str, digest: bytes, completion: bytes, ttl_s: int
) -> None:
    """Keep an answer in place of the one with this digest. A tenant keeps one at a time: room is counted right."""
    await connection.execute(
        "SELECT pg_advisory_xact_lock(hashtextextended('llm_response_cache ' || %s, 0))", (microdao_id,)
    )
    params = {"microdao_id": microdao_id, "model": model, "digest": digest, "ttl_s": ttl_s, "bytes": len(completion)}
    await connection.execute(_PUT, {**params, "completion": completion.decode()})


async def evict(connection: Connection, microdao_id: str, max_bytes: int) -> None:
    """Delete the oldest answers of the tenant until the rest fits."""
    await connection.execute(_EVICT, (microdao_id, max_bytes))


async def delete_expired(database: Database, limit: int) -> int:
    """Delete answers whose time is over (system role); how many."""
    return len(await database.run(_DELETE_EXPIRED, (limit,)))
