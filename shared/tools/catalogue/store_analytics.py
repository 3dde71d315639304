"""SQL of how tools are used."""

from collections.abc import Mapping, Sequence
from typing import Any

from psycopg import sql

from shared.db.database import Connection, Row, fetch_all

_KEYS = {
    "tool": sql.SQL("tool.name"),
    "agent": sql.SQL("run.agent_id"),
    "day": sql.SQL("to_char(run.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD')"),
}

_DENIED_KEYS = {
    "tool": sql.SQL("resource_id"),
    "agent": sql.SQL("agent_id"),
    "day": sql.SQL("to_char(minute AT TIME ZONE 'UTC', 'YYYY-MM-DD')"),
}
_DENIED = sql.SQL("""
FROM policy_denial WHERE action = 'tool.invoke' AND resource_kind = 'Tool'
    AND minute >= %(since)s AND minute < %(until)s
    AND (%(agent_id)s::text IS NULL OR agent_id = %(agent_id)s)
    AND (%(tool_name)s::text IS NULL OR resource_id = %(tool_name)s)
""")

# A run's milliseconds are measured only if it ran.
_FIGURES = sql.SQL("""
    count(*)::bigint AS runs, count(*) FILTER (WHERE run.status = 'succeeded')::bigint AS succeeded,
    count(*) FILTER (WHERE run.status = 'failed')::bigint AS failed,
    count(*) FILTER (WHERE run.status = 'unknown')::bigint AS unknown,
    count(*) FILTER (WHERE run.status IN ('queued', 'running'))::bigint AS unfinished,
    round(percentile_cont(0.5) WITHIN GROUP (ORDER BY run.ms))::int AS ms_p50,
    round(percentile_cont(0.95) WITHIN GROUP (ORDER BY run.ms))::int AS ms_p95,
    coalesce(sum(run.cost_microusd), 0)::bigint AS cost_microusd, max(run.created_at) AS last_used_at
""")
_MATCHES = sql.SQL("""
FROM tool_execution AS run JOIN tool ON tool.id = run.tool_id
WHERE run.created_at >= %(since)s AND run.created_at < %(until)s
    AND (%(agent_id)s::text IS NULL OR run.agent_id = %(agent_id)s)
    AND (%(tool_id)s::text IS NULL OR run.tool_id = %(tool_id)s)
""")


async def read_figures(connection: Connection, params: Mapping[str, Any], keys: Sequence[str] = ()) -> list[Row]:
    """The figures of the runs that match: one row per combination of ``keys``, most runs first, or one for all."""
    columns = [sql.SQL("{} AS {},").format(_KEYS[key], sql.Identifier(key)) for key in keys]
    by = sql.SQL(", ").join(sql.SQL(str(index)) for index in range(1, len(keys) + 1))
    ending = sql.SQL("GROUP BY {by} ORDER BY runs DESC, {by} LIMIT %(limit)s").format(by=by) if keys else sql.SQL("")
    query = sql.SQL(" ").join([sql.SQL("SELECT"), *columns, _FIGURES, _MATCHES, ending])
    return await (await connection.execute(query, params)).fetchall()


async def read_failures(connection: Connection, params: Mapping[str, Any], keys: Sequence[str] = ()) -> list[Row]:
    """How many runs ended with which error code, by ``keys``."""
    columns = [sql.SQL("{} AS {},").format(_KEYS[key], sql.Identifier(key)) for key in keys]
    by = sql.SQL(", ").join(sql.SQL(str(index)) for index in range(1, len(keys) + 2))
    query = sql.SQL(" ").join(
        [
            sql.SQL("SELECT"),
            *columns,
            sql.SQL("run.error_code AS code, count(*)::bigint AS runs"),
            _MATCHES,
            sql.SQL("AND run.error_code IS NOT NULL GROUP BY {by} ORDER BY {by}").format(by=by),
        ]
    )
    return await (await connection.execute(query, params)).fetchall()


async def read_denials(connection: Connection, params: Mapping[str, Any], keys: Sequence[str] = ()) -> list[Row]:
    """How many calls policy refused, by ``keys``, most first; one row for all without."""
    columns = [sql.SQL("{} AS {},").format(_DENIED_KEYS[key], sql.Identifier(key)) for key in keys]
    by = sql.SQL(", ").join(sql.SQL(str(index)) for index in range(1, len(keys) + 1))
    ending = sql.SQL("GROUP BY {by} ORDER BY denied DESC, {by} LIMIT %(limit)s").format(by=by) if keys else sql.SQL("")
    query = sql.SQL(" ").join(
        [sql.SQL("SELECT"), *columns, sql.SQL("coalesce(sum(count), 0)::bigint AS denied"), _DENIED, ending]
    )
    return await (await connection.execute(query, params)).fetchall()


async def read_unused(connection: Connection, params: Mapping[str, Any]) -> list[Row]:
    """Active tools without a run in the period, when they were last used, and how many agents may use them."""
    return await fetch_all(
        connection,
        "SELECT name, (SELECT max(created_at) FROM tool_execution WHERE tool_id = tool.id) AS last_used_at,"
        " (SELECT count(*) FROM tool_grant WHERE tool_id = tool.id)::int AS agents FROM tool"
        " WHERE active AND archived_at IS NULL AND (%(tool_id)s::text IS NULL OR id = %(tool_id)s)"
        " AND NOT EXISTS (SELECT 1 FROM tool_execution AS run WHERE run.tool_id = tool.id"
        " AND run.created_at >= %(since)s AND run.created_at < %(until)s"
        " AND (%(agent_id)s::text IS NULL OR run.agent_id = %(agent_id)s)) ORDER BY name LIMIT %(limit)s",
        params,
    )
