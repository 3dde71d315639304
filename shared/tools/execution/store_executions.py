"""SQL of tool executions: the audit log and the guard against running twice."""

from psycopg.types.json import Jsonb

from shared.db.database import Connection, Row, fetch_all, fetch_one
from shared.tools.model import Tool, ToolCallRequest, ToolOutcome

_EXECUTION = (
    "SELECT tool_execution.*, coalesce(lease_until > now(), false) AS is_leased, tool.name, tool.active,"
    " tool_version.version, tool_version.description, tool_version.parameters, tool_version.risk,"
    " tool_version.executor, tool_version.config, tool_version.timeout_ms, tool_version.idempotent,"
    " tool_version.result_schema, tool_version.cost_microusd AS tool_cost_microusd,"
    " tool_version.rate_limit_per_minute, tool_version.environments"
    " FROM tool_execution JOIN tool ON tool.id = tool_execution.tool_id"
    " JOIN tool_version ON tool_version.tool_id = tool_execution.tool_id"
    " AND tool_version.version = tool_execution.tool_version"
)


async def insert_execution(
    connection: Connection, execution_id: str, tool: Tool, request: ToolCallRequest, args_hash: str
) -> bool:
    """Add a queued execution; False when the idempotency key is taken. Waits for a rival's open transaction."""
    row = await fetch_one(
        connection,
        "INSERT INTO tool_execution (id, microdao_id, agent_id, tool_id, tool_version, idempotency_key, args,"
        " args_hash, session_id, user_id, flow_id, step_id, requested_by, confidential, depth)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
        " ON CONFLICT (microdao_id, idempotency_key) DO NOTHING RETURNING id",
        (
            execution_id,
            request.microdao_id,
            request.agent_id,
            tool.id,
            tool.version,
            request.idempotency_key,
            Jsonb(request.args),
            args_hash,
            request.session_id,
            request.user_id,
            request.flow_id,
            request.step_id,
            request.requested_by,
            request.confidential,
            request.depth,
        ),
    )
    return row is not None


async def find_by_key(connection: Connection, idempotency_key: str) -> Row | None:
    """The execution that took this key, with its tool version."""
    return await fetch_one(connection, f"{_EXECUTION} WHERE tool_execution.idempotency_key = %s", (idempotency_key,))


async def find_execution(connection: Connection, execution_id: str) -> Row | None:
    """The execution with its tool version."""
    return await fetch_one(connection, f"{_EXECUTION} WHERE tool_execution.id = %s", (execution_id,))


async def lock_execution(connection: Connection, execution_id: str) -> Row | None:
    """The execution with its tool version, held for this transaction. Waits for a rival that runs it."""
    return await fetch_one(
        connection, f"{_EXECUTION} WHERE tool_execution.id = %s FOR UPDATE OF tool_execution", (execution_id,)
    )


async def set_task_token(connection: Connection, execution_id: str, task_token: str) -> None:
    """Note which step waits for the execution."""
    await connection.execute("UPDATE tool_execution SET task_token = %s WHERE id = %s", (task_token, execution_id))


async def lease_execution(connection: Connection, execution_id: str, attempts: int, lease_s: float) -> None:
    """Give an execution to whoever asks, for so long."""
    await connection.execute(
        "UPDATE tool_execution SET status = 'running', attempts = %s, started_at = now(),"
        " lease_until = now() + make_interval(secs => %s) WHERE id = %s",
        (attempts, lease_s, execution_id),
    )


async def finish_execution(connection: Connection, outcome: ToolOutcome, attempts: int) -> Row | None:
    """Write the outcome of the run that is the ``attempts``-th; its task token, or None if it was taken over."""
    return await fetch_one(
        connection,
        "UPDATE tool_execution SET status = %s, result = %s, error_code = %s, error_message = %s, ms = %s,"
        " cost_microusd = %s, attempts = %s, lease_until = NULL,"
        " started_at = clock_timestamp() - make_interval(secs => %s), finished_at = clock_timestamp()"
        " WHERE id = %s AND status IN ('queued', 'running') AND attempts <= %s RETURNING task_token",
        (
            outcome.status,
            None if outcome.result is None else Jsonb(outcome.result),
            outcome.error_code,
            outcome.error_message,
            outcome.ms,
            outcome.cost_microusd,
            attempts,
            (outcome.ms or 0) / 1000,
            outcome.execution_id,
            attempts,
        ),
    )


async def lock_lost(connection: Connection, limit: int = 100) -> list[Row]:
    """Executions of every microDAO whose lease ran out, held for this transaction (system role)."""
    return await fetch_all(
        connection,
        f"{_EXECUTION} WHERE status = 'running' AND lease_until < now() ORDER BY lease_until LIMIT %s"
        " FOR UPDATE OF tool_execution SKIP LOCKED",
        (limit,),
    )


async def requeue_execution(connection: Connection, execution_id: str) -> None:
    """Make a lost execution ready to be run again."""
    await connection.execute(
        "UPDATE tool_execution SET status = 'queued', lease_until = NULL WHERE id = %s", (execution_id,)
    )


async def list_executions(
    connection: Connection,
    *,
    agent_id: str | None,
    tool_id: str | None,
    status: str | None,
    before: str | None,
    limit: int,
) -> list[Row]:
    """Audit rows, newest first, without arguments and results."""
    return await fetch_all(
        connection,
        "SELECT tool_execution.id, tool.name, tool_version, agent_id, requested_by, status, args_hash, session_id,"
        " flow_id, step_id, attempts, error_code, error_message, ms, cost_microusd, tool_execution.created_at,"
        " started_at, finished_at FROM tool_execution JOIN tool ON tool.id = tool_execution.tool_id"
        " WHERE (%(agent_id)s::text IS NULL OR agent_id = %(agent_id)s)"
        " AND (%(tool_id)s::text IS NULL OR tool_id = %(tool_id)s)"
        " AND (%(status)s::text IS NULL OR status = %(status)s)"
        " AND (%(before)s::text IS NULL OR tool_execution.id < %(before)s)"
        " ORDER BY tool_execution.id DESC LIMIT %(limit)s",
        {"agent_id": agent_id, "tool_id": tool_id, "status": status, "before": before, "limit": limit},
    )
