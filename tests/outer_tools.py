"""Tools that call services, put into a microDAO's catalogue by hand."""

from typing import Any

from psycopg.types.json import Jsonb

from shared.db.database import Database
from shared.ids import new_id
from shared.policy.principal import Principal, agent_principal
from shared.tools.model import ToolCallRequest

AGENT = "agent:sofia"


async def add_tool(database: Database, microdao: str, name: str, config: dict[str, Any], **fields: Any) -> str:
    """Add a tool and grant it to ``agent:sofia``; its id."""
    tool_id = new_id("tool")
    version = {
        "executor": "http",
        "idempotent": False,
        "timeout_ms": 3000,
        "risk": "C",
        "parameters": {"type": "object"},
    }
    version |= fields
    async with database.system() as connection:
        await connection.execute(
            "INSERT INTO tool (id, microdao_id, name, active_version) VALUES (%s, %s, %s, 1)", (tool_id, microdao, name)
        )
        await connection.execute(
            "INSERT INTO tool_version (microdao_id, tool_id, version, definition_hash, description, parameters, risk,"
            " executor, config, timeout_ms, idempotent)"
            " VALUES (%s, %s, 1, 'hash', 'A test tool', %s, %s, %s, %s, %s, %s)",
            (
                microdao,
                tool_id,
                Jsonb(version["parameters"]),
                version["risk"],
                version["executor"],
                Jsonb(config),
                version["timeout_ms"],
                version["idempotent"],
            ),
        )
        await connection.execute(
            "INSERT INTO tool_grant (microdao_id, agent_id, tool_id) VALUES (%s, %s, %s)", (microdao, AGENT, tool_id)
        )
    return tool_id


def request(microdao: str, tool: str, **args: Any) -> tuple[Principal, ToolCallRequest]:
    """What ``Toolbox.execute`` takes for a call by the agent itself."""
    return agent_principal(AGENT, microdao), ToolCallRequest(microdao, AGENT, tool, args, AGENT)


async def dump(database: Database) -> str:
    """Every row of every table as text."""
    texts = []
    async with database.system() as connection:
        cursor = await connection.execute(
            "SELECT table_name FROM information_schema.table_privileges WHERE privilege_type = 'SELECT'"
            " AND table_schema = 'public' AND grantee = 'daarion_system'"
        )
        for row in await cursor.fetchall():
            rows = await connection.execute(f'SELECT one::text AS text FROM "{row["table_name"]}" AS one')
            texts += [one["text"] for one in await rows.fetchall()]
    return "\n".join(texts)
