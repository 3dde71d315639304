"""Tools made of tools: chains, and agents that are asked as tools."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from shared.cloud.outbox import Outbox
from shared.db.database import Database, Row, fetch_all
from shared.errors import ConfidentialDenied, InvalidRequest
from shared.policy.policy import Policy
from shared.policy.principal import Principal, agent_principal
from shared.settings import Settings
from shared.tools.executors import Executors
from shared.tools.executors.chain import check_chain_config
from shared.tools.model import Invocation, Tool, ToolCallRequest, ToolUncertain
from shared.tools.toolbox import Toolbox
from tests.fakes.openai_server import FakeOpenAI, Reply
from tests.integration.api_server import Api, running_agents

SOFIA = "agent:sofia"
PLAN = {
    "steps": [
        {"id": "project", "tool": "project.create", "args": {"name": "{{args.name}}"}},
        {
            "id": "task",
            "tool": "task.create",
            "args": {"title": "Begin {{args.name}}", "project": "{{steps.project.id}}"},
        },
    ],
    "result": {"project": "{{steps.project.id}}", "task": "{{steps.task}}"},
}
PARAMETERS = {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}}


@pytest.fixture
async def toolbox(database: Database, policy: Policy, microdao: str) -> Toolbox:
    toolbox = Toolbox(database, Outbox(database, {}, inline=True), policy)
    await toolbox.seed(microdao, SOFIA)
    return toolbox


@pytest.fixture
def sofia(microdao: str) -> Principal:
    return agent_principal(SOFIA, microdao)


@pytest.fixture
def call(microdao: str) -> ToolCallRequest:
    return ToolCallRequest(microdao, SOFIA, "plan", {"name": "Website"}, "key_member", "k1")


async def add(
    database: Database,
    microdao: str,
    name: str,
    executor: str,
    config: Any,
    parameters: Any = None,
    timeout_ms: int = 120_000,
) -> None:
    """A tool of the microDAO, granted to Sofia."""
    async with database.tenant(microdao) as connection:
        ids = {"id": f"tool_{microdao}_{name}", "microdao": microdao, "name": name, "executor": executor}
        await connection.execute(
            "INSERT INTO tool (id, microdao_id, name, active_version) VALUES (%(id)s, %(microdao)s, %(name)s, 1)", ids
        )
        await connection.execute(
            "INSERT INTO tool_version (microdao_id, tool_id, version, definition_hash, description, parameters, risk,"
            " executor, config, timeout_ms, idempotent) VALUES (%(microdao)s, %(id)s, 1, 'h', 'd', %(parameters)s, 'B',"
            " %(executor)s, %(config)s, %(timeout_ms)s, false)",
            {
                **ids,
                "timeout_ms": timeout_ms,
                "parameters": json.dumps(parameters or PARAMETERS),
                "config": json.dumps(config),
            },
        )
        await connection.execute(
            f"INSERT INTO tool_grant (microdao_id, agent_id, tool_id) VALUES (%(microdao)s, '{SOFIA}', %(id)s)", ids
        )


async def rows(database: Database, microdao: str, query: str) -> list[Row]:
    async with database.tenant(microdao) as connection:
        return await fetch_all(connection, query)


async def test_each_step_gets_what_earlier_ones_returned(
    database: Database, toolbox: Toolbox, sofia: Principal, call: ToolCallRequest, microdao: str
):
    await add(database, microdao, "plan", "chain", PLAN)
    outcome = await toolbox.execute(sofia, call)
    assert outcome.status == "succeeded", outcome
    (project,) = await rows(database, microdao, "SELECT id FROM project")
    (task,) = await rows(database, microdao, "SELECT id, title, project_id FROM task")
    assert task["title"] == "Begin Website"
    assert task["project_id"] == project["id"] == outcome.result["project"]
    assert outcome.result["task"]["id"] == task["id"]
    assert await rows(database, microdao, "SELECT depth FROM tool_execution ORDER BY id") == [
        {"depth": 0},
        {"depth": 1},
        {"depth": 1},
    ]


async def test_a_step_that_fails_ends_the_chain_with_its_reason(
    database: Database, toolbox: Toolbox, sofia: Principal, call: ToolCallRequest, microdao: str
):
    await add(database, microdao, "plan", "chain", PLAN)
    await toolbox.execute(sofia, replace(call, tool="project.create", idempotency_key=None))
    outcome = await toolbox.execute(sofia, call)
    assert outcome.status == "failed"
    assert str(outcome.error_message).startswith("step project (project.create): a project named 'Website' exists")
    assert await rows(database, microdao, "SELECT 1 FROM task") == []


async def test_a_chain_goes_on_after_a_failure_it_was_told_to_bear(
    database: Database, toolbox: Toolbox, sofia: Principal, call: ToolCallRequest, microdao: str
):
    first = {"id": "sum", "tool": "math", "args": {"expression": "1 / 0"}, "on_error": "continue"}
    await add(database, microdao, "plan", "chain", {"steps": [first, *PLAN["steps"][:1]]})
    assert (await toolbox.execute(sofia, call)).result["name"] == "Website"


async def test_a_step_needs_a_grant_of_its_own(
    database: Database, toolbox: Toolbox, sofia: Principal, call: ToolCallRequest, microdao: str
):
    await add(database, microdao, "plan", "chain", PLAN)
    await toolbox.set_grants(microdao, SOFIA, [], ["task.create"])
    outcome = await toolbox.execute(sofia, call)
    assert (outcome.status, outcome.error_code) == ("failed", "unauthorized")
    assert await rows(database, microdao, "SELECT 1 FROM task") == []


async def test_a_confidential_chain_may_not_reach_outside(
    database: Database, toolbox: Toolbox, sofia: Principal, call: ToolCallRequest, microdao: str
):
    await add(database, microdao, "plan", "chain", PLAN)
    async with database.system() as connection:
        await connection.execute(
            "UPDATE tool_version SET risk = 'C' FROM tool WHERE tool.id = tool_id AND name = 'task.create'"
            " AND tool.microdao_id = %s",
            (microdao,),
        )
    outcome = await toolbox.execute(sofia, replace(call, confidential=True))
    assert (outcome.status, outcome.error_code) == ("failed", ConfidentialDenied.code)


async def test_a_chain_that_calls_itself_ends(
    database: Database, toolbox: Toolbox, sofia: Principal, call: ToolCallRequest, microdao: str
):
    step = {"id": "again", "tool": "plan", "args": {"name": "{{args.name}}"}}
    await add(database, microdao, "plan", "chain", {"steps": [step]})
    outcome = await toolbox.execute(sofia, call)
    assert (outcome.status, outcome.error_code) == ("failed", "limit_exceeded")


async def test_a_chain_that_was_cut_off_goes_on_after_the_last_step_it_made(
    database: Database, policy: Policy, microdao: str, sofia: Principal, call: ToolCallRequest
):
    asked: list[str] = []

    async def outside(tool: Tool, args: dict[str, Any], invocation: Invocation) -> object:
        asked.append(args["name"])
        return args

    toolbox = Toolbox(database, Outbox(database, {}, inline=True), policy, Executors({"http": outside}))
    await toolbox.seed(microdao, SOFIA)
    await add(database, microdao, "reach", "http", {})
    steps = [{"id": f"s{n}", "tool": "reach", "args": {"name": f"{n}"}} for n in range(3)]
    await add(database, microdao, "plan", "chain", {"steps": steps})
    queued = await toolbox.submit(sofia, call)
    first = replace(call, tool="reach", args={"name": "0"}, idempotency_key=f"{queued.execution_id}/s0", depth=1)
    await toolbox.execute(sofia, first)
    async with database.tenant(microdao) as connection:
        await connection.execute(
            "UPDATE tool_execution SET status = 'running', attempts = 1, lease_until = now() - interval '1 s'"
            " WHERE id = %s",
            (queued.execution_id,),
        )
    outcome = await toolbox.run_queued(microdao, queued.execution_id, None)
    assert (outcome.status, outcome.result) == ("succeeded", {"name": "2"})
    assert asked == ["0", "1", "2"]


async def test_a_step_that_nobody_knows_the_end_of_makes_the_chain_unknown(
    database: Database, policy: Policy, microdao: str, sofia: Principal, call: ToolCallRequest
):
    asked: list[str] = []

    async def outside(tool: Tool, args: dict[str, Any], invocation: Invocation) -> object:
        asked.append(invocation.execution_id)
        raise ToolUncertain("cut off")

    toolbox = Toolbox(database, Outbox(database, {}, inline=True), policy, Executors({"http": outside}))
    await toolbox.seed(microdao, SOFIA)
    await add(database, microdao, "reach", "http", {})
    await add(database, microdao, "plan", "chain", {"steps": [{"id": "s", "tool": "reach", "args": {"name": "x"}}]})
    assert (await toolbox.execute(sofia, call)).status == "unknown"
    assert len(asked) == 1


async def test_nothing_below_a_chain_begins_after_its_time(
    database: Database, policy: Policy, microdao: str, sofia: Principal, call: ToolCallRequest
):
    asked: list[str] = []

    async def outside(tool: Tool, args: dict[str, Any], invocation: Invocation) -> object:
        asked.append(args["name"])
        await asyncio.sleep(1.5)
        return args

    toolbox = Toolbox(database, Outbox(database, {}, inline=True), policy, Executors({"http": outside}))
    await toolbox.seed(microdao, SOFIA)
    await add(database, microdao, "reach", "http", {})
    steps = [{"id": f"s{n}", "tool": "reach", "args": {"name": f"{n}"}} for n in range(2)]
    await add(database, microdao, "middle", "chain", {"steps": steps})
    outer = {"steps": [{"id": "m", "tool": "middle", "args": {"name": "x"}}]}
    await add(database, microdao, "plan", "chain", outer, timeout_ms=1_000)
    assert (await toolbox.execute(sofia, call)).error_code == "tool_timeout"
    await toolbox.close()
    assert asked == ["0"]
    ended = await rows(database, microdao, "SELECT status, error_code FROM tool_execution")
    assert {(row["status"], row["error_code"]) for row in ended} == {("unknown", "tool_timeout")}


@pytest.mark.parametrize(
    ("config", "param"),
    [
        ({}, "config.steps"),
        ({"steps": []}, "config.steps"),
        ({"steps": [{"id": "a"}]}, "config.steps.0"),
        ({"steps": [{"tool": "math"}]}, "config.steps.0.id"),
        ({"steps": [{"id": "a", "tool": "math"}, {"id": "a", "tool": "math"}]}, "config.steps.1.id"),
        ({"steps": [{"id": "a", "tool": "math", "args": []}]}, "config.steps.0.args"),
        ({"steps": [{"id": "a", "tool": "math", "extra": 1}]}, "config.steps.0"),
        ({"steps": [{"id": "a", "tool": "math", "on_error": "shrug"}]}, "config.steps.0.on_error"),
        ({"steps": [{"id": "a", "tool": "math", "args": {"e": "{{steps.b.x}}"}}]}, "config.steps.0.args"),
        ({"steps": [{"id": "a", "tool": "math", "args": {"e": "{{args.other}}"}}]}, "config.steps.0.args"),
        ({"steps": [{"id": "a", "tool": "math"}], "result": "{{steps.c}}"}, "config.result"),
    ],
)
def test_a_chain_that_cannot_work_is_refused_at_write(config: dict[str, Any], param: str):
    with pytest.raises(InvalidRequest) as refused:
        check_chain_config(config, PARAMETERS)
    assert refused.value.param == param


@pytest.fixture
async def fake() -> AsyncIterator[FakeOpenAI]:
    async with FakeOpenAI() as server:
        yield server


@pytest.fixture
async def api(settings: Settings, fake: FakeOpenAI, microdao: str) -> AsyncIterator[Api]:
    async with running_agents(settings, fake.base_url, microdao) as running:
        yield running


ASK = {"type": "object", "required": ["input"], "properties": {"input": {"type": "string"}}}


async def test_an_agent_is_asked_as_a_tool(
    api: Api, fake: FakeOpenAI, database: Database, microdao: str, sofia: Principal, call: ToolCallRequest
):
    await api.services.agents.create_agent(microdao, "agent:clerk", "Clerk", "sofia")
    await api.services.toolbox.seed(microdao, SOFIA)
    await add(database, microdao, "ask.clerk", "agent", {"agent_id": "agent:clerk"}, ASK)
    fake.will(Reply(text="The office opens at nine."))
    outcome = await api.services.toolbox.execute(
        sofia, replace(call, tool="ask.clerk", args={"input": "When do you open?"})
    )
    assert outcome.status == "succeeded", outcome
    assert outcome.result["text"] == "The office opens at nine."
    assert outcome.result["session_id"].startswith("sess_")
    (session,) = await rows(database, microdao, "SELECT agent_id, state FROM session")
    assert session == {"agent_id": "agent:clerk", "state": "COMPLETED"}


async def test_agents_that_ask_each_other_in_a_circle_come_to_an_end(
    api: Api, fake: FakeOpenAI, database: Database, microdao: str, sofia: Principal, call: ToolCallRequest
):
    await api.services.toolbox.seed(microdao, SOFIA)
    await add(database, microdao, "ask.self", "agent", {"agent_id": SOFIA}, ASK)
    async with database.tenant(microdao) as connection:
        await connection.execute('UPDATE blueprint_version SET definition = definition || \'{"tools": ["ask.self"]}\'')
    asked = {"name": "ask_self", "arguments": {"input": "again"}}
    fake.will(*(Reply(tool_calls=[asked]) for _ in range(5)))
    async with asyncio.timeout(120):
        await api.services.toolbox.execute(sofia, replace(call, tool="ask.self", args={"input": "go"}))
    deepest = await rows(database, microdao, "SELECT max(depth) AS depth FROM tool_execution")
    assert deepest == [{"depth": 4}]
