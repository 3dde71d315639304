"""SQL of the catalogue as administrators see and change it."""

from collections.abc import Sequence
from typing import Any

from psycopg.types.json import Jsonb

from shared.db.database import Connection, Row, fetch_all, fetch_one

_VERSION_COLUMNS = (
    "tool_version.version, tool_version.definition_hash, tool_version.description, tool_version.parameters,"
    " tool_version.risk, tool_version.executor, tool_version.config, tool_version.timeout_ms, tool_version.idempotent,"
    " tool_version.result_schema, tool_version.cost_microusd, tool_version.rate_limit_per_minute,"
    " tool_version.environments, tool_version.created_at AS version_created_at, tool_version.created_by"
)
_RECORD = (
    f"SELECT tool.id, tool.name, tool.active, tool.tags, tool.pending_version, tool.disabled_reason, tool.created_at,"
    f" {_VERSION_COLUMNS},"
    " (SELECT max(version) FROM tool_version WHERE tool_id = tool.id) AS latest_version,"
    " (SELECT import_id FROM tool_import_item WHERE tool_id = tool.id) AS import_id,"
    " ARRAY(SELECT alias FROM tool_alias WHERE tool_id = tool.id ORDER BY alias) AS aliases"
    " FROM tool JOIN tool_version ON tool_version.tool_id = tool.id AND tool_version.version = tool.active_version"
)
_CONTENT = (
    *("definition_hash", "description", "parameters", "risk", "executor", "config", "timeout_ms", "idempotent"),
    *("result_schema", "cost_microusd", "rate_limit_per_minute", "environments"),
)
_JSON = ("parameters", "config", "result_schema")


async def find_record(connection: Connection, tool_id: str) -> Row | None:
    """A tool that was not deleted, at its active version."""
    return await fetch_one(connection, f"{_RECORD} WHERE tool.id = %s AND tool.archived_at IS NULL", (tool_id,))


async def lock_record(connection: Connection, tool_id: str) -> Row | None:
    """The same, held for this transaction: who changes a tool waits for whoever changes it."""
    found = await fetch_one(
        connection, "SELECT 1 FROM tool WHERE id = %s AND archived_at IS NULL FOR UPDATE", (tool_id,)
    )
    return await find_record(connection, tool_id) if found else None


async def list_records(connection: Connection, wanted: dict[str, Any]) -> list[Row]:
    """Tools by name from the one after ``after``; those with ``tag``, ``executor``, ``active`` where not None."""
    return await fetch_all(
        connection,
        f"{_RECORD} WHERE tool.archived_at IS NULL AND tool.name > %(after)s"
        " AND (%(tag)s::text IS NULL OR %(tag)s = ANY(tool.tags))"
        " AND (%(executor)s::text IS NULL OR tool_version.executor = %(executor)s)"
        " AND (%(active)s::boolean IS NULL OR tool.active = %(active)s)"
        " ORDER BY tool.name LIMIT %(limit)s",
        wanted,
    )


async def records_of(connection: Connection, tool_ids: Sequence[str]) -> list[Row]:
    """These tools, by name."""
    return await fetch_all(
        connection, f"{_RECORD} WHERE tool.id = ANY(%s) AND tool.archived_at IS NULL ORDER BY tool.name", (tool_ids,)
    )


async def taken_names(connection: Connection, names: Sequence[str]) -> dict[str, str]:
    """Of these names those that cannot be given, each with the name of the tool that a model would take it for."""
    rows = await fetch_all(
        connection,
        "SELECT asked, tool.name FROM unnest(%s::text[]) AS asked JOIN tool ON archived_at IS NULL"
        " AND lower(function_name) = lower(left(regexp_replace(asked, '[^a-zA-Z0-9_-]', '_', 'g'), 64))",
        (list(names),),
    )
    return {row["asked"]: row["name"] for row in rows}


async def find_version(connection: Connection, tool_id: str, version: int) -> Row | None:
    """One version, of a deleted tool too: the audit log refers to it."""
    return await fetch_one(
        connection,
        f"SELECT tool.name, {_VERSION_COLUMNS} FROM tool_version JOIN tool ON tool.id = tool_id"
        " WHERE tool_id = %s AND version = %s",
        (tool_id, version),
    )


async def list_versions(connection: Connection, tool_id: str, before: int, limit: int) -> list[Row]:
    """Versions below ``before``, newest first."""
    return await fetch_all(
        connection,
        f"SELECT tool.name, {_VERSION_COLUMNS} FROM tool_version JOIN tool ON tool.id = tool_id"
        " WHERE tool_id = %s AND version < %s ORDER BY version DESC LIMIT %s",
        (tool_id, before, limit),
    )


async def insert_version(
    connection: Connection, microdao_id: str, tool_id: str, version: int, row: dict[str, Any], created_by: str
) -> None:
    """Add a version to a tool that this transaction holds."""
    values = [_stored(field, row[field]) for field in _CONTENT]
    await connection.execute(
        f"INSERT INTO tool_version (microdao_id, tool_id, version, created_by, {', '.join(_CONTENT)})"
        f" VALUES (%s, %s, %s, %s, {', '.join(['%s'] * len(_CONTENT))})",
        (microdao_id, tool_id, version, created_by, *values),
    )


async def set_active(connection: Connection, tool_id: str, version: int, *, active: bool) -> None:
    """Point the tool at a version; nothing waits for approval any more."""
    await connection.execute(
        "UPDATE tool SET active_version = %s, active = %s, pending_version = NULL, disabled_reason = NULL"
        " WHERE id = %s",
        (version, active, tool_id),
    )


async def point_to(connection: Connection, tool_id: str, version: int) -> None:
    """Point the tool at a version; whether it is active stays as it is."""
    await connection.execute("UPDATE tool SET active_version = %s WHERE id = %s", (version, tool_id))


async def set_pending(connection: Connection, tool_id: str, version: int | None) -> None:
    """Let a version wait for approval, or none."""
    await connection.execute("UPDATE tool SET pending_version = %s WHERE id = %s", (version, tool_id))


async def disable(connection: Connection, tool_id: str, reason: str | None) -> None:
    """Make a tool inactive, and say why."""
    await connection.execute("UPDATE tool SET active = false, disabled_reason = %s WHERE id = %s", (reason, tool_id))


async def set_tags(connection: Connection, tool_id: str, tags: Sequence[str]) -> None:
    """Replace the tags."""
    await connection.execute("UPDATE tool SET tags = %s WHERE id = %s", (list(tags), tool_id))


async def set_aliases(connection: Connection, microdao_id: str, tool_id: str, aliases: Sequence[str]) -> list[str]:
    """Replace the aliases; returns those that are another tool's name or alias."""
    await connection.execute("DELETE FROM tool_alias WHERE tool_id = %s", (tool_id,))
    await connection.execute(
        "INSERT INTO tool_alias (microdao_id, alias, tool_id) SELECT %s, alias, %s FROM unnest(%s::text[]) AS alias"
        " WHERE NOT EXISTS (SELECT 1 FROM tool WHERE name = alias AND archived_at IS NULL) ON CONFLICT DO NOTHING",
        (microdao_id, tool_id, list(aliases)),
    )
    rows = await fetch_all(connection, "SELECT alias FROM tool_alias WHERE tool_id = %s", (tool_id,))
    return sorted(set(aliases) - {row["alias"] for row in rows})


async def archive(connection: Connection, tool_id: str) -> None:
    """Take a tool out of the catalogue with its grants, aliases and import; its versions and runs stay."""
    for table in ("tool_grant", "tool_alias", "tool_import_item"):
        await connection.execute(f"DELETE FROM {table} WHERE tool_id = %s", (tool_id,))
    await connection.execute(
        "UPDATE tool SET active = false, pending_version = NULL, archived_at = now() WHERE id = %s", (tool_id,)
    )


async def unknown_agents(connection: Connection, agent_ids: Sequence[str]) -> list[str]:
    """Those of the agents that the microDAO does not have."""
    rows = await fetch_all(connection, "SELECT agent_id FROM agent WHERE agent_id = ANY(%s)", (list(agent_ids),))
    return sorted(set(agent_ids) - {row["agent_id"] for row in rows})


async def grant_all(
    connection: Connection, microdao_id: str, agent_ids: Sequence[str], tool_ids: Sequence[str]
) -> None:
    """Grant each tool to each agent."""
    await connection.execute(
        "INSERT INTO tool_grant (microdao_id, agent_id, tool_id) SELECT %s, agent, tool"
        " FROM unnest(%s::text[]) AS agent CROSS JOIN unnest(%s::text[]) AS tool ON CONFLICT DO NOTHING",
        (microdao_id, list(agent_ids), list(tool_ids)),
    )


def _stored(field: str, value: Any) -> Any:
    if field in _JSON:
        return None if value is None else Jsonb(value)
    return list(value) if isinstance(value, tuple) else value
