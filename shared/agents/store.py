"""SQL of agents, blueprints and sessions."""

from typing import Any

from psycopg.types.json import Json, Jsonb

from shared.db.database import Connection, Database, Row, fetch_all, fetch_one

_AGENT = """
SELECT agent.agent_id, agent.name AS agent_name, blueprint.id AS blueprint_id, version.version, version.definition
FROM agent
JOIN blueprint ON blueprint.microdao_id = agent.microdao_id AND blueprint.code = agent.blueprint_code
JOIN blueprint_version version ON version.blueprint_id = blueprint.id AND version.version = blueprint.active_version
"""


async def find_agent(database: Database, microdao_id: str, agent_id: str) -> Row | None:
    """The agent with its active blueprint version, in one round trip."""
    rows = await database.run(f"{_AGENT} WHERE agent.agent_id = %s", (agent_id,), microdao_id=microdao_id)
    return rows[0] if rows else None


async def find_agent_by_model(database: Database, microdao_id: str, model: str) -> Row | None:
    """The first agent bound to this blueprint, or for ``auto`` the microDAO's oldest, in one round trip."""
    rows = await database.run(
        f"{_AGENT} WHERE blueprint.code = %(model)s OR %(model)s = 'auto'"
        " ORDER BY agent.created_at, agent.agent_id LIMIT 1",
        {"model": model},
        microdao_id=microdao_id,
    )
    return rows[0] if rows else None


async def list_agents(connection: Connection, after: str, limit: int) -> list[Row]:
    """Agents of the transaction's microDAO, by id."""
    return await fetch_all(
        connection,
        "SELECT agent_id, microdao_id, name, blueprint_code AS blueprint, created_at FROM agent"
        " WHERE agent_id > %s ORDER BY agent_id LIMIT %s",
        (after, limit),
    )


async def insert_agent(connection: Connection, microdao_id: str, agent_id: str, name: str, code: str) -> Row | None:
    """Add an agent; None when its id is taken."""
    return await fetch_one(
        connection,
        "INSERT INTO agent (microdao_id, agent_id, name, blueprint_code) VALUES (%s, %s, %s, %s)"
        " ON CONFLICT DO NOTHING RETURNING agent_id, microdao_id, name, blueprint_code AS blueprint, created_at",
        (microdao_id, agent_id, name, code),
    )


async def list_blueprints(connection: Connection) -> list[Row]:
    """Every blueprint with its active version's definition, and whether an agent is bound to it."""
    return await fetch_all(
        connection,
        "SELECT blueprint.id, blueprint.code, version.version, version.definition, blueprint.created_at,"
        " EXISTS (SELECT FROM agent WHERE agent.microdao_id = blueprint.microdao_id"
        " AND agent.blueprint_code = blueprint.code) AS has_agent"
        " FROM blueprint JOIN blueprint_version version"
        " ON version.blueprint_id = blueprint.id AND version.version = blueprint.active_version"
        " ORDER BY blueprint.created_at, blueprint.code",
    )


async def insert_blueprint(
    connection: Connection, microdao_id: str, blueprint_id: str, code: str, definition: dict[str, Any]
) -> None:
    """Add a blueprint with its first version; one whose code exists is left as it is."""
    await connection.execute(
        "WITH added AS (INSERT INTO blueprint (id, microdao_id, code, active_version) VALUES (%s, %s, %s, 1)"
        " ON CONFLICT DO NOTHING RETURNING id, microdao_id)"
        " INSERT INTO blueprint_version (microdao_id, blueprint_id, version, definition)"
        " SELECT microdao_id, id, 1, %s FROM added",
        (blueprint_id, microdao_id, code, Jsonb(definition)),
    )


async def find_session(connection: Connection, session_id: str) -> Row | None:
    """The session with its agent's name and the blueprint version that it is pinned to."""
    return await fetch_one(
        connection,
        "SELECT session.*, agent.name AS agent_name, version.definition FROM session"
        " JOIN agent ON agent.microdao_id = session.microdao_id AND agent.agent_id = session.agent_id"
        " JOIN blueprint_version version"
        " ON version.blueprint_id = session.blueprint_id AND version.version = session.blueprint_version"
        " WHERE session.id = %s",
        (session_id,),
    )


async def insert_session(
    connection: Connection,
    *,
    session_id: str,
    microdao_id: str,
    agent_id: str,
    blueprint_id: str,
    blueprint_version: int,
    channel_id: str | None,
    user_id: str | None,
    turn_id: str,
) -> None:
    """Open a session that is answering its first request."""
    await connection.execute(
        "INSERT INTO session"
        " (id, microdao_id, agent_id, blueprint_id, blueprint_version, channel_id, user_id, turn_id, state)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, 'RUNNING')",
        (session_id, microdao_id, agent_id, blueprint_id, blueprint_version, channel_id, user_id, turn_id),
    )


async def occupy_session(connection: Connection, session_id: str, turn_id: str, stale_after_s: float) -> bool:
    """Begin a turn: False while another request is being answered (one that fell silent is taken over)."""
    row = await fetch_one(
        connection,
        "UPDATE session SET state = 'RUNNING', turn_id = %s, updated_at = now() WHERE id = %s"
        " AND (state <> 'RUNNING' OR updated_at < now() - make_interval(secs => %s)) RETURNING id",
        (turn_id, session_id, stale_after_s),
    )
    return row is not None


async def renew_session(connection: Connection, session_id: str, turn_id: str) -> bool:
    """Say that the turn lives, and lock its session for this transaction; False when it lost the session."""
    row = await fetch_one(
        connection,
        "UPDATE session SET updated_at = now() WHERE id = %s AND turn_id = %s RETURNING id",
        (session_id, turn_id),
    )
    return row is not None


async def release_session(
    connection: Connection, session_id: str, *, state: str, iterations: int, cost_microusd: int, result: str | None
) -> None:
    """End the turn that has the session, and add up what it took."""
    await connection.execute(
        "UPDATE session SET state = %s, iteration = iteration + %s, cost_microusd = cost_microusd + %s,"
        " result = coalesce(%s, result), turn_id = NULL, updated_at = now() WHERE id = %s",
        (state, iterations, cost_microusd, result, session_id),
    )


async def fail_silent_sessions(connection: Connection, silent_for_s: float) -> int:
    """End the turns that were not heard of for so long; how many (system role)."""
    cursor = await connection.execute(
        "UPDATE session SET state = 'FAILED', turn_id = NULL, updated_at = now() WHERE id IN ("
        " SELECT id FROM session WHERE state = 'RUNNING' AND updated_at < now() - make_interval(secs => %s)"
        " ORDER BY id FOR UPDATE SKIP LOCKED)",
        (silent_for_s,),
    )
    return cursor.rowcount


async def append_messages(
    connection: Connection, microdao_id: str, session_id: str, messages: list[dict[str, Any]]
) -> None:
    """Add messages after the last one."""
    await connection.execute(
        "INSERT INTO session_message (microdao_id, session_id, position, message)"
        " SELECT %s, %s, added.position + last.position, added.message"
        " FROM (SELECT coalesce(max(position), 0) AS position FROM session_message WHERE session_id = %s) last,"
        " unnest(%s::json[]) WITH ORDINALITY AS added (message, position)",
        (microdao_id, session_id, session_id, [Json(message) for message in messages]),
    )


async def list_messages(connection: Connection, session_id: str) -> list[dict[str, Any]]:
    """The session's messages in order, in OpenAI's form."""
    rows = await fetch_all(
        connection, "SELECT message FROM session_message WHERE session_id = %s ORDER BY position", (session_id,)
    )
    return [row["message"] for row in rows]


async def list_sessions(connection: Connection, user_id: str | None, before: str | None, limit: int) -> list[Row]:
    """Sessions, of one end user or all, newest first."""
    return await fetch_all(
        connection,
        "SELECT session.id AS session_id, session.agent_id, session.user_id, blueprint.code AS blueprint,"
        " session.state, session.created_at FROM session JOIN blueprint ON blueprint.id = session.blueprint_id"
        " WHERE (%(before)s::text IS NULL OR session.id < %(before)s)"
        " AND (%(user_id)s::text IS NULL OR session.user_id = %(user_id)s) ORDER BY session.id DESC LIMIT %(limit)s",
        {"user_id": user_id, "before": before, "limit": limit},
    )


async def delete_session(connection: Connection, session_id: str) -> bool:
    """Delete a session with its messages; whether there was one."""
    return (await connection.execute("DELETE FROM session WHERE id = %s", (session_id,))).rowcount > 0


async def count_sessions(connection: Connection, user_id: str | None) -> int:
    """How many sessions the transaction sees, of one end user or all."""
    row = await fetch_one(
        connection,
        "SELECT count(*) AS total FROM session WHERE %(user_id)s::text IS NULL OR user_id = %(user_id)s",
        {"user_id": user_id},
    )
    return int(row["total"]) if row else 0
