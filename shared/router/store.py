"""SQL of flows and their steps."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from psycopg.types.json import Jsonb

from shared.db.database import Connection, Row, fetch_all, fetch_one
from shared.router.flow import Failure, FlowState, Step


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFlow:
    """A flow's row: whose it is, how it stands, and what its driver was last told.

    ``revision`` counts the writes; ``idle_s`` is how long ago the last one was.
    """

    id: str
    microdao_id: str
    agent_id: str
    user_id: str | None
    requested_by: str
    fields: dict[str, str]
    state: FlowState
    revision: int
    next: dict[str, Any]
    idle_s: float


_AS_STORED = ("id", "microdao_id", "agent_id", "user_id", "requested_by", "revision", "next", "idle_s")


async def insert_flow(
    connection: Connection,
    *,
    flow_id: str,
    microdao_id: str,
    agent_id: str,
    requested_by: str,
    mode: str,
    request: dict[str, Any],
    request_hash: str,
    state: FlowState,
) -> bool:
    """Add a flow and its steps; False when its idempotency key is taken. Waits for a rival's open transaction."""
    row = await fetch_one(
        connection,
        "INSERT INTO flow (id, microdao_id, agent_id, requested_by, state, mode, request, request_hash,"
        " idempotency_key, transitions) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
        " ON CONFLICT (microdao_id, idempotency_key) DO NOTHING RETURNING id",
        (
            flow_id,
            microdao_id,
            agent_id,
            requested_by,
            state.state,
            mode,
            Jsonb(request),
            request_hash,
            request["idempotency_key"],
            list(state.transitions),
        ),
    )
    if row is not None:
        await _insert_steps(connection, microdao_id, flow_id, state.steps)
    return row is not None


async def _insert_steps(connection: Connection, microdao_id: str, flow_id: str, steps: Sequence[Step]) -> None:
    async with connection.cursor() as cursor:
        await cursor.executemany(
            "INSERT INTO flow_step (microdao_id, flow_id, position, step_id, type, definition)"
            " VALUES (%s, %s, %s, %s, %s, %s)",
            [
                (microdao_id, flow_id, position, step.id, step.type, Jsonb(step.definition()))
                for position, step in enumerate(steps)
            ],
        )


async def find_by_key(connection: Connection, idempotency_key: str) -> Row | None:
    """The id and the request's hash of the flow that took this key."""
    query = "SELECT id, request_hash FROM flow WHERE idempotency_key = %s"
    return await fetch_one(connection, query, (idempotency_key,))


async def load_flow(connection: Connection, flow_id: str) -> StoredFlow | None:
    """The flow as the engine needs it, without outputs."""
    row = await fetch_one(
        connection,
        "SELECT id, microdao_id, agent_id, requested_by, state, transitions, cost_microusd, error, revision, next,"
        " request ->> 'input' AS input, request ->> 'goal' AS goal, request -> 'context' ->> 'user_id' AS user_id,"
        " (request -> 'constraints' ->> 'max_cost_microusd')::bigint AS max_cost_microusd,"
        " extract(epoch FROM now() - updated_at)::float8 AS idle_s FROM flow WHERE id = %s",
        (flow_id,),
    )
    if row is None:
        return None
    steps = await fetch_all(
        connection,
        "SELECT step_id, type, definition, state, attempts, fell_back, execution_id, cost_microusd, error"
        " FROM flow_step WHERE flow_id = %s ORDER BY position",
        (flow_id,),
    )
    return StoredFlow(
        fields={"input": row["input"], "goal": row["goal"]},
        state=FlowState(
            state=row["state"],
            steps=tuple(_step_from(step) for step in steps),
            transitions=tuple(row["transitions"]),
            cost_microusd=row["cost_microusd"],
            max_cost_microusd=row["max_cost_microusd"],
            error=_failure(row["error"]),
        ),
        **{name: row[name] for name in _AS_STORED},
    )


async def save_flow(
    connection: Connection, flow: StoredFlow, state: FlowState, next_: dict[str, Any]
) -> StoredFlow | None:
    """Write the flow's new state and what its driver is told; None when another driver wrote first."""
    row = await fetch_one(
        connection,
        "UPDATE flow SET state = %s, transitions = %s, cost_microusd = %s, error = %s, next = %s,"
        " revision = revision + 1, updated_at = now(), finished_at = CASE WHEN %s THEN now() END"
        " WHERE id = %s AND revision = %s AND finished_at IS NULL RETURNING revision",
        (
            state.state,
            list(state.transitions),
            state.cost_microusd,
            _json(state.error),
            Jsonb(next_),
            state.is_finished,
            flow.id,
            flow.revision,
        ),
    )
    if row is None:
        return None
    for position, (before, after) in enumerate(zip(flow.state.steps, state.steps, strict=True)):
        if before != after:
            await _save_step(connection, flow.id, position, after)
    return replace(flow, state=state, revision=row["revision"], next=next_, idle_s=0.0)


async def _save_step(connection: Connection, flow_id: str, position: int, step: Step) -> None:
    """Write a step's progress. Its clock starts with the first run and stops with the last."""
    await connection.execute(
        "UPDATE flow_step SET state = %(state)s, attempts = %(attempts)s, fell_back = %(fell_back)s,"
        " execution_id = %(execution_id)s, cost_microusd = %(cost)s, error = %(error)s,"
        " output = coalesce(%(output)s, output),"
        " started_at = CASE WHEN %(attempts)s > 0 THEN coalesce(started_at, clock_timestamp()) END,"
        " finished_at = CASE WHEN %(state)s IN ('succeeded', 'failed', 'skipped') THEN clock_timestamp() END"
        " WHERE flow_id = %(flow_id)s AND position = %(position)s",
        {
            "state": step.state,
            "attempts": step.attempts,
            "fell_back": step.fell_back,
            "execution_id": step.execution_id,
            "cost": step.cost_microusd,
            "error": _json(step.error),
            "output": Jsonb(step.output) if step.state == "succeeded" else None,
            "flow_id": flow_id,
            "position": position,
        },
    )


async def load_outputs(connection: Connection, flow_id: str, step_ids: Sequence[str]) -> dict[str, Any]:
    """The outputs of those of the named steps that succeeded, by step id."""
    rows = await fetch_all(
        connection,
        "SELECT step_id, output FROM flow_step WHERE flow_id = %s AND step_id = ANY(%s) AND state = 'succeeded'",
        (flow_id, list(step_ids)),
    )
    return {row["step_id"]: row["output"] for row in rows}


async def load_views(
    connection: Connection, flow_ids: Sequence[str], *, outputs: bool
) -> dict[str, tuple[Row, list[Row]]]:
    """What a reader sees, by flow id: the flow's row and its steps' in order, outputs only if asked for."""
    flows = await fetch_all(connection, "SELECT * FROM flow WHERE id = ANY(%s)", (list(flow_ids),))
    steps = await fetch_all(
        connection,
        "SELECT flow_id, step_id, path, type, state, attempts, started_at, finished_at, cost_microusd, error,"
        " CASE WHEN %s THEN output END AS output FROM flow_step WHERE flow_id = ANY(%s) ORDER BY flow_id, position",
        (outputs, list(flow_ids)),
    )
    return {flow["id"]: (flow, [step for step in steps if step["flow_id"] == flow["id"]]) for flow in flows}


async def list_flow_ids(connection: Connection, before: str | None, limit: int) -> list[str]:
    """Flows, newest first, before the flow ``before``."""
    rows = await fetch_all(
        connection,
        "SELECT id FROM flow WHERE %(before)s::text IS NULL OR id < %(before)s ORDER BY id DESC LIMIT %(limit)s",
        {"before": before, "limit": limit},
    )
    return [row["id"] for row in rows]


async def touch_flow(connection: Connection, flow_id: str, revision: int) -> None:
    """Say that the driver that wrote this revision is still at work."""
    await connection.execute("UPDATE flow SET updated_at = now() WHERE id = %s AND revision = %s", (flow_id, revision))


async def is_finished(connection: Connection, flow_id: str) -> bool | None:
    """Whether the flow has ended; None when there is no such flow."""
    row = await fetch_one(connection, "SELECT finished_at IS NOT NULL AS finished FROM flow WHERE id = %s", (flow_id,))
    return None if row is None else bool(row["finished"])


async def find_agent(connection: Connection, agent_id: str | None) -> str | None:
    """The named agent, or the microDAO's first one where none is named; None when there is none."""
    row = await fetch_one(
        connection,
        "SELECT agent_id FROM agent WHERE %(agent_id)s::text IS NULL OR agent_id = %(agent_id)s"
        " ORDER BY created_at, agent_id LIMIT 1",
        {"agent_id": agent_id},
    )
    return None if row is None else str(row["agent_id"])


async def tool_labels(connection: Connection, labels: Sequence[str]) -> set[str]:
    """Those of the labels that are the id, the name or an alias of a tool."""
    rows = await fetch_all(
        connection,
        "SELECT label FROM tool CROSS JOIN LATERAL (VALUES (id), (name)) AS its (label)"
        " WHERE archived_at IS NULL AND (id = ANY(%(labels)s) OR name = ANY(%(labels)s))"
        " UNION SELECT alias FROM tool_alias WHERE alias = ANY(%(labels)s)",
        {"labels": list(labels)},
    )
    return {row["label"] for row in rows}


async def list_unfinished(connection: Connection, after: str, limit: int) -> list[Row]:
    """Flows that have not ended, by id (system role); one not started yet counts once its starter had 3 s to do so."""
    return await fetch_all(
        connection,
        "SELECT id, microdao_id, execution_arn, executions FROM flow WHERE finished_at IS NULL AND id > %s"
        " AND (execution_arn IS NOT NULL OR updated_at < now() - interval '3 seconds') ORDER BY id LIMIT %s",
        (after, limit),
    )


async def claim_execution(connection: Connection, flow_id: str, executions: int) -> Row | None:
    """Count one more execution of an unfinished flow; None when a rival counted first."""
    return await fetch_one(
        connection,
        "UPDATE flow SET executions = executions + 1, execution_arn = NULL, updated_at = now()"
        " WHERE id = %s AND executions = %s AND finished_at IS NULL RETURNING executions, revision",
        (flow_id, executions),
    )


async def set_execution(connection: Connection, flow_id: str, executions: int, execution_arn: str) -> None:
    """Note the engine's name for the execution with this number."""
    await connection.execute(
        "UPDATE flow SET execution_arn = %s WHERE id = %s AND executions = %s", (execution_arn, flow_id, executions)
    )


def _step_from(row: Row) -> Step:
    progress = {name: row[name] for name in ("state", "attempts", "fell_back", "execution_id", "cost_microusd")}
    return Step.from_definition(
        row["step_id"], row["type"], row["definition"], error=_failure(row["error"]), **progress
    )


def _failure(value: dict[str, Any] | None) -> Failure | None:
    return Failure(**value) if value else None


def _json(failure: Failure | None) -> Jsonb | None:
    return Jsonb(asdict(failure)) if failure else None
