"""Tools that reach outside: leases, retries, outcomes that nobody knows, whoever is killed midway."""

import asyncio
import random
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from shared.cloud.outbox import Outbox
from shared.db.database import Database, Row, fetch_all
from shared.errors import IdempotencyInProgress, RateLimitExceeded
from shared.policy.policy import Policy
from shared.policy.principal import Principal, agent_principal
from shared.tools.executors import Executors
from shared.tools.model import Invocation, Tool, ToolCallRequest, ToolFailed, ToolUncertain
from shared.tools.toolbox import Toolbox

SOFIA = "agent:sofia"
ROOT = Path(__file__).resolve().parents[2]


@dataclass
class World:
    """What an outer executor does to the world outside: it counts, and fails as it is told."""

    effects: list[str] = field(default_factory=list)
    failures: list[Exception] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    entered: asyncio.Event = field(default_factory=asyncio.Event)
    invocations: list[Invocation] = field(default_factory=list)

    async def __call__(self, tool: Tool, args: dict[str, Any], invocation: Invocation) -> object:
        self.invocations.append(invocation)
        self.entered.set()
        await self.gate.wait()
        if self.failures:
            raise self.failures.pop(0)
        self.effects.append(invocation.execution_id)
        return {"effects": len(self.effects)}


@pytest.fixture
def world() -> World:
    world = World()
    world.gate.set()
    return world


@pytest.fixture
async def toolbox(database: Database, policy: Policy, microdao: str, world: World) -> Toolbox:
    toolbox = Toolbox(database, Outbox(database, {}, inline=True), policy, Executors({"http": world}))
    await toolbox.seed(microdao, SOFIA)
    await change(database, microdao, "executor = 'http', timeout_ms = 5000")
    return toolbox


@pytest.fixture
def call(microdao: str) -> ToolCallRequest:
    return ToolCallRequest(microdao, SOFIA, "project.create", {"name": "Website"}, "key_member", "k1")


@pytest.fixture
def sofia(microdao: str) -> Principal:
    return agent_principal(SOFIA, microdao)


async def change(database: Database, microdao: str, what: str) -> None:
    """Change the tool's version in place, which no tenant can."""
    async with database.system() as connection:
        await connection.execute(
            f"UPDATE tool_version SET {what} FROM tool WHERE tool.id = tool_id AND name = 'project.create'"
            " AND tool.microdao_id = %s",
            (microdao,),
        )


async def rows(database: Database, microdao: str, query: str) -> list[Row]:
    async with database.tenant(microdao) as connection:
        return await fetch_all(connection, query)


async def expire(database: Database, microdao: str) -> None:
    async with database.tenant(microdao) as connection:
        await connection.execute("UPDATE tool_execution SET lease_until = now() - interval '1 second'")


async def until(condition: Callable[[], Awaitable[object]]) -> None:
    deadline = time.monotonic() + 20
    while not await condition():
        assert time.monotonic() < deadline, "the awaited condition did not come about"
        await asyncio.sleep(0.02)


async def test_the_outcome_and_its_usage_are_stored_once(
    database: Database, toolbox: Toolbox, world: World, sofia: Principal, call: ToolCallRequest, microdao: str
):
    await change(database, microdao, "cost_microusd = 250")
    outcome = await toolbox.execute(sofia, call)
    assert (outcome.status, outcome.result, outcome.cost_microusd) == ("succeeded", {"effects": 1}, 250)
    assert await toolbox.execute(sofia, call) == outcome
    assert world.effects == [outcome.execution_id]
    assert await rows(database, microdao, "SELECT cost_microusd, failed FROM usage_event") == [
        {"cost_microusd": 250, "failed": False}
    ]


async def test_no_transaction_is_open_while_the_tool_runs(
    database: Database, toolbox: Toolbox, world: World, sofia: Principal, call: ToolCallRequest, microdao: str
):
    world.gate.clear()
    running = asyncio.create_task(toolbox.execute(sofia, call))
    await world.entered.wait()
    async with database.system() as connection:
        idle = await fetch_all(
            connection,
            "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in%%'"
            " AND pid <> pg_backend_pid()",
        )
    assert idle == []
    assert (await rows(database, microdao, "SELECT status, attempts FROM tool_execution")) == [
        {"status": "running", "attempts": 1}
    ]
    world.gate.set()
    assert (await running).status == "succeeded"


async def test_the_same_key_while_the_tool_runs_is_told_to_come_again(
    toolbox: Toolbox, world: World, sofia: Principal, call: ToolCallRequest
):
    world.gate.clear()
    running = asyncio.create_task(toolbox.execute(sofia, call))
    await world.entered.wait()
    with pytest.raises(IdempotencyInProgress):
        await toolbox.execute(sofia, call)
    world.gate.set()
    assert (await running).status == "succeeded"
    assert len(world.effects) == 1


async def test_a_caller_that_goes_away_does_not_take_the_outcome_along(
    toolbox: Toolbox, world: World, sofia: Principal, call: ToolCallRequest
):
    world.gate.clear()
    running = asyncio.create_task(toolbox.execute(sofia, call))
    await world.entered.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    world.gate.set()
    await toolbox.close()
    assert (await toolbox.execute(sofia, call)).status == "succeeded"
    assert len(world.effects) == 1


@pytest.mark.parametrize(
    ("idempotent", "failure", "status", "attempts"),
    [
        (True, ToolFailed("busy", is_transient=True), "succeeded", 2),
        (True, ToolUncertain("cut off"), "succeeded", 2),
        (True, ToolFailed("no such thing"), "failed", 1),
        (False, ToolFailed("busy", is_transient=True), "failed", 1),
        (False, ToolUncertain("cut off"), "unknown", 1),
    ],
)
async def test_only_what_may_run_again_does(
    database: Database,
    toolbox: Toolbox,
    world: World,
    sofia: Principal,
    call: ToolCallRequest,
    microdao: str,
    idempotent: bool,
    failure: Exception,
    status: str,
    attempts: int,
):
    await change(database, microdao, f"idempotent = {idempotent}")
    world.failures = [failure]
    outcome = await toolbox.execute(sofia, call)
    assert (outcome.status, len(world.invocations)) == (status, attempts)
    assert await toolbox.execute(sofia, call) == outcome


async def test_a_tool_that_keeps_failing_is_given_up_after_three_attempts(
    database: Database, toolbox: Toolbox, world: World, sofia: Principal, call: ToolCallRequest, microdao: str
):
    await change(database, microdao, "idempotent = true")
    world.failures = [ToolFailed(f"busy {number}", is_transient=True) for number in range(9)]
    outcome = await toolbox.execute(sofia, call)
    assert (outcome.status, outcome.error_message, len(world.invocations)) == ("failed", "busy 2", 3)


@pytest.mark.parametrize(("idempotent", "status"), [(True, "failed"), (False, "unknown")])
async def test_a_tool_is_cut_off_at_its_time_out(
    database: Database,
    toolbox: Toolbox,
    world: World,
    sofia: Principal,
    call: ToolCallRequest,
    microdao: str,
    idempotent: bool,
    status: str,
):
    await change(database, microdao, f"timeout_ms = 100, idempotent = {idempotent}")
    world.gate.clear()
    outcome = await toolbox.execute(sofia, call)
    assert (outcome.status, outcome.error_code) == (status, "tool_timeout")


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ('{"type": "object", "required": ["total"]}', "total: is required"),
        ('{"type": "object", "properties": {"effects": {"type": "string"}}}', "effects"),
    ],
)
@pytest.mark.parametrize(("idempotent", "status"), [(True, "failed"), (False, "unknown")])
async def test_a_result_that_breaks_its_schema_is_no_result_of_something_that_was_done(
    database: Database,
    toolbox: Toolbox,
    world: World,
    sofia: Principal,
    call: ToolCallRequest,
    microdao: str,
    schema: str,
    message: str,
    idempotent: bool,
    status: str,
):
    await change(database, microdao, f"result_schema = '{schema}', idempotent = {idempotent}")
    outcome = await toolbox.execute(sofia, call)
    assert (outcome.status, len(world.effects)) == (status, 1)
    assert message in str(outcome.error_message)


async def test_a_tool_that_breaks_may_have_acted(
    toolbox: Toolbox, world: World, sofia: Principal, call: ToolCallRequest
):
    world.failures = [LookupError("secret")]
    outcome = await toolbox.execute(sofia, call)
    assert (outcome.status, outcome.error_code) == ("unknown", "internal")
    assert "secret" not in str(outcome.error_message)


async def test_a_tool_runs_no_more_often_than_it_may(
    database: Database, toolbox: Toolbox, world: World, sofia: Principal, call: ToolCallRequest, microdao: str
):
    await change(database, microdao, "rate_limit_per_minute = 5")
    calls = [toolbox.execute(sofia, replace(call, idempotency_key=f"k{number}")) for number in range(20)]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert sum(isinstance(one, RateLimitExceeded) for one in outcomes) == 15
    assert len(world.effects) == len(await rows(database, microdao, "SELECT 1 FROM tool_execution")) == 5
    denied = await rows(
        database, microdao, "SELECT sum(count) AS calls FROM policy_denial WHERE action = 'tool.invoke'"
    )
    assert denied == [{"calls": 15}]
    first = next(one for one in outcomes if not isinstance(one, BaseException))
    key = f"k{outcomes.index(first)}"
    assert await toolbox.execute(sofia, replace(call, idempotency_key=key)) == first, "a repeated key is no new run"


async def test_whoever_lost_the_lease_neither_stores_nor_is_charged(
    database: Database, toolbox: Toolbox, world: World, sofia: Principal, call: ToolCallRequest, microdao: str
):
    world.gate.clear()
    running = asyncio.create_task(toolbox.execute(sofia, call))
    await world.entered.wait()
    await expire(database, microdao)
    await toolbox.sweep()
    world.gate.set()
    assert (await running).status == "unknown"
    assert await rows(database, microdao, "SELECT status FROM tool_execution") == [{"status": "unknown"}]
    assert len(await rows(database, microdao, "SELECT 1 FROM usage_event")) == 1


async def test_a_lost_idempotent_execution_is_queued_and_run_again(
    database: Database, toolbox: Toolbox, world: World, sofia: Principal, call: ToolCallRequest, microdao: str
):
    await change(database, microdao, "idempotent = true")
    queued = await toolbox.submit(sofia, call)
    async with database.tenant(microdao) as connection:
        await connection.execute(
            "UPDATE tool_execution SET status = 'running', attempts = 1, lease_until = now() - interval '1 second'"
        )
    assert await toolbox.sweep() == 1
    assert await toolbox.sweep() == 0
    (job,) = await rows(database, microdao, "SELECT id FROM outbox WHERE queue = 'tool'")
    outcome = await toolbox.run_queued(microdao, queued.execution_id, None, job["id"])
    assert outcome.status == "succeeded"
    assert await rows(database, microdao, "SELECT 1 FROM outbox WHERE queue = 'tool'") == []


@pytest.mark.parametrize("by_the_sweep", [True, False])
async def test_what_kills_every_runner_is_given_up(
    database: Database,
    toolbox: Toolbox,
    world: World,
    sofia: Principal,
    call: ToolCallRequest,
    microdao: str,
    by_the_sweep: bool,
):
    await change(database, microdao, "idempotent = true")
    queued = await toolbox.submit(sofia, call)
    async with database.tenant(microdao) as connection:
        await connection.execute(
            "UPDATE tool_execution SET status = 'running', attempts = 5, lease_until = now() - interval '1 second'"
        )
    if by_the_sweep:
        assert await toolbox.sweep() == 0
    outcome = await toolbox.run_queued(microdao, queued.execution_id, None)
    assert (outcome.status, world.effects) == ("failed", [])


async def test_the_caller_of_a_lost_execution_may_ask_again_with_its_key(
    database: Database, toolbox: Toolbox, world: World, sofia: Principal, call: ToolCallRequest, microdao: str
):
    await toolbox.submit(sofia, call)
    async with database.tenant(microdao) as connection:
        await connection.execute(
            "UPDATE tool_execution SET status = 'running', attempts = 1, lease_until = now() - interval '1 second'"
        )
    outcome = await toolbox.execute(sofia, call)
    assert (outcome.status, world.effects) == ("unknown", [])


async def test_a_thousand_shuffled_duplicates_run_each_execution_once(
    database: Database, toolbox: Toolbox, world: World, sofia: Principal, call: ToolCallRequest, microdao: str
):
    for number in range(100):
        await toolbox.enqueue(sofia, replace(call, args={"name": f"P {number}"}, idempotency_key=f"k{number}"))
    jobs = [row["body"] for row in await rows(database, microdao, "SELECT body FROM outbox WHERE queue = 'tool'")]
    deliveries = jobs * 10
    random.Random(5).shuffle(deliveries)
    waiting = iter(deliveries)

    async def consume() -> None:
        for job in waiting:
            await toolbox.run_queued(microdao, job["execution_id"], None, job["job_id"])

    await asyncio.gather(*(consume() for _ in range(8)))
    assert len(world.effects) == len(set(world.effects)) == 100
    assert len(await rows(database, microdao, "SELECT 1 FROM usage_event")) == 100
    assert await rows(database, microdao, "SELECT 1 FROM tool_execution WHERE status <> 'succeeded'") == []
    assert await rows(database, microdao, "SELECT 1 FROM outbox WHERE queue = 'tool'") == []


_WORKER = """
import asyncio, sys, pathlib
from shared.cloud.outbox import Outbox
from shared.db.database import Database
from shared.policy.policy import Policy
from shared.tools.executors import Executors
from shared.tools.toolbox import Toolbox

async def effect(tool, args, invocation):
    with open(sys.argv[4], "a") as file:
        file.write(invocation.execution_id + "\\n")
    if len(pathlib.Path(sys.argv[4]).read_text().splitlines()) == 1:
        await asyncio.sleep(60)
    return {"ok": True}

async def main(url, microdao_id, execution_id, effects):
    database = Database(url)
    toolbox = Toolbox(database, Outbox(database, {}, inline=True), Policy(Database(url)), Executors({"http": effect}))
    print((await toolbox.run_queued(microdao_id, execution_id, None)).status)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.parametrize(("idempotent", "status", "effects"), [(False, "unknown", 1), (True, "succeeded", 2)])
async def test_a_runner_killed_in_the_middle_of_a_tool(
    database: Database,
    database_url: str,
    toolbox: Toolbox,
    sofia: Principal,
    call: ToolCallRequest,
    microdao: str,
    tmp_path: Path,
    idempotent: bool,
    status: str,
    effects: int,
):
    await change(database, microdao, f"idempotent = {idempotent}")
    queued = await toolbox.submit(sofia, call)
    log = tmp_path / "effects"
    arguments = [sys.executable, "-c", _WORKER, database_url, microdao, queued.execution_id, str(log)]

    async def happened() -> bool:
        return await asyncio.to_thread(log.exists)

    worker = subprocess.Popen(arguments, cwd=ROOT)  # noqa: ASYNC220
    try:
        await until(happened)
    finally:
        worker.send_signal(signal.SIGKILL)
        assert worker.wait(10) == -signal.SIGKILL
    assert (await toolbox.outcome(microdao, queued.execution_id)).status == "running"
    await expire(database, microdao)
    for _ in range(3):  # the message is delivered again, and again
        again = await asyncio.create_subprocess_exec(*arguments, cwd=ROOT, stdout=subprocess.PIPE)
        printed, _ = await again.communicate()
        assert printed.decode().strip() == status
    assert len(log.read_text().splitlines()) == effects
    assert len(await rows(database, microdao, "SELECT 1 FROM usage_event")) == 1
