"""SQL of secrets."""

from collections.abc import Sequence

from shared.db.database import Connection, Row, fetch_all, fetch_one

_SHOWN = "name, hosts, changed_by, created_at, rotated_at, last_used_at"


async def put_secret(
    connection: Connection, microdao_id: str, name: str, *, sealed: bytes, hosts: Sequence[str], changed_by: str
) -> Row:
    """Add a secret or put a new value in the place of the old; what may be shown of it."""
    row = await fetch_one(
        connection,
        "INSERT INTO tool_secret (microdao_id, name, sealed, hosts, changed_by) VALUES (%s, %s, %s, %s, %s)"
        " ON CONFLICT (microdao_id, name) DO UPDATE SET sealed = excluded.sealed, hosts = excluded.hosts,"
        f" changed_by = excluded.changed_by, rotated_at = now() RETURNING {_SHOWN}",
        (microdao_id, name, sealed, list(hosts), changed_by),
    )
    assert row is not None  # noqa: S101 - the statement returns the row that it wrote
    return row


async def find_secret(connection: Connection, name: str) -> Row | None:
    """What may be shown of a secret."""
    return await fetch_one(connection, f"SELECT {_SHOWN} FROM tool_secret WHERE name = %s", (name,))


async def list_secrets(connection: Connection, after: str, limit: int) -> list[Row]:
    """What may be shown of each secret, by name, from the one after ``after``."""
    return await fetch_all(
        connection, f"SELECT {_SHOWN} FROM tool_secret WHERE name > %s ORDER BY name LIMIT %s", (after, limit)
    )


async def count_secrets(connection: Connection, without: str) -> int:
    """How many secrets the microDAO has beside the one named."""
    row = await fetch_one(connection, "SELECT count(*) AS total FROM tool_secret WHERE name <> %s", (without,))
    return row["total"] if row else 0


async def delete_secret(connection: Connection, name: str) -> bool:
    """Remove a secret; False when there is none."""
    row = await fetch_one(connection, "DELETE FROM tool_secret WHERE name = %s RETURNING name", (name,))
    return row is not None


async def use_secrets(connection: Connection, names: Sequence[str]) -> list[Row]:
    """Secrets with their sealed values, noting once a minute that they are used."""
    await connection.execute(
        "UPDATE tool_secret SET last_used_at = now() WHERE name = ANY(%s)"
        " AND (last_used_at IS NULL OR last_used_at < now() - interval '1 minute')",
        (list(names),),
    )
    return await fetch_all(
        connection, "SELECT name, sealed, hosts FROM tool_secret WHERE name = ANY(%s)", (list(names),)
    )


async def lock_sealed(connection: Connection, after: tuple[str, str], limit: int) -> list[Row]:
    """Sealed values of every microDAO, held for this transaction (system role), from the row after ``after``."""
    return await fetch_all(
        connection,
        "SELECT microdao_id, name, sealed FROM tool_secret WHERE (microdao_id, name) > (%s, %s)"
        " ORDER BY microdao_id, name LIMIT %s FOR UPDATE",
        (*after, limit),
    )


async def replace_sealed(connection: Connection, microdao_id: str, name: str, sealed: bytes) -> None:
    """The same value, sealed anew."""
    await connection.execute(
        "UPDATE tool_secret SET sealed = %s WHERE microdao_id = %s AND name = %s", (sealed, microdao_id, name)
    )
