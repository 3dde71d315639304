"""Calls: now or queued, repeated under one key, and failing without a trace but their outcome."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from shared.cloud.outbox import Outbox
from shared.db.database import Database, Row, fetch_all
from shared.errors import (
    IdempotencyConflict,
    NotFound,
)
from shared.policy.policy import Policy
from shared.policy.principal import Principal, agent_principal
from shared.tools.builtin import BUILTINS
from shared.tools.model import Invocation, ToolCallRequest, ToolFailed
from shared.tools.toolbox import Toolbox

SOFIA = "agent:sofia"


@pytest.fixture
async def toolbox(database: Database, microdao: str, policy: Policy) -> Toolbox:
    toolbox = Toolbox(database, Outbox(database, {}, inline=True), policy)
    await toolbox.seed(microdao, SOFIA)
    return toolbox


@pytest.fixture
def member(microdao: str) -> Principal:
    return Principal("key_member", microdao, frozenset({"member"}))


@pytest.fixture
def create(microdao: str) -> ToolCallRequest:
    return ToolCallRequest(microdao, SOFIA, "project.create", {"name": "Website"}, "key_member")


async def rows(database: Database, microdao: str, query: str) -> list[Row]:
    async with database.tenant(microdao) as connection:
        return await fetch_all(connection, query)


async def test_execute_runs_records_and_charges_usage(
    database: Database, toolbox: Toolbox, member: Principal, create: ToolCallRequest, microdao: str
):
    outcome = await toolbox.execute(member, replace(create, flow_id="flow_1", session_id="sess_1", step_id="s1"))
    assert (outcome.status, outcome.tool_name, outcome.error_code) == ("succeeded", "project.create", None)
    assert outcome.result["name"] == "Website"
    (usage,) = await rows(database, microdao, "SELECT * FROM usage_event")
    assert (usage["kind"], usage["subject"], usage["agent_id"], usage["flow_id"], usage["failed"]) == (
        "tool",
        "project.create",
        SOFIA,
        "flow_1",
        False,
    )
    (job,) = await rows(database, microdao, "SELECT queue, body FROM outbox WHERE queue <> 'memory'")
    assert (job["queue"], job["body"]["event_id"]) == ("usage", usage["id"])
    (entry,) = await toolbox.executions(microdao)
    assert entry["execution_id"] == outcome.execution_id
    assert entry["requested_by"] == "key_member"
    assert entry["created_at"] <= entry["finished_at"]
    assert not {"args", "result"} & set(entry)


async def test_an_agent_may_call_for_itself(toolbox: Toolbox, create: ToolCallRequest, microdao: str):
    outcome = await toolbox.execute(agent_principal(SOFIA, microdao), create)
    assert outcome.status == "succeeded"


async def test_the_same_key_again_returns_the_first_outcome(
    toolbox: Toolbox, member: Principal, create: ToolCallRequest, microdao: str
):
    keyed = replace(create, idempotency_key="k1")
    first = await toolbox.execute(member, keyed)
    assert await toolbox.execute(member, keyed) == first
    assert await toolbox.execute(member, replace(keyed, tool="create_project")) == first
    assert await toolbox.submit(member, keyed) == first
    for other in ({"args": {"name": "Other"}}, {"tool": "task.create", "args": {"title": "Website"}}):
        with pytest.raises(IdempotencyConflict) as conflict:
            await toolbox.execute(member, replace(keyed, **other))
        assert conflict.value.code == "idempotency_conflict"
    assert len(await toolbox.executions(microdao)) == 1


async def test_twenty_at_once_with_one_key_run_once(
    database: Database, toolbox: Toolbox, member: Principal, create: ToolCallRequest, microdao: str
):
    keyed = replace(create, idempotency_key="k1")
    outcomes = await asyncio.gather(*(toolbox.execute(member, keyed) for _ in range(20)))
    assert len({outcome.execution_id for outcome in outcomes}) == 1
    assert {outcome.status for outcome in outcomes} == {"succeeded"}
    assert len(await rows(database, microdao, "SELECT 1 FROM project")) == 1
    assert len(await rows(database, microdao, "SELECT 1 FROM usage_event")) == 1


async def test_submit_writes_the_row_and_leaves_dispatch_to_the_caller(
    database: Database, toolbox: Toolbox, member: Principal, create: ToolCallRequest, microdao: str
):
    keyed = replace(create, idempotency_key="flow_1/s1/1")
    submitted = await toolbox.submit(member, keyed)
    assert submitted.status == "queued"
    assert await toolbox.submit(member, keyed) == submitted
    assert await toolbox.execute(member, keyed) == submitted
    assert (
        await rows(database, microdao, "SELECT 1 FROM outbox WHERE queue <> 'memory' UNION ALL SELECT 1 FROM project")
        == []
    )
    assert await toolbox.outcome(microdao, submitted.execution_id) == submitted
    ran = await toolbox.run_queued(microdao, submitted.execution_id, "token")
    assert ran.status == "succeeded"
    assert await toolbox.outcome(microdao, submitted.execution_id) == ran
    assert await toolbox.run_queued(microdao, submitted.execution_id, None) == ran
    (row,) = await rows(
        database, microdao, "SELECT attempts, task_token, started_at <= finished_at AS ok FROM tool_execution"
    )
    assert row == {"attempts": 1, "task_token": "token", "ok": True}


async def test_enqueue_writes_one_job_for_one_execution(
    database: Database, toolbox: Toolbox, member: Principal, create: ToolCallRequest, microdao: str
):
    keyed = replace(create, idempotency_key="k1")
    queued = await toolbox.enqueue(member, keyed)
    assert await toolbox.enqueue(member, keyed) == queued
    (job,) = await rows(database, microdao, "SELECT id, queue, body FROM outbox WHERE queue <> 'memory'")
    assert job["queue"] == "tool"
    assert job["body"] == {"job_id": job["id"], "microdao_id": microdao, "execution_id": queued.execution_id}
    await toolbox.run_queued(microdao, queued.execution_id, None, job["id"])
    assert await rows(database, microdao, "SELECT 1 FROM outbox WHERE queue = 'tool'") == []


async def test_an_unknown_execution_is_refused(toolbox: Toolbox, microdao: str):
    with pytest.raises(NotFound):
        await toolbox.run_queued(microdao, "exec_unheard", None)
    with pytest.raises(NotFound):
        await toolbox.outcome(microdao, "exec_unheard")


async def _write_then_fail(connection: Any, args: dict[str, Any], invocation: Invocation) -> object:
    await BUILTINS["project.create"](connection, args, invocation)
    raise ToolFailed("changed my mind", code="second_thoughts")


async def _write_then_break(connection: Any, args: dict[str, Any], invocation: Invocation) -> object:
    await BUILTINS["project.create"](connection, args, invocation)
    raise LookupError("secret argument")


async def _write_then_bad_sql(connection: Any, args: dict[str, Any], invocation: Invocation) -> object:
    await BUILTINS["project.create"](connection, args, invocation)
    return await connection.execute("SELECT 1 / 0")


async def _write_then_sleep(connection: Any, args: dict[str, Any], invocation: Invocation) -> object:
    await BUILTINS["project.create"](connection, args, invocation)
    return await connection.execute("SELECT pg_sleep(60)")


async def _write_then_no_json(connection: Any, args: dict[str, Any], invocation: Invocation) -> object:
    await BUILTINS["project.create"](connection, args, invocation)
    return object()


@pytest.mark.parametrize(
    ("function", "code"),
    [
        (_write_then_fail, "second_thoughts"),
        (_write_then_break, "internal"),
        (_write_then_bad_sql, "internal"),
        (_write_then_sleep, "tool_timeout"),
        (_write_then_no_json, "tool_failed"),
    ],
)
async def test_a_failed_tool_leaves_its_outcome_and_nothing_else(
    database: Database,
    toolbox: Toolbox,
    member: Principal,
    create: ToolCallRequest,
    microdao: str,
    monkeypatch: pytest.MonkeyPatch,
    function: Any,
    code: str,
):
    monkeypatch.setitem(BUILTINS, "test.failing", function)
    async with database.system() as connection:
        await connection.execute(
            'UPDATE tool_version SET config = \'{"function": "test.failing"}\', timeout_ms = 300 FROM tool'
            " WHERE tool.id = tool_id AND name = 'project.create' AND tool.microdao_id = %s",
            (microdao,),
        )
    keyed = replace(create, idempotency_key="k1")
    outcome = await toolbox.execute(member, keyed)
    assert (outcome.status, outcome.error_code, outcome.result) == ("failed", code, None)
    assert "secret" not in str(outcome.error_message)
    assert await rows(database, microdao, "SELECT 1 FROM project") == []
    assert (await rows(database, microdao, "SELECT failed FROM usage_event")) == [{"failed": True}]
    assert await toolbox.execute(member, keyed) == outcome


async def test_a_builtin_that_this_installation_lacks_is_a_clear_failure(
    database: Database, toolbox: Toolbox, member: Principal, create: ToolCallRequest, microdao: str
):
    async with database.system() as connection:
        await connection.execute(
            'UPDATE tool_version SET config = \'{"function": "gone"}\' WHERE microdao_id = %s', (microdao,)
        )
    outcome = await toolbox.execute(member, create)
    assert outcome.status == "failed"
    assert "'gone'" in str(outcome.error_message)
