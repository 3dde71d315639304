"""SQL of the catalogue and grants."""

from collections.abc import Sequence
from typing import Any

from psycopg.types.json import Jsonb

from shared.db.database import Connection, Row, fetch_all, fetch_one
from shared.tools.model import Tool

_SELECT = (
    "SELECT tool.id, tool.name, tool.active, tool_version.version, tool_version.description, tool_version.parameters,"
    " tool_version.risk, tool_version.executor, tool_version.config, tool_version.timeout_ms, tool_version.idempotent,"
    " tool_version.result_schema, tool_version.cost_microusd, tool_version.rate_limit_per_minute,"
    " tool_version.environments"
    " FROM tool JOIN tool_version ON tool_version.tool_id = tool.id AND tool_version.version = tool.active_version"
)
# A tool that really bears an alias as its name wins over the alias. The pieces of these statements are constants.
_FIND = (
    f"{_SELECT} WHERE tool.archived_at IS NULL AND (tool.id = %(asked)s OR tool.name = %(asked)s"
    " OR tool.id = (SELECT tool_id FROM tool_alias WHERE alias = %(asked)s))"
    " ORDER BY tool.name = %(asked)s DESC LIMIT 1"
)
_FIND_FOR_CALL = (
    "SELECT agent.agent_id, found.*, EXISTS (SELECT 1 FROM tool_grant"
    " WHERE tool_grant.agent_id = agent.agent_id AND tool_grant.tool_id = found.id) AS granted"
    f" FROM agent LEFT JOIN LATERAL ({_FIND}) AS found ON true WHERE agent.agent_id = %(agent_id)s"
)
_ADD_FIRST_VERSIONS = (
    "INSERT INTO tool_version (microdao_id, tool_id, version, created_by, definition_hash, description, parameters,"
    " risk, executor, config, timeout_ms, idempotent, result_schema, cost_microusd, rate_limit_per_minute,"
    " environments)"
    " SELECT %s, tool.id, 1, %s, entry.definition_hash, entry.description, entry.parameters, entry.risk,"
    " entry.executor, entry.config, entry.timeout_ms, entry.idempotent, nullif(entry.result_schema, 'null'),"
    " coalesce(entry.cost_microusd, 0), entry.rate_limit_per_minute, coalesce(entry.environments, '{}')"
    " FROM jsonb_to_recordset(%s) AS entry (id text, definition_hash text, description text, parameters jsonb,"
    " risk text, executor text, config jsonb, timeout_ms integer, idempotent boolean, result_schema jsonb,"
    " cost_microusd bigint, rate_limit_per_minute integer, environments text[]) JOIN tool USING (id)"
    " ON CONFLICT DO NOTHING"
)
_FIELDS = Tool.__dataclass_fields__.keys()


def tool_from(row: Row) -> Tool:
    """The tool in a row that holds all its columns."""
    return Tool(**{**{field: row[field] for field in _FIELDS}, "environments": tuple(row["environments"])})


async def find_for_call(connection: Connection, agent_id: str, asked: str) -> Row | None:
    """None for an unknown agent; else the tool it asks for (columns null if unknown) and whether it was ``granted``."""
    return await fetch_one(connection, _FIND_FOR_CALL, {"agent_id": agent_id, "asked": asked})


async def find_tool(connection: Connection, asked: str) -> Tool | None:
    """The tool with this id, name or alias."""
    row = await fetch_one(connection, _FIND, {"asked": asked})
    return tool_from(row) if row else None


async def list_tools(connection: Connection, after: str, limit: int) -> list[Tool]:
    """Every tool of the microDAO by name, from the one after ``after``."""
    rows = await fetch_all(
        connection,
        f"{_SELECT} WHERE tool.archived_at IS NULL AND tool.name > %s ORDER BY tool.name LIMIT %s",
        (after, limit),
    )
    return [tool_from(row) for row in rows]


async def list_granted(connection: Connection, agent_id: str, after: str = "") -> list[Tool]:
    """The active tools that the agent was granted, by name, from the one after ``after``."""
    rows = await fetch_all(
        connection,
        f"{_SELECT} JOIN tool_grant ON tool_grant.tool_id = tool.id"
        " WHERE tool_grant.agent_id = %s AND tool.active AND tool.archived_at IS NULL"
        " AND tool.name > %s ORDER BY tool.name",
        (agent_id, after),
    )
    return [tool_from(row) for row in rows]


async def list_permissions(connection: Connection, agent_id: str) -> list[Row]:
    """Each tool's name, whether it is active, and whether the agent was granted it."""
    return await fetch_all(
        connection,
        "SELECT tool.name, tool.active, tool_grant.tool_id IS NOT NULL AS granted FROM tool"
        " LEFT JOIN tool_grant ON tool_grant.tool_id = tool.id AND tool_grant.agent_id = %s"
        " WHERE tool.archived_at IS NULL ORDER BY tool.name",
        (agent_id,),
    )


async def list_names(connection: Connection, agent_id: str | None = None) -> list[str]:
    """The name of every tool of the microDAO, or of those that the agent may use."""
    if agent_id is not None:
        return [tool.name for tool in await list_granted(connection, agent_id)]
    rows = await fetch_all(connection, "SELECT name FROM tool WHERE archived_at IS NULL ORDER BY name")
    return [row["name"] for row in rows]


async def agent_exists(connection: Connection, agent_id: str) -> bool:
    """Whether the microDAO has this agent."""
    return await fetch_one(connection, "SELECT 1 FROM agent WHERE agent_id = %s", (agent_id,)) is not None


async def add_grants(connection: Connection, microdao_id: str, agent_id: str, tool_ids: Sequence[str]) -> None:
    """Grant tools to an agent; those granted before stay so."""
    await connection.execute(
        "INSERT INTO tool_grant (microdao_id, agent_id, tool_id) SELECT %s, %s, unnest(%s::text[])"
        " ON CONFLICT DO NOTHING",
        (microdao_id, agent_id, list(tool_ids)),
    )


async def grant_if_none(connection: Connection, microdao_id: str, agent_id: str, tool_ids: Sequence[str]) -> None:
    """Grant tools to an agent that has no grant at all, so that repeating it never undoes what an admin revoked."""
    await connection.execute(
        "INSERT INTO tool_grant (microdao_id, agent_id, tool_id) SELECT %s, %s, tool.id FROM tool WHERE id = ANY(%s)"
        " AND archived_at IS NULL AND NOT EXISTS (SELECT 1 FROM tool_grant WHERE agent_id = %s) ON CONFLICT DO NOTHING",
        (microdao_id, agent_id, list(tool_ids), agent_id),
    )


async def remove_grants(connection: Connection, agent_id: str, tool_ids: Sequence[str]) -> None:
    """Take tools from an agent."""
    await connection.execute(
        "DELETE FROM tool_grant WHERE agent_id = %s AND tool_id = ANY(%s)", (agent_id, list(tool_ids))
    )


async def ids_with_tag(connection: Connection, tag: str) -> list[str]:
    """The tools that bear the tag."""
    rows = await fetch_all(connection, "SELECT id FROM tool WHERE archived_at IS NULL AND %s = ANY(tags)", (tag,))
    return [row["id"] for row in rows]


async def add_tools(connection: Connection, microdao_id: str, created_by: str, rows: Sequence[dict[str, Any]]) -> None:
    """Add tools at their version 1, with their aliases; what is taken (id, name, function name, alias) stays as it is.

    Rows have the fields of a definition, ``id``, ``name``, ``definition_hash``, and maybe ``tags``, ``aliases``,
    ``active``. In a pipeline the statements travel together.
    """
    entries = Jsonb([{"tags": [], "aliases": [], "active": True, **row} for row in rows])
    await connection.execute(
        "INSERT INTO tool (id, microdao_id, name, active_version, active, tags)"
        " SELECT id, %s, name, 1, active, tags FROM jsonb_to_recordset(%s)"
        " AS entry (id text, name text, active boolean, tags text[]) ON CONFLICT DO NOTHING",
        (microdao_id, entries),
    )
    await connection.execute(_ADD_FIRST_VERSIONS, (microdao_id, created_by, entries))
    await connection.execute(
        "INSERT INTO tool_alias (microdao_id, alias, tool_id) SELECT %s, alias, tool.id FROM jsonb_to_recordset(%s)"
        " AS entry (id text, aliases text[]) JOIN tool USING (id) CROSS JOIN unnest(entry.aliases) AS alias"
        " WHERE tool.archived_at IS NULL ON CONFLICT DO NOTHING",
        (microdao_id, entries),
    )


async def add_documents(connection: Connection, microdao_id: str, documents: Sequence[dict[str, str]]) -> None:
    """Add the help pages to a microDAO that has no document."""
    await connection.execute(
        "INSERT INTO document (id, microdao_id, title, body, source) SELECT id, %s, title, body, source"
        " FROM jsonb_to_recordset(%s) AS page (id text, title text, body text, source text)"
        " WHERE NOT EXISTS (SELECT 1 FROM document) ON CONFLICT DO NOTHING",
        (microdao_id, Jsonb(list(documents))),
    )
