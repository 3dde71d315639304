"""The sweep removes old executions and days of prompts, and nothing that somebody may still ask for."""

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest

from functions.tool_executor.handler import run_message
from shared.bootstrap import Services
from shared.cloud.outbox import Outbox
from shared.db.database import Connection, Database, Row, fetch_all
from shared.errors import NotFound
from shared.ids import new_id
from shared.policy.policy import Policy
from shared.policy.principal import Principal, agent_principal
from shared.settings import ROOT
from shared.tools.execution import pruning, store_executions, store_pruning
from shared.tools.execution.pruning import ExecutionPruning
from shared.tools.executors import Executors
from shared.tools.model import Invocation, Tool, ToolCallRequest, ToolOutcome
from shared.tools.toolbox import QUEUE, Toolbox
from tests.integration.test_tools_chain import add
from tests.integration.tool_executor import executed

SOFIA = "agent:sofia"
SWEEP = json.loads((ROOT / "events/tool_executor.schedule.json").read_text(encoding="utf-8"))


@pytest.fixture
async def toolbox(services: Services, microdao: str, other_microdao: str) -> Toolbox:
    for tenant in (microdao, other_microdao):
        await services.toolbox.seed(tenant, SOFIA)
    return services.toolbox


@pytest.fixture
def call(microdao: str) -> ToolCallRequest:
    return ToolCallRequest(microdao, SOFIA, "math", {"expression": "1+1"}, "key_member", "k1")


@pytest.fixture
def sofia(microdao: str) -> Principal:
    return agent_principal(SOFIA, microdao)


async def sweep(services: Services) -> None:
    """What the schedule brings."""
    assert "requeued" in await executed(services, SWEEP)


async def age(database: Database, microdao: str, key: str, days: int, status: str | None = None) -> None:
    """The run under this key was asked for so many days ago, and ended then if it did."""
    async with database.tenant(microdao) as connection:
        await connection.execute(
            "UPDATE tool_execution SET status = coalesce(%(status)s, status),"
            " created_at = now() - make_interval(days => %(days)s, hours => 1),"
            " finished_at = finished_at - make_interval(days => %(days)s, hours => 1)"
            " WHERE idempotency_key = %(key)s",
            {"key": key, "days": days, "status": status},
        )


async def run(
    database: Database, toolbox: Toolbox, microdao: str, key: str, days: int, status: str = ""
) -> ToolOutcome:
    """A run under this key that ended so many days ago."""
    call = ToolCallRequest(microdao, SOFIA, "math", {"expression": "1+1"}, "key_member", key)
    outcome = await toolbox.execute(agent_principal(SOFIA, microdao), call)
    await age(database, microdao, key, days, status or None)
    return outcome


async def rows(database: Database, microdao: str, query: str) -> list[Row]:
    async with database.tenant(microdao) as connection:
        return await fetch_all(connection, query)


async def left(database: Database, microdao: str) -> list[str]:
    found = await rows(database, microdao, "SELECT idempotency_key FROM tool_execution ORDER BY idempotency_key")
    return [row["idempotency_key"] for row in found]


async def put_flow(database: Database, microdao: str, *, is_finished: bool) -> str:
    """A flow, as far as executions know of it; its id."""
    flow = new_id("flow")
    async with database.tenant(microdao) as connection:
        await connection.execute(
            "INSERT INTO flow (id, microdao_id, agent_id, requested_by, state, mode, request, transitions, finished_at)"
            " VALUES (%s, %s, 'agent:sofia', 'key_member', 'WAIT_TOOL', 'auto', '{}', '{INIT}',"
            " CASE WHEN %s THEN now() END)",
            (flow, microdao, is_finished),
        )
    return flow


async def test_what_ended_goes_after_three_months_however_it_ended(
    services: Services, toolbox: Toolbox, database: Database, microdao: str, other_microdao: str
):
    for tenant in (microdao, other_microdao):
        for status in ("succeeded", "failed", "unknown"):
            await run(database, toolbox, tenant, f"{status} lately", 89, status)
            await run(database, toolbox, tenant, f"{status} long ago", 90, status)
    await sweep(services)
    for tenant in (microdao, other_microdao):
        assert await left(database, tenant) == ["failed lately", "succeeded lately", "unknown lately"]


async def test_how_long_is_a_setting(services: Services, toolbox: Toolbox, database: Database, microdao: str):
    await run(database, toolbox, microdao, "lately", 13)
    await run(database, toolbox, microdao, "long ago", 14)
    strict = Services(replace(services.settings, execution_days=14))
    await sweep(strict)
    await strict.close()
    assert await left(database, microdao) == ["lately"]


async def test_what_is_to_be_run_stays_while_anything_may_run_it(
    services: Services, toolbox: Toolbox, database: Database, microdao: str, sofia: Principal, call: ToolCallRequest
):
    await toolbox.enqueue(sofia, replace(call, idempotency_key="has a job"))
    for key, flow in (
        ("of no flow", None),
        ("of a flow that ended", await put_flow(database, microdao, is_finished=True)),
        ("of a flow that goes on", await put_flow(database, microdao, is_finished=False)),
        ("asked for lately", None),
    ):
        await toolbox.submit(sofia, replace(call, idempotency_key=key, flow_id=flow))
    for key in await left(database, microdao):
        await age(database, microdao, key, 89 if key == "asked for lately" else 90)
    await services.execution_pruning.sweep()
    assert await left(database, microdao) == ["asked for lately", "has a job", "of a flow that goes on"]


async def test_what_runs_stays(
    services: Services, toolbox: Toolbox, database: Database, microdao: str, sofia: Principal, call: ToolCallRequest
):
    await toolbox.submit(sofia, call)
    async with database.tenant(microdao) as connection:
        await connection.execute(
            "UPDATE tool_execution SET status = 'running', lease_until = now() + interval '1 minute',"
            " created_at = now() - interval '99 days'"
        )
    await sweep(services)
    assert await left(database, microdao) == ["k1"]
    async with database.tenant(microdao) as connection:  # or it is lost in a minute, and other tests' sweeps queue it
        await connection.execute("UPDATE tool_execution SET status = 'failed', lease_until = NULL")


async def test_a_run_stays_until_its_job_was_acted_on(
    services: Services, toolbox: Toolbox, database: Database, microdao: str, sofia: Principal, call: ToolCallRequest
):
    """As after an outage: a rival's delivery ran it, its own message is still to come."""
    queued = await toolbox.enqueue(sofia, call)
    ran = await toolbox.run_queued(microdao, queued.execution_id, None)
    await age(database, microdao, "k1", 90)
    await services.execution_pruning.sweep()
    assert await left(database, microdao) == ["k1"]
    (job,) = await rows(database, microdao, f"SELECT id, body FROM outbox WHERE queue = '{QUEUE}'")
    await run_message(services, job["body"])
    assert (await toolbox.outcome(microdao, queued.execution_id)).result == ran.result
    await services.execution_pruning.sweep()
    assert await left(database, microdao) == []
    with pytest.raises(NotFound):
        await run_message(services, job["body"])
    assert await rows(database, microdao, "SELECT 1 FROM tool_execution") == []


async def test_a_flow_that_goes_on_keeps_its_runs(
    services: Services, toolbox: Toolbox, database: Database, microdao: str, sofia: Principal, call: ToolCallRequest
):
    flow = await put_flow(database, microdao, is_finished=False)
    await toolbox.execute(sofia, replace(call, flow_id=flow))
    await age(database, microdao, "k1", 300)
    await services.execution_pruning.sweep()
    assert await left(database, microdao) == ["k1"]
    async with database.tenant(microdao) as connection:
        await connection.execute("UPDATE flow SET finished_at = now() WHERE id = %s", (flow,))
    await services.execution_pruning.sweep()
    assert await left(database, microdao) == []


async def test_a_chain_that_goes_on_keeps_the_steps_that_it_made(
    database: Database, policy: Policy, microdao: str, sofia: Principal, call: ToolCallRequest
):
    """Cut off, and taken up again months later: no step is made twice, and all of it goes once the chain has ended."""
    asked: list[str] = []

    async def outside(tool: Tool, args: dict[str, Any], invocation: Invocation) -> object:
        asked.append(args["name"])
        return args

    toolbox = Toolbox(database, Outbox(database, {}, inline=True), policy, Executors({"http": outside}))
    await toolbox.seed(microdao, SOFIA)
    await add(database, microdao, "reach", "http", {})
    steps = [{"id": f"s{n}", "tool": "reach", "args": {"name": f"{n}"}} for n in range(3)]
    await add(database, microdao, "plan", "chain", {"steps": steps})
    whole = await toolbox.submit(sofia, replace(call, tool="plan", args={"name": "x"}))
    made = f"{whole.execution_id}/s0"
    await toolbox.execute(sofia, replace(call, tool="reach", args={"name": "0"}, idempotency_key=made, depth=1))
    async with database.tenant(microdao) as connection:
        await connection.execute(
            "UPDATE tool_execution SET status = 'running', attempts = 1, lease_until = now() - interval '1 s'"
            " WHERE id = %s",
            (whole.execution_id,),
        )
    await age(database, microdao, made, 300)
    pruner = ExecutionPruning(database, days=90, queue=QUEUE)
    await pruner.sweep()
    assert (await toolbox.run_queued(microdao, whole.execution_id, None)).status == "succeeded"
    assert asked == ["0", "1", "2"]
    await pruner.sweep()
    assert made not in await left(database, microdao)


async def test_a_key_answers_as_long_as_its_run_is_kept_and_is_free_then(
    services: Services, toolbox: Toolbox, database: Database, microdao: str, sofia: Principal, call: ToolCallRequest
):
    first = await run(database, toolbox, microdao, "k1", 89)
    await services.execution_pruning.sweep()
    assert await toolbox.execute(sofia, call) == replace(first, task_token=None)
    await age(database, microdao, "k1", 90)
    await services.execution_pruning.sweep()
    again = await toolbox.execute(sofia, replace(call, args={"expression": "2+2"}))
    assert (again.status, again.execution_id == first.execution_id) == ("succeeded", False)


async def test_a_key_whose_run_is_removed_in_the_middle_of_a_call_is_free(
    services: Services,
    toolbox: Toolbox,
    database: Database,
    microdao: str,
    sofia: Principal,
    call: ToolCallRequest,
    monkeypatch: pytest.MonkeyPatch,
):
    first = await run(database, toolbox, microdao, "k1", 90)
    find = store_executions.find_by_key

    async def find_late(connection: Connection, idempotency_key: str) -> Row | None:
        await services.execution_pruning.sweep()  # between the key's refusal and the look at who took it
        return await find(connection, idempotency_key)

    monkeypatch.setattr(store_executions, "find_by_key", find_late)
    again = await toolbox.execute(sofia, call)
    assert (again.status, again.execution_id == first.execution_id) == ("succeeded", False)


async def test_a_sweep_is_bounded_begins_with_the_oldest_and_rivals_share_the_work(
    services: Services, toolbox: Toolbox, database: Database, microdao: str, monkeypatch: pytest.MonkeyPatch
):
    await sweep(services)
    monkeypatch.setattr(pruning, "_BATCH", 5)
    monkeypatch.setattr(pruning, "_MOST_BATCHES", 2)
    for number in range(25):
        await run(database, toolbox, microdao, f"{number:02}", 100 + number)
    assert await services.execution_pruning.sweep() == 10
    assert await left(database, microdao) == [f"{number:02}" for number in range(15)]
    assert sum(await asyncio.gather(*(services.execution_pruning.sweep() for _ in range(4)))) == 15
    assert await left(database, microdao) == []


async def test_what_stays_does_not_stand_in_the_way_of_what_goes(
    services: Services,
    toolbox: Toolbox,
    database: Database,
    microdao: str,
    sofia: Principal,
    call: ToolCallRequest,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(pruning, "_BATCH", 5)
    flow = await put_flow(database, microdao, is_finished=False)
    for number in range(8):
        await toolbox.execute(sofia, replace(call, idempotency_key=f"stays {number}", flow_id=flow))
        await age(database, microdao, f"stays {number}", 200)
        await run(database, toolbox, microdao, f"goes {number}", 150)
    await services.execution_pruning.sweep()
    assert await left(database, microdao) == [f"stays {number}" for number in range(8)]
    async with database.tenant(microdao) as connection:
        await connection.execute("UPDATE flow SET finished_at = now() WHERE id = %s", (flow,))
    await services.execution_pruning.sweep()
    assert await left(database, microdao) == []


async def test_a_sweep_waits_for_nobody_and_nobody_for_it(
    services: Services, toolbox: Toolbox, database: Database, microdao: str, sofia: Principal, call: ToolCallRequest
):
    for key in ("held", "free"):
        await run(database, toolbox, microdao, key, 90)
    async with asyncio.timeout(20):
        async with database.tenant(microdao) as connection:
            await connection.execute("SELECT 1 FROM tool_execution WHERE idempotency_key = 'held' FOR UPDATE")
            await services.execution_pruning.sweep()
        assert await left(database, microdao) == ["held"]
        async with database.system() as connection:  # a sweep that takes long
            page = await store_pruning.prune_finished(connection, days=90, queue=QUEUE, skip=0, limit=10)
            assert page.removed >= 1
            ran = await asyncio.gather(
                *(toolbox.execute(sofia, replace(call, idempotency_key=f"new {n}")) for n in range(5))
            )
            await toolbox.enqueue(sofia, replace(call, idempotency_key="queued"))
            assert await toolbox.executions(microdao) != []
    assert [outcome.status for outcome in ran] == ["succeeded"] * 5
    assert await left(database, microdao) == [*(f"new {n}" for n in range(5)), "queued"]


async def test_sweeps_beside_calls_neither_deadlock_nor_lose_a_run(
    services: Services,
    toolbox: Toolbox,
    database: Database,
    microdao: str,
    sofia: Principal,
    call: ToolCallRequest,
    monkeypatch: pytest.MonkeyPatch,
):
    """Keys of old runs are used again while rivals remove those: each call has an answer, each new run is kept."""
    monkeypatch.setattr(pruning, "_BATCH", 3)
    keys = [f"{number:02}" for number in range(30)]
    for key in keys:
        await run(database, toolbox, microdao, key, 90)
    old = await rows(database, microdao, "SELECT id FROM tool_execution")
    calls = [toolbox.execute(sofia, replace(call, idempotency_key=key)) for key in keys]
    async with asyncio.timeout(60):
        answers, *_ = await asyncio.gather(
            asyncio.gather(*calls), *(services.execution_pruning.sweep() for _ in range(3))
        )
    assert [answer.status for answer in answers] == ["succeeded"] * 30
    await services.execution_pruning.sweep()
    kept = {row["id"] for row in await rows(database, microdao, "SELECT id FROM tool_execution")}
    assert kept == {answer.execution_id for answer in answers} - {row["id"] for row in old}


async def test_only_the_system_role_reaches_every_tenant(
    toolbox: Toolbox, database: Database, microdao: str, other_microdao: str
):
    for tenant in (microdao, other_microdao):
        await run(database, toolbox, tenant, "old", 90)
    async with database.tenant(microdao) as connection:
        assert await store_pruning.prune_finished(connection, days=90, queue=QUEUE, skip=0, limit=10) == (1, 1)
    assert (await left(database, microdao), await left(database, other_microdao)) == ([], ["old"])


async def test_days_of_prompts_go_with_the_executions_of_their_time(
    services: Services, database: Database, microdao: str, other_microdao: str
):
    for tenant in (microdao, other_microdao):
        async with database.tenant(tenant) as connection:
            await connection.execute(
                "INSERT INTO tool_prompt (microdao_id, agent_id, day, prompts)"
                " SELECT %s, 'agent:sofia', CURRENT_DATE - back, back FROM unnest('{0,90,91,400}'::int[]) AS back",
                (tenant,),
            )
    await sweep(services)
    for tenant in (microdao, other_microdao):
        days = await rows(database, tenant, "SELECT prompts FROM tool_prompt ORDER BY prompts")
        assert [row["prompts"] for row in days] == [0, 90]
