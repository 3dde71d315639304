"""An execution: one run of a tool as its row tells it."""

from dataclasses import dataclass, replace
from typing import Any, Final, Self

from shared.db.database import Connection, Row
from shared.errors import IdempotencyConflict, NotFound
from shared.ids import derived_id, new_id
from shared.policy.policy import Policy
from shared.policy.principal import Principal
from shared.tools.arguments import args_hash
from shared.tools.catalogue import store
from shared.tools.execution import store_executions
from shared.tools.execution.admission import admit, count_run
from shared.tools.model import Invocation, Tool, ToolCallRequest, ToolOutcome
from shared.usage.events import UsageEvent

_CARRIED: Final = ("session_id", "user_id", "flow_id", "confidential", "depth")
"""From the request by the row to whatever runs the tool, in this process or another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """One run of a tool, and how it stands. ``attempts`` counts those who took it up, with the one who holds it now."""

    tool: Tool
    microdao_id: str
    agent_id: str
    args: dict[str, Any]
    requested_by: str
    session_id: str | None
    user_id: str | None
    flow_id: str | None
    confidential: bool
    depth: int
    outcome: ToolOutcome
    attempts: int = 0
    is_leased: bool = False

    @property
    def id(self) -> str:
        """The execution's id, which is the idempotency key of what it does."""
        return self.outcome.execution_id

    @property
    def is_finished(self) -> bool:
        """Whether the outcome is final."""
        return self.outcome.status not in ("queued", "running")

    def taken_up(self) -> Self:
        """As the one sees it who takes it up now."""
        return replace(self, attempts=self.attempts + 1, is_leased=True)

    def invocation(self, deadline: float) -> Invocation:
        """What the executor is told."""
        kept = ("microdao_id", "agent_id", "requested_by", *_CARRIED)
        fields = {field: getattr(self, field) for field in kept}
        return Invocation(execution_id=self.id, attempt=self.attempts, deadline=deadline, **fields)

    def usage(self, outcome: ToolOutcome) -> UsageEvent:
        """What the run is charged."""
        return UsageEvent(
            id=derived_id("use", self.id),
            microdao_id=self.microdao_id,
            kind="tool",
            subject=self.tool.name,
            agent_id=self.agent_id,
            flow_id=self.flow_id,
            session_id=self.session_id,
            failed=outcome.status != "succeeded",
            cost_microusd=outcome.cost_microusd,
            latency_ms=outcome.ms or 0,
        )


async def begin(
    connection: Connection, policy: Policy, principal: Principal, request: ToolCallRequest
) -> tuple[Execution, bool]:
    """Admit the call and write its row; True with a new execution, False with the one that took the key before.

    Raises what ``admit`` raises, RateLimitExceeded and IdempotencyConflict.
    """
    tool = await admit(connection, policy, principal, request)
    fingerprint = args_hash(tool, request)
    execution = _new(tool, request)
    earlier = await _add(connection, execution, request, fingerprint)
    if earlier is not None:
        return earlier, False
    await count_run(policy, principal, tool, request)  # raising takes the row back
    return execution, True


async def lock(connection: Connection, execution_id: str) -> Execution:
    """The execution, held for this transaction. Raises NotFound."""
    return _found(execution_id, await store_executions.lock_execution(connection, execution_id))


async def find(connection: Connection, execution_id: str) -> Execution:
    """The execution as it stands, without waiting for whoever runs it. Raises NotFound."""
    return _found(execution_id, await store_executions.find_execution(connection, execution_id))


async def _add(
    connection: Connection, execution: Execution, request: ToolCallRequest, fingerprint: str
) -> Execution | None:
    """Write the row; the execution that took the key before, if one did."""
    for _ in range(2):  # the sweep may remove the earlier one in between: then the key is free again
        if await store_executions.insert_execution(connection, execution.id, execution.tool, request, fingerprint):
            return None
        row = await store_executions.find_by_key(connection, str(request.idempotency_key))
        if row is not None and row["args_hash"] == fingerprint:
            return execution_from(row)
        if row is not None:
            break
    raise IdempotencyConflict("this idempotency key was used for another call; take a new key", param="idempotency_key")


def _new(tool: Tool, request: ToolCallRequest) -> Execution:
    kept = ("microdao_id", "agent_id", "args", "requested_by", *_CARRIED)
    outcome = ToolOutcome(new_id("exec"), tool.name, "queued")
    return Execution(tool=tool, outcome=outcome, **{field: getattr(request, field) for field in kept})


def _found(execution_id: str, row: Row | None) -> Execution:
    if row is None:
        raise NotFound(f"no tool execution {execution_id!r}")
    return execution_from(row)


def execution_from(row: Row) -> Execution:
    """The execution in a row of ``store_executions``."""
    stands = ("status", "result", "error_code", "error_message", "ms", "cost_microusd", "task_token")
    kept = ("microdao_id", "agent_id", "args", "requested_by", *_CARRIED)
    # The version's own cost: the row's is what this run cost.
    tool = store.tool_from({**row, "id": row["tool_id"], "cost_microusd": row["tool_cost_microusd"]})
    outcome = ToolOutcome(execution_id=row["id"], tool_name=row["name"], **{field: row[field] for field in stands})
    return Execution(
        tool=tool,
        outcome=outcome,
        attempts=row["attempts"],
        is_leased=row["is_leased"],
        **{field: row[field] for field in kept},
    )
