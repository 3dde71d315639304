"""The one execution path: admit a call, write its row, run it, store the outcome.

The tool runs in a savepoint of the transaction that stores its outcome: a process killed midway leaves neither effect
nor outcome, and the next delivery runs it; a concurrent delivery waits for the row and finds the outcome.
"""

import asyncio
import json
import time
import traceback
from dataclasses import dataclass
from typing import Any

import psycopg

from shared.db.database import Connection, Row
from shared.errors import ConfidentialDenied, IdempotencyConflict, NotFound
from shared.ids import derived_id, new_id
from shared.observability import Log
from shared.policy.decision import Resource, authorize
from shared.policy.principal import Principal
from shared.tools import store, store_executions
from shared.tools.arguments import args_hash, check_args
from shared.tools.catalogue import canonical_name
from shared.tools.executors import EXECUTORS
from shared.tools.lookup import unknown_tool
from shared.tools.model import CONFIDENTIAL_RISKS, Invocation, Tool, ToolCallRequest, ToolFailed, ToolOutcome
from shared.usage.events import UsageEvent, record

_log = Log("tools")


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """One run of a tool, and how it stands."""

    tool: Tool
    microdao_id: str
    agent_id: str
    args: dict[str, Any]
    session_id: str | None
    flow_id: str | None
    outcome: ToolOutcome

    @property
    def is_finished(self) -> bool:
        """Whether the outcome is final."""
        return self.outcome.status not in ("queued", "running")


async def begin(connection: Connection, principal: Principal, request: ToolCallRequest) -> tuple[Execution, bool]:
    """Admit the call and write its row; True with a new execution, False with the one that took the key before.

    Raises NotFound (agent, tool), Unauthorized, ConfidentialDenied, InvalidArgs, IdempotencyConflict.
    """
    tool = await _admit(connection, principal, request)
    check_args(tool, request.args)
    fingerprint = args_hash(tool, request)
    execution = _new_execution(tool, request)
    execution_id = execution.outcome.execution_id
    if await store_executions.insert_execution(connection, execution_id, tool, request, fingerprint):
        return execution, True
    return await _earlier(connection, str(request.idempotency_key), fingerprint), False


async def run(connection: Connection, execution: Execution, task_token: str | None = None) -> ToolOutcome:
    """Run an execution whose row this transaction holds and store outcome and usage; once finished, only report."""
    if execution.is_finished:
        return execution.outcome
    outcome = await _attempt(connection, execution)
    await store_executions.finish_execution(connection, outcome, task_token)
    await record(connection, _usage_of(execution, outcome))
    return outcome


async def lock(connection: Connection, execution_id: str) -> Execution:
    """The execution, held for this transaction. Raises NotFound."""
    return _found(execution_id, await store_executions.lock_execution(connection, execution_id))


async def find(connection: Connection, execution_id: str) -> Execution:
    """The execution as it stands, without waiting for whoever runs it. Raises NotFound."""
    return _found(execution_id, await store_executions.find_execution(connection, execution_id))


async def _admit(connection: Connection, principal: Principal, request: ToolCallRequest) -> Tool:
    canonical = canonical_name(request.tool)
    row = await store.find_for_call(connection, request.agent_id, request.tool, canonical)
    if row is None:
        raise NotFound(f"no agent {request.agent_id!r} in this microDAO", param="agent_id")
    if row["id"] is None:
        raise await unknown_tool(connection, request.tool)
    tool = store.tool_from(row)
    authorize(principal, "tool.invoke", Resource("Tool", tool.name, request.microdao_id), {"granted": row["granted"]})
    if not tool.active:
        raise NotFound(f"the tool {tool.name!r} is not active", param="tool")
    if request.confidential and tool.risk not in CONFIDENTIAL_RISKS:
        raise ConfidentialDenied(f"{tool.name} is of risk {tool.risk}; a confidential flow may use A and B only")
    return tool


async def _earlier(connection: Connection, idempotency_key: str, fingerprint: str) -> Execution:
    row = await store_executions.find_by_key(connection, idempotency_key)
    if row is None or row["args_hash"] != fingerprint:
        raise IdempotencyConflict(
            "this idempotency key was used for another call; take a new key", param="idempotency_key"
        )
    return _execution_from(row)


async def _attempt(connection: Connection, execution: Execution) -> ToolOutcome:
    tool, started = execution.tool, time.perf_counter()
    result, failure = None, None
    try:
        async with connection.transaction(), asyncio.timeout(tool.timeout_ms / 1000):
            result = await _execute(connection, execution)
    except ToolFailed as error:
        failure = error
    except TimeoutError:
        failure = ToolFailed(f"{tool.name} did not finish within {tool.timeout_ms} ms", code="tool_timeout")
    except psycopg.OperationalError:
        raise  # the database, not the tool: nothing is stored and the next delivery tries again
    except Exception as error:
        _log_fault(execution, error)
        failure = ToolFailed(f"{tool.name} broke; the log has the cause under this execution's id", code="internal")
    return ToolOutcome(
        execution_id=execution.outcome.execution_id,
        tool_name=tool.name,
        status="failed" if failure else "succeeded",
        result=result,
        error_code=failure.code if failure else None,
        error_message=failure.message if failure else None,
        ms=round((time.perf_counter() - started) * 1000),
    )


async def _execute(connection: Connection, execution: Execution) -> object:
    invocation = Invocation(execution.outcome.execution_id, execution.microdao_id, execution.agent_id)
    result = await EXECUTORS[execution.tool.executor](connection, execution.tool, execution.args, invocation)
    json.dumps(result, allow_nan=False)  # a result that is no JSON must fail here, inside the savepoint
    return result


def _log_fault(execution: Execution, error: Exception) -> None:
    """Where it broke, not what it said: an exception's text may quote arguments."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    _log.warning(
        "tool broke",
        tool=execution.tool.name,
        execution_id=execution.outcome.execution_id,
        error=type(error).__name__,
        at=f"{frame.filename}:{frame.lineno}",
    )


def _usage_of(execution: Execution, outcome: ToolOutcome) -> UsageEvent:
    return UsageEvent(
        id=derived_id("use", outcome.execution_id),
        microdao_id=execution.microdao_id,
        kind="tool",
        subject=execution.tool.name,
        agent_id=execution.agent_id,
        flow_id=execution.flow_id,
        session_id=execution.session_id,
        failed=outcome.status != "succeeded",
        cost_microusd=outcome.cost_microusd,
        latency_ms=outcome.ms or 0,
    )


def _new_execution(tool: Tool, request: ToolCallRequest) -> Execution:
    return Execution(
        tool=tool,
        microdao_id=request.microdao_id,
        agent_id=request.agent_id,
        args=request.args,
        session_id=request.session_id,
        flow_id=request.flow_id,
        outcome=ToolOutcome(new_id("exec"), tool.name, "queued"),
    )


def _found(execution_id: str, row: Row | None) -> Execution:
    if row is None:
        raise NotFound(f"no tool execution {execution_id!r}")
    return _execution_from(row)


def _execution_from(row: Row) -> Execution:
    outcome = ToolOutcome(
        execution_id=row["id"],
        tool_name=row["name"],
        **{field: row[field] for field in ("status", "result", "error_code", "error_message", "ms", "cost_microusd")},
    )
    return Execution(
        tool=store.tool_from({**row, "id": row["tool_id"]}),
        outcome=outcome,
        **{field: row[field] for field in ("microdao_id", "agent_id", "args", "session_id", "flow_id")},
    )
