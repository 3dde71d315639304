"""Runs executions: inside one transaction where the tool works on our rows, between two where it reaches outside.

Inside: effect and outcome are one commit, so a process killed midway leaves neither. Outside: the first transaction
takes the execution up under a lease, the second stores the outcome if nobody took it up since. Of a process killed in
between the lease runs out, and then an idempotent tool runs again while any other's outcome is ``unknown``.
"""

import asyncio
import math
import random
import time
import traceback
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import replace

import psycopg

from shared.cloud.outbox import claim
from shared.db.database import Connection, Database
from shared.errors import ApiError, Unavailable
from shared.observability import Log
from shared.tools.execution import store_executions
from shared.tools.execution.execution import Execution, execution_from, find
from shared.tools.execution.results import Ran, check_result, outcome_of
from shared.tools.execution.retries import wait_before_next
from shared.tools.executors import Executors
from shared.tools.model import Tool, ToolFailed, ToolOutcome, ToolUncertain
from shared.tools.ports import InnerExecutor
from shared.usage.events import record

LEASE_SLACK_S = 30.0
"""What an execution may take beyond its tool's time-out: to store the outcome, also through a short outage."""
MOST_RUNNERS = 5
"""Processes that may die of one execution."""
_STORE_WAIT_S = 0.5
_LOST = ToolUncertain("whoever ran the tool died midway; what it was asked may have happened or not")

_within: ContextVar[float] = ContextVar("deadline of the tool that calls", default=math.inf)

_log = Log("tools")


class Runner:
    """Takes executions up and stores how they ended."""

    def __init__(self, database: Database, executors: Executors) -> None:
        self._database = database
        self._executors = executors
        self._running: set[asyncio.Task[ToolOutcome]] = set()

    async def take_up(
        self, connection: Connection, held: Execution, task_token: str | None = None
    ) -> tuple[Execution, bool]:
        """Take up an execution whose row this transaction holds; True when it is the caller's to ``run`` after commit.

        An inner tool has run when this returns. What another runs is left to it. ``task_token``, of the step that waits
        for the execution, replaces an earlier one.
        """
        if task_token is not None and not held.is_finished:
            await store_executions.set_task_token(connection, held.id, task_token)
        if held.is_finished or held.is_leased:
            return held, False
        if held.outcome.status == "running" and not _may_go_on(held):
            return await self._finish(connection, held, _given_up(held)), False
        taken = held.taken_up()
        inner = self._executors.inner(held.tool)
        if inner is not None:
            return await self._finish(connection, taken, await _run_inside(connection, inner, taken)), False
        lease_s = held.tool.timeout_ms / 1000 + LEASE_SLACK_S
        await store_executions.lease_execution(connection, held.id, taken.attempts, lease_s)
        return taken, True

    async def run(self, taken: Execution, job_id: str | None = None) -> ToolOutcome:
        """Run an outer execution that is leased to us and store its outcome, even when the caller goes away."""
        task = asyncio.create_task(self._run_outside(taken, job_id), name=f"tool-{taken.id}")
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return await asyncio.shield(task)

    async def give_up_lost(self, connection: Connection) -> list[Execution]:
        """Settle the executions whose lease ran out (system role); those returned are to be run again."""
        lost = [execution_from(row) for row in await store_executions.lock_lost(connection)]
        for execution in lost:
            if not _may_go_on(execution):
                await self._finish(connection, execution, _given_up(execution))
        return [execution for execution in lost if _may_go_on(execution)]

    async def close(self) -> None:
        """Wait for the runs under way: each ends by its tool's time-out."""
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _run_outside(self, execution: Execution, job_id: str | None) -> ToolOutcome:
        started, deadline = time.perf_counter(), _deadline_of(execution.tool)
        _within.set(deadline)  # of this task only, and of what the tool calls
        ran = await self._attempts(execution, deadline)
        outcome = outcome_of(execution.tool, execution.id, ran, _ms_since(started))
        return await self._store(execution, outcome, job_id, deadline + LEASE_SLACK_S)

    async def _attempts(self, execution: Execution, deadline: float) -> Ran:
        tool, attempt = execution.tool, 1
        late = ToolUncertain(f"{tool.name} did not finish within {tool.timeout_ms} ms", code="tool_timeout")

        async def call() -> object:
            executor = self._executors.outer(tool)
            result = await executor(tool, execution.args, execution.invocation(deadline))
            try:
                return check_result(tool, result)
            except ToolFailed as fault:  # it was done; only its answer is of no use
                raise ToolUncertain(fault.message, code=fault.code, is_transient=False) from None

        while True:
            ran = await _attempt(execution, call, deadline, late)
            if ran.failure is None:
                return ran
            wait = wait_before_next(tool, ran.failure, attempt, deadline - _now(), random.random())  # noqa: S311
            if wait is None:
                return ran
            await asyncio.sleep(wait)
            attempt += 1

    async def _store(self, execution: Execution, outcome: ToolOutcome, job_id: str | None, until: float) -> ToolOutcome:
        """Store the outcome, through an outage of the database too, while the lease lasts."""
        while True:
            try:
                async with self._database.tenant(execution.microdao_id) as connection:
                    finished = await self._finish(connection, execution, outcome)
                    if job_id is not None:
                        await claim(connection, job_id)
                return finished.outcome
            except Unavailable:
                if _now() + _STORE_WAIT_S >= until:
                    raise
                await asyncio.sleep(_STORE_WAIT_S)

    async def _finish(self, connection: Connection, execution: Execution, outcome: ToolOutcome) -> Execution:
        """Store the outcome and its usage, unless somebody took the execution over; as it stands then."""
        row = await store_executions.finish_execution(connection, outcome, execution.attempts)
        if row is None:
            return await find(connection, execution.id)
        await record(connection, execution.usage(outcome))
        return replace(execution, outcome=replace(outcome, task_token=row["task_token"]))


async def _run_inside(connection: Connection, inner: InnerExecutor, execution: Execution) -> ToolOutcome:
    tool, started, deadline = execution.tool, time.perf_counter(), _deadline_of(execution.tool)
    late = ToolFailed(f"{tool.name} did not finish within {tool.timeout_ms} ms", code="tool_timeout")

    async def call() -> object:
        async with connection.transaction():
            return check_result(tool, await inner(connection, tool, execution.args, execution.invocation(deadline)))

    ran = await _attempt(execution, call, deadline, late)
    return outcome_of(tool, execution.id, ran, _ms_since(started))


async def _attempt(
    execution: Execution, call: Callable[[], Awaitable[object]], deadline: float, late: ToolFailed
) -> Ran:
    """One attempt; ``late`` when it had to be cut off at the deadline. What breaks it is as certain as that."""
    try:
        async with asyncio.timeout_at(deadline):
            return Ran(result=await call())
    except ToolFailed as error:
        return Ran(failure=error)
    except TimeoutError:
        return Ran(failure=late)
    except psycopg.OperationalError:
        raise  # the database, not the tool: nothing is stored and the next delivery tries again
    except ApiError as error:
        is_transient = isinstance(error, Unavailable)
        return Ran(failure=ToolFailed(error.message, code=error.code, is_transient=is_transient))
    except Exception as error:
        _log_fault(execution, error)
        message = f"{execution.tool.name} broke; the log has the cause under this execution's id"
        return Ran(failure=type(late)(message, code="internal", is_transient=False))


def _may_go_on(lost: Execution) -> bool:
    """Whether an execution whose runner died is run again. What kills every runner must not do so for ever."""
    return lost.tool.may_run_again and lost.attempts < MOST_RUNNERS


def _given_up(execution: Execution) -> ToolOutcome:
    return outcome_of(execution.tool, execution.id, Ran(failure=_LOST), 0)


def _log_fault(execution: Execution, error: Exception) -> None:
    """Where it broke, not what it said: an exception's text may quote arguments."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    _log.warning(
        "tool broke",
        tool=execution.tool.name,
        execution_id=execution.id,
        error=type(error).__name__,
        at=f"{frame.filename}:{frame.lineno}",
    )


def _deadline_of(tool: Tool) -> float:
    """When a tool that starts now has to be done: no later than the one that called it."""
    return min(_now() + tool.timeout_ms / 1000, _within.get())


def _now() -> float:
    return asyncio.get_running_loop().time()


def _ms_since(started: float) -> int:
    return round((time.perf_counter() - started) * 1000)
