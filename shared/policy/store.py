"""SQL of keys, microDAOs and agents."""

from collections.abc import Sequence
from datetime import datetime

from shared.db.database import Connection, Database, Row, fetch_all, fetch_one

_KEY_COLUMNS = "id, microdao_id, name, hint, roles, created_at, expires_at, last_used_at, revoked_at"
# That a key was used is written once an hour, and never waits for who holds the row.
_FIND_KEY = """
WITH found AS (
    SELECT id, microdao_id, roles, expires_at, last_used_at FROM api_key
    WHERE key_hash = %s AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
), stale AS (
    SELECT id FROM api_key WHERE id = (SELECT id FROM found)
        AND (last_used_at IS NULL OR last_used_at < now() - interval '1 hour') FOR UPDATE SKIP LOCKED
), used AS (
    UPDATE api_key SET last_used_at = now() WHERE id IN (SELECT id FROM stale)
)
SELECT id, microdao_id, roles, extract(epoch FROM expires_at - now())::float AS expires_in_s FROM found
"""


async def find_key(database: Database, key_hash: bytes) -> Row | None:
    """The usable key with this hash, of whatever tenant, in one round trip: every request asks."""
    rows = await database.run(_FIND_KEY, (key_hash,))
    return rows[0] if rows else None


async def insert_key(
    connection: Connection,
    *,
    key_id: str,
    microdao_id: str,
    name: str,
    key_hash: bytes,
    hint: str,
    roles: Sequence[str],
    expires_at: datetime | None,
) -> None:
    """Add a key; a hash that is known already is left as it is."""
    await connection.execute(
        "INSERT INTO api_key (id, microdao_id, name, key_hash, hint, roles, expires_at)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s)"
        " ON CONFLICT (key_hash) DO NOTHING",
        (key_id, microdao_id, name, key_hash, hint, list(roles), expires_at),
    )


async def list_keys(connection: Connection, after: str, limit: int) -> list[Row]:
    """Keys of the transaction's microDAO, by id, without their hashes."""
    return await fetch_all(
        connection,
        f"SELECT {_KEY_COLUMNS} FROM api_key WHERE id > %s ORDER BY id LIMIT %s",
        (after, limit),
    )


async def lock_key(connection: Connection, key_id: str) -> Row | None:
    """A usable key of the transaction's microDAO, held until its end."""
    return await fetch_one(
        connection,
        f"SELECT {_KEY_COLUMNS} FROM api_key WHERE id = %s AND revoked_at IS NULL"
        " AND (expires_at IS NULL OR expires_at > now()) FOR UPDATE",
        (key_id,),
    )


async def update_key(
    connection: Connection, key_id: str, name: str, roles: Sequence[str], expires_at: datetime | None
) -> Row | None:
    """Change what a key is called and may do, and until when; the key as it is now."""
    return await fetch_one(
        connection,
        f"UPDATE api_key SET name = %s, roles = %s, expires_at = %s WHERE id = %s RETURNING {_KEY_COLUMNS}",
        (name, list(roles), expires_at, key_id),
    )


async def rotate_key(connection: Connection, key_id: str, key_hash: bytes, hint: str) -> None:
    """Put another secret behind the key; the old one opens nothing from the commit on."""
    await connection.execute("UPDATE api_key SET key_hash = %s, hint = %s WHERE id = %s", (key_hash, hint, key_id))


async def revoke_key(connection: Connection, key_id: str) -> list[str] | None:
    """Revoke a key of the transaction's microDAO and return its roles; None when there is none."""
    row = await fetch_one(
        connection,
        "UPDATE api_key SET revoked_at = coalesce(revoked_at, now()) WHERE id = %s RETURNING roles",
        (key_id,),
    )
    return row["roles"] if row else None


async def insert_microdao(connection: Connection, microdao_id: str, name: str) -> Row | None:
    """Add a tenant (system role); None when it exists."""
    return await fetch_one(
        connection,
        "INSERT INTO microdao (microdao_id, name) VALUES (%s, %s) ON CONFLICT DO NOTHING"
        " RETURNING microdao_id, name, created_at",
        (microdao_id, name),
    )


async def list_microdaos(connection: Connection, after: str, limit: int) -> list[Row]:
    """The tenants that the transaction may see."""
    return await fetch_all(
        connection,
        "SELECT microdao_id, name, created_at FROM microdao WHERE microdao_id > %s ORDER BY microdao_id LIMIT %s",
        (after, limit),
    )


async def agent_exists(database: Database, microdao_id: str, agent_id: str) -> bool:
    """Whether the microDAO has this agent."""
    query = "SELECT 1 FROM agent WHERE agent_id = %s"
    return bool(await database.run(query, (agent_id,), microdao_id=microdao_id))


async def microdao_exists(connection: Connection, microdao_id: str) -> bool:
    """Whether the transaction may see this tenant."""
    return await fetch_one(connection, "SELECT 1 FROM microdao WHERE microdao_id = %s", (microdao_id,)) is not None
