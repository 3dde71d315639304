"""Flows on the local engine: the real state machine, queue, executor and Postgres, with the offline model."""

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import httpx
import pytest
import uvicorn

from functions.router_step.handler import refuse_batch, take_turn
from functions.tool_executor.handler import run_message, run_task
from localstack.gateway import READY_PATH
from localstack.process import dies_with_parent, free_port
from localstack.provision import predicted_addresses
from localstack.wiring import read_wiring
from localstack.workers import FunctionHost
from shared.bootstrap import Services
from shared.cloud.poller import EventSource, Poller, http_deliver
from shared.cloud.serve import QueueFunction, each_message
from shared.db.database import fetch_all
from shared.policy.principal import Principal
from shared.router.flow import FlowRequest
from shared.settings import Settings

SECRET = "xyzzy-plugh"
CREATE = {
    "id": "create",
    "type": "tool",
    "tool": "project.create",
    "args": {"name": "Plan {{input}}"},
}
STEPS = [
    {"id": "think", "type": "llm", "args": {"prompt": "Say something about {{input}}.", "model": "offline"}},
    CREATE,
    {"id": "report", "type": "llm", "args": {"prompt": "Report: {{steps.create.output}}", "model": "offline"}},
]


class Engine:
    """The local engine in a process of its own, so that it can be killed."""

    def __init__(self, functions_url: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._functions_url = functions_url
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        self._spawn()
        async with httpx.AsyncClient() as client:
            await eventually(lambda: self._is_ready(client))

    def _spawn(self) -> None:
        command = [sys.executable, "-m", "localstack.engine", str(self.port), self._functions_url]
        self._process = subprocess.Popen(command, preexec_fn=dies_with_parent(), env={"LOG_LEVEL": "ERROR"})

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    async def _is_ready(self, client: httpx.AsyncClient) -> bool:
        try:
            return (await client.get(f"{self.url}{READY_PATH}")).status_code == 200
        except httpx.TransportError:
            return False


class House:
    """The router's part of the platform, running."""

    def __init__(self, services: Services, engine: Engine, deliver: Any) -> None:
        self.services = services
        self.engine = engine
        self._deliver = deliver

    @property
    def flows(self) -> Any:
        return self.services.flows

    @asynccontextmanager
    async def executor(self) -> AsyncIterator[None]:
        """The tool queue is worked on."""
        stop = asyncio.Event()
        source = EventSource(self.services.settings.tool_queue_url, batch_size=1)
        polling = asyncio.create_task(Poller(self.services.aws, source, self._deliver).run(stop))
        yield
        stop.set()
        await polling


async def eventually(check: Callable[[], Awaitable[Any]], seconds: float = 30) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := await check():
            return found
        await asyncio.sleep(0.05)
    raise AssertionError("it did not happen in time")


@pytest.fixture(scope="module")
async def house(settings: Settings) -> AsyncIterator[House]:
    port = free_port()
    functions_url = f"http://127.0.0.1:{port}"
    engine = Engine(functions_url)
    addresses = predicted_addresses(read_wiring(), engine.url, settings.aws_region)
    services = Services(
        replace(
            settings,
            aws_endpoint_url=engine.url,
            tool_queue_url=addresses["ToolQueue"],
            router_state_machine_arn=addresses["Router"],
        )
    )
    apps = {
        "router_step": QueueFunction("router_step", lambda: services, on_batch=refuse_batch, on_direct=take_turn),
        "tool_executor": QueueFunction(
            "tool_executor", lambda: services, on_batch=each_message(run_message), on_direct=run_task
        ),
    }
    server = uvicorn.Server(uvicorn.Config(FunctionHost(apps), "127.0.0.1", port, log_config=None, lifespan="off"))
    serving = asyncio.create_task(server._serve())
    await engine.start()
    import aiohttp

    async with aiohttp.ClientSession() as session:
        yield House(services, engine, http_deliver(session, f"{functions_url}/tool_executor"))
    engine.kill()
    server.should_exit = True
    await serving
    await services.close()


@pytest.fixture
async def member(house: House, microdao: str) -> Principal:
    await house.services.toolbox.seed(microdao, "agent:sofia")
    return Principal("key_test", microdao, frozenset({"member"}))


async def start(house: House, member: Principal, *steps: dict[str, Any], **fields: Any) -> str:
    request = FlowRequest.model_validate({"input": "tea", "steps": list(steps), **fields})
    return str((await house.flows.start(member, request))["flow_id"])


async def rows(house: House, member: Principal, query: str) -> list[dict[str, Any]]:
    async with house.services.database.tenant(member.microdao_id) as connection:
        return await fetch_all(connection, query)


async def test_a_flow_of_model_and_tool_steps_runs_through_the_state_machine(house, member):
    async with house.executor():
        flow_id = await start(house, member, *STEPS, input=SECRET)
        flow = await house.flows.wait(member.microdao_id, flow_id, 30)

    assert (flow["state"], flow["error"], flow["mode"]) == ("DONE", None, "structured")
    assert flow["transitions"] == ["INIT", "PLAN", "EXECUTE_STEP", "WAIT_TOOL", "EXECUTE_STEP", "DONE"]
    think, create, report = flow["steps"]
    assert [step["state"] for step in flow["steps"]] == ["succeeded"] * 3
    assert [step["attempts"] for step in flow["steps"]] == [1, 1, 1]
    assert all(step["ms"] >= 0 and step["started_at"] for step in flow["steps"])
    assert think["output"]["text"]
    assert create["output"]["name"] == f"Plan {SECRET}"
    assert flow["result"] == report["output"]
    assert flow["cost_microusd"] == sum(step["cost_microusd"] for step in flow["steps"])

    executions = await rows(house, member, "SELECT flow_id, step_id, requested_by, status FROM tool_execution")
    assert executions == [{"flow_id": flow_id, "step_id": "create", "requested_by": "key_test", "status": "succeeded"}]
    assert len(await rows(house, member, "SELECT 1 FROM llm_ledger WHERE flow_id IS NOT NULL")) == 2


async def test_memory_tools_act_for_the_flows_user(house, member):
    keep = {"id": "keep", "type": "tool", "tool": "memory.store", "args": {"text": "{{input}} for two"}}
    async with house.executor():
        flow_id = await start(house, member, keep, context={"user_id": "olena"})
        flow = await house.flows.wait(member.microdao_id, flow_id, 30)
    assert flow["state"] == "DONE", flow["error"]
    kept = "SELECT s.kind, s.name, i.text FROM memory_item i JOIN memory_scope s USING (scope_id)"
    assert await rows(house, member, kept) == [{"kind": "user", "name": "olena", "text": "tea for two"}]


async def test_only_ids_pass_through_the_engine(house, member):
    async with house.executor():
        flow_id = await start(house, member, *STEPS, input=SECRET)
        await house.flows.wait(member.microdao_id, flow_id, 30)
    (row,) = await rows(house, member, "SELECT execution_arn FROM flow")

    async def has_ended() -> bool:
        return await house.services.workflow.status(row["execution_arn"]) != "RUNNING"

    await eventually(has_ended)
    assert await house.services.workflow.status(row["execution_arn"]) == "SUCCEEDED"
    history = house.services.aws.stepfunctions.get_execution_history(executionArn=row["execution_arn"], maxResults=1000)
    assert flow_id in str(history)
    assert SECRET not in str(history)


async def test_a_failing_tool_ends_the_flow_by_the_error_table(house, member):
    async with house.executor():
        wrong = await start(house, member, {"tool": "math", "args": {"nonsense": 1}})
        broken = await start(house, member, {"tool": "math", "args": {"expression": "1/0"}})
        skipped = await start(
            house, member, {"tool": "math", "args": {"expression": "1/0"}, "on_error": "skip"}, CREATE
        )
        flows = [await house.flows.wait(member.microdao_id, flow_id, 30) for flow_id in (wrong, broken, skipped)]

    assert [flow["state"] for flow in flows] == ["FAILED", "FAILED", "DONE"]
    assert flows[0]["error"]["code"] == "invalid_args"
    assert flows[0]["error"]["step"] == "step_1"
    assert flows[0]["transitions"] == [
        "INIT",
        "PLAN",
        "EXECUTE_STEP",
        "WAIT_TOOL",
        "EXECUTE_STEP",
        "ERROR_RECOVERY",
        "DONE",
    ]
    assert flows[1]["steps"][0]["error"]["code"] == "tool_failed"
    assert [step["state"] for step in flows[2]["steps"]] == ["skipped", "succeeded"]


async def test_a_tool_without_a_grant_aborts_the_flow(house, member):
    await house.services.toolbox.set_grants(member.microdao_id, "agent:sofia", [], ["math"])
    async with house.executor():
        flow_id = await start(house, member, {"tool": "math", "args": {"expression": "1"}, "on_error": "skip"})
        flow = await house.flows.wait(member.microdao_id, flow_id, 30)
    assert (flow["state"], flow["error"]["code"]) == ("ABORTED", "unauthorized")
    assert await rows(house, member, "SELECT 1 FROM tool_execution") == []


async def test_a_flow_goes_on_after_its_execution_is_lost_and_nothing_runs_twice(house, member):
    flow_id = await start(house, member, *STEPS)  # nobody works on the tool queue yet

    async def waits() -> bool:
        return (await house.flows.get(member.microdao_id, flow_id))["state"] == "WAIT_TOOL"

    await eventually(waits)
    await house.flows.resume_lost()  # also takes up flows that other tests left; this one is well
    assert await rows(house, member, "SELECT executions FROM flow") == [{"executions": 1}]
    house.engine.kill()
    await house.engine.start()
    assert await house.flows.resume_lost() >= 1
    async with house.executor():
        flow = await house.flows.wait(member.microdao_id, flow_id, 30)

    assert flow["state"] == "DONE"
    assert [step["attempts"] for step in flow["steps"]] == [1, 1, 1]
    assert await rows(house, member, "SELECT attempts FROM tool_execution") == [{"attempts": 1}]
    assert len(await rows(house, member, "SELECT 1 FROM project")) == 1
    assert len(await rows(house, member, "SELECT 1 FROM llm_ledger")) == 2
    assert await rows(house, member, "SELECT executions FROM flow") == [{"executions": 2}]


async def test_a_flow_whose_executions_keep_ending_is_given_up(house, member):
    flow_id = await start(house, member, CREATE)
    async with house.services.database.tenant(member.microdao_id) as connection:
        # A revision far ahead makes whatever the running execution still does stale.
        await connection.execute(
            "UPDATE flow SET executions = 20, execution_arn = 'arn:aws:states:gone', revision = revision + 1000,"
            " state = 'EXECUTE_STEP', finished_at = NULL"
        )
    await house.flows.resume_lost()
    flow = await house.flows.get(member.microdao_id, flow_id)
    assert (flow["state"], flow["error"]["code"]) == ("FAILED", "internal")
