"""SQL of keys, microDAOs and agents."""

from collections.abc import Sequence

from shared.db.database import Connection, Database, Row, fetch_all, fetch_one


async def find_key(database: Database, key_hash: bytes) -> Row | None:
    """The unrevoked key with this hash, of whatever tenant, in one round trip: every request asks."""
    rows = await database.run(
        "SELECT id, microdao_id, roles FROM api_key WHERE key_hash = %s AND revoked_at IS NULL", (key_hash,)
    )
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
) -> None:
    """Add a key; a hash that is known already is left as it is."""
    await connection.execute(
        "INSERT INTO api_key (id, microdao_id, name, key_hash, hint, roles) VALUES (%s, %s, %s, %s, %s, %s)"
        " ON CONFLICT (key_hash) DO NOTHING",
        (key_id, microdao_id, name, key_hash, hint, list(roles)),
    )


async def list_keys(connection: Connection, after: str, limit: int) -> list[Row]:
    """Keys of the transaction's microDAO, by id, without their hashes."""
    return await fetch_all(
        connection,
        "SELECT id, microdao_id, name, hint, roles, created_at, revoked_at FROM api_key"
        " WHERE id > %s ORDER BY id LIMIT %s",
        (after, limit),
    )


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
