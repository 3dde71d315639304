"""SQL of a microDAO's own policies."""

from shared.db.database import Connection, Database, Row, fetch_all, fetch_one

_COLUMNS = "id, name, description, source, active, version, created_at, updated_at"


async def read_version(database: Database, microdao_id: str) -> int:
    """Of the microDAO's policies together; 0 when it never had one."""
    query = "SELECT version FROM access_policy_set"
    rows = await database.run(query, microdao_id=microdao_id)
    return int(rows[0]["version"]) if rows else 0


async def read_active(database: Database, microdao_id: str) -> tuple[int, dict[str, str]]:
    """The version and, of one moment with it, the active policies by name."""
    rows = await database.run(
        "SELECT kept.version, own.name, own.source FROM access_policy_set kept"
        " LEFT JOIN access_policy own ON own.active ORDER BY own.name",
        microdao_id=microdao_id,
    )
    return int(rows[0]["version"]) if rows else 0, {row["name"]: row["source"] for row in rows if row["name"]}


async def next_version(connection: Connection, microdao_id: str) -> None:
    """Tell everybody that the policies change; changes of one microDAO come one after another from here on."""
    await connection.execute(
        "INSERT INTO access_policy_set (microdao_id, version) VALUES (%s, 1)"
        " ON CONFLICT (microdao_id) DO UPDATE SET version = access_policy_set.version + 1",
        (microdao_id,),
    )


async def count(connection: Connection) -> int:
    """How many policies the transaction's microDAO has."""
    row = await fetch_one(connection, "SELECT count(*) AS n FROM access_policy")
    return int(row["n"]) if row else 0


async def insert(
    connection: Connection, microdao_id: str, policy_id: str, name: str, description: str, source: str, active: bool
) -> Row | None:
    """The new policy; None when the name is taken."""
    return await fetch_one(
        connection,
        "INSERT INTO access_policy (id, microdao_id, name, description, source, active) VALUES (%s, %s, %s, %s, %s, %s)"
        f" ON CONFLICT (microdao_id, name) DO NOTHING RETURNING {_COLUMNS}",
        (policy_id, microdao_id, name, description, source, active),
    )


async def update(
    connection: Connection, policy_id: str, name: str, description: str, source: str, active: bool
) -> Row | None:
    """The policy as it is now; None when there is none. Raises UniqueViolation when another has the name."""
    return await fetch_one(
        connection,
        "UPDATE access_policy SET name = %s, description = %s, source = %s, active = %s, version = version + 1,"
        f" updated_at = now() WHERE id = %s RETURNING {_COLUMNS}",
        (name, description, source, active, policy_id),
    )


async def delete(connection: Connection, policy_id: str) -> Row | None:
    """The policy as it was, with the version that its end is; None when there is none."""
    return await fetch_one(
        connection,
        "DELETE FROM access_policy WHERE id = %s"
        " RETURNING id, name, description, source, active, version + 1 AS version, created_at, updated_at",
        (policy_id,),
    )


async def find(connection: Connection, policy_id: str) -> Row | None:
    """One policy of the transaction's microDAO."""
    return await fetch_one(connection, f"SELECT {_COLUMNS} FROM access_policy WHERE id = %s", (policy_id,))


async def list_page(connection: Connection, after: str, limit: int) -> list[Row]:
    """Policies by id."""
    query = f"SELECT {_COLUMNS} FROM access_policy WHERE id > %s ORDER BY id LIMIT %s"
    return await fetch_all(connection, query, (after, limit))


async def remember(connection: Connection, microdao_id: str, policy: Row, change: str, changed_by: str) -> None:
    """Add to the history."""
    await connection.execute(
        "INSERT INTO access_policy_version"
        " (microdao_id, policy_id, version, change, name, description, source, active, changed_by)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
        (
            microdao_id,
            policy["id"],
            policy["version"],
            change,
            policy["name"],
            policy["description"],
            policy["source"],
            policy["active"],
            changed_by,
        ),
    )


async def list_versions(connection: Connection, policy_id: str, before: int, limit: int) -> list[Row]:
    """The history of a policy, newest first, below version ``before``."""
    return await fetch_all(
        connection,
        "SELECT version, change, name, description, source, active, changed_by, changed_at FROM access_policy_version"
        " WHERE policy_id = %s AND version < %s ORDER BY version DESC LIMIT %s",
        (policy_id, before, limit),
    )
