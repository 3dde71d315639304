"""The brain's turns on real rows: repeated, stale, interrupted. The test stands where the state machine does."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web

from functions.router_step.handler import refuse_batch, take_turn
from localstack.process import free_port
from shared.bootstrap import Services
from shared.cloud.serve import Message
from shared.db.database import fetch_all
from shared.errors import IdempotencyConflict, InvalidRequest, NotFound
from shared.policy.principal import Principal
from shared.router.flow import FlowRequest
from shared.settings import ROOT, Settings

ASK = {"id": "ask", "type": "llm", "args": {"prompt": "hello", "model": "offline"}}
ADD = {"id": "add", "type": "tool", "tool": "math", "args": {"expression": "2+2"}}
CREATE = {"id": "create", "type": "tool", "tool": "project.create", "args": {"name": "Tea"}}
PHASES = {"plan": "plan", "execute": "step", "tool": "step", "delay": "step", "recover": "recover"}


class SlowModel:
    """A model server that speaks OpenAI's format and answers only once it may."""

    def __init__(self) -> None:
        self.may_answer = asyncio.Event()
        self.was_called = asyncio.Event()
        self.calls = 0
        self.url = ""

    async def answer(self, request: web.Request) -> web.Response:
        self.calls += 1
        self.was_called.set()
        await self.may_answer.wait()
        message = {"role": "assistant", "content": "at last\x00"}
        usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return web.json_response(
            {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage}
        )


@pytest.fixture
async def model() -> AsyncIterator[SlowModel]:
    model = SlowModel()
    app = web.Application()
    app.router.add_post("/v1/chat/completions", model.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    model.url = f"http://127.0.0.1:{port}/v1"
    yield model
    model.may_answer.set()
    await runner.cleanup()


@pytest.fixture
async def services(settings: Settings, model: SlowModel) -> AsyncIterator[Services]:
    """No engine listens: flows are written down, and only the test takes their turns."""
    services = Services(
        replace(
            settings,
            aws_endpoint_url=f"http://127.0.0.1:{free_port()}",
            tool_queue_url="http://127.0.0.1/queue",
            router_state_machine_arn="arn:aws:states:eu-central-1:123456789012:stateMachine:none",
            openai_api_key="sk-test",
            openai_base_url=model.url,
        )
    )
    yield services
    await services.close()


@pytest.fixture
async def member(services: Services, microdao: str) -> Principal:
    await services.toolbox.seed(microdao, "agent:sofia")
    return Principal("key_test", microdao, frozenset({"member"}))


class Machine:
    """Takes a flow's turns one by one, like the state machine's ROUTE."""

    def __init__(self, services: Services, member: Principal, flow_id: str) -> None:
        self._services = services
        self.microdao_id, self.flow_id = member.microdao_id, flow_id
        self.answer: dict[str, Any] = {}

    async def take(self, phase: str, revision: int | None = None, error: str = "") -> dict[str, Any]:
        if revision is None:
            revision = self.answer["run"]["revision"] if self.answer else 0
        payload = {"phase": phase, "microdao_id": self.microdao_id, "flow_id": self.flow_id, "revision": revision}
        self.answer = await take_turn(self._services, payload | {"last": {"error": error}})
        return self.answer["next"]

    async def run_tool(self) -> None:
        job = self.answer["next"]["job"]
        await self._services.toolbox.run_queued(job["microdao_id"], job["execution_id"], "token")

    async def until(self, action: str) -> dict[str, Any]:
        """Go on, running tools, until the brain says ``action``."""
        next_ = self.answer["next"] if self.answer else await self.take("init")
        for _ in range(50):
            if next_["action"] == action:
                return next_
            if next_["action"] == "tool":
                await self.run_tool()
            next_ = await self.take(PHASES[next_["action"]])
        raise AssertionError(f"never {action}")

    async def flow(self) -> dict[str, Any]:
        return await self._services.flows.get(self.microdao_id, self.flow_id)


async def begin(services: Services, member: Principal, *steps: dict[str, Any], **fields: Any) -> Machine:
    request = FlowRequest.model_validate({"steps": list(steps), **fields})
    flow = await services.flows.start(member, request)
    assert flow["state"] == "INIT"
    return Machine(services, member, flow["flow_id"])


async def rows(services: Services, member: Principal, query: str) -> list[dict[str, Any]]:
    async with services.database.tenant(member.microdao_id) as connection:
        return await fetch_all(connection, query)


async def test_a_flow_is_written_down_even_when_no_engine_answers(services, member):
    machine = await begin(services, member, ASK, ADD, ASK | {"id": "again"})
    await machine.until("done")
    flow = await machine.flow()
    assert (flow["state"], flow["steps"][1]["output"]["result"]) == ("DONE", 4)


async def test_the_golden_inputs_are_understood(services, member):
    names = {path.name.split(".")[1]: path for path in (ROOT / "events").glob("router_step.*.json")}
    assert set(names) == {"init", "step", "recover", "schedule"}
    for name in ("init", "step", "recover"):
        answer = await take_turn(services, json.loads(names[name].read_text(encoding="utf-8")))
        assert answer["next"] == {"action": "abort"}  # nobody knows that flow


@pytest.mark.parametrize(
    "event",
    [{}, {"task": "dance"}, {"phase": "init"}, {"phase": "x", "microdao_id": "a", "flow_id": "b", "revision": 1}],
)
async def test_other_events_are_refused(services, event):
    with pytest.raises(InvalidRequest):
        await take_turn(services, event)


async def test_queue_messages_are_refused(services):
    assert await refuse_batch(services, [Message("m1", {}), Message("m2", {})]) == {"m1", "m2"}


async def test_a_repeated_turn_is_told_the_same_and_does_nothing(services, member):
    machine = await begin(services, member, CREATE)
    await machine.take("init")
    plan_revision = machine.answer["run"]["revision"]
    await machine.take("plan")
    await machine.take("step")
    waiting = machine.answer
    assert waiting["next"]["action"] == "tool"

    for phase, revision in (("init", 0), ("plan", plan_revision), ("step", plan_revision + 1)):
        await machine.take(phase, revision)
        assert machine.answer == waiting
    assert len(await rows(services, member, "SELECT 1 FROM tool_execution")) == 1

    await machine.until("done")
    ended = machine.answer
    await machine.take("step", waiting["run"]["revision"])
    assert machine.answer == ended
    assert len(await rows(services, member, "SELECT 1 FROM project")) == 1


async def test_two_drivers_at_once_run_each_step_once(services, member):
    first = await begin(services, member, ASK, CREATE, ASK | {"id": "report"})
    second = Machine(services, member, first.flow_id)
    await asyncio.gather(first.until("done"), second.until("done"))
    assert [step["attempts"] for step in (await first.flow())["steps"]] == [1, 1, 1]
    assert len(await rows(services, member, "SELECT 1 FROM project")) == 1
    assert len(await rows(services, member, "SELECT 1 FROM llm_ledger")) == 2


async def test_a_driver_that_begins_again_takes_the_outcome_of_a_finished_tool(services, member):
    machine = await begin(services, member, CREATE)
    await machine.until("tool")
    await machine.run_tool()  # and the engine dies before its token is answered
    assert await machine.take("init") == {"action": "done"}
    assert (await machine.flow())["steps"][0]["attempts"] == 1


async def age_runs(services: Services, member: Principal) -> None:
    """Every run of a tool ended long ago."""
    async with services.database.tenant(member.microdao_id) as connection:
        await connection.execute("UPDATE tool_execution SET finished_at = finished_at - interval '300 days'")


async def test_a_flow_taken_up_again_after_months_finds_how_its_tool_ended(services, member):
    machine = await begin(services, member, CREATE, ADD)
    await machine.until("tool")
    await machine.run_tool()  # and the machine is switched off
    await age_runs(services, member)
    await services.execution_pruning.sweep()
    await machine.take("init")
    await machine.until("done")
    assert [(step["state"], step["attempts"]) for step in (await machine.flow())["steps"]] == [("succeeded", 1)] * 2
    assert len(await rows(services, member, "SELECT 1 FROM project")) == 1


async def test_a_flow_that_ended_is_shown_as_it_was_when_the_runs_of_its_tools_are_gone(services, member):
    machine = await begin(services, member, CREATE, ADD)
    await machine.until("done")
    shown, ended = await machine.flow(), machine.answer
    assert shown["result"] is not None
    await age_runs(services, member)
    await services.execution_pruning.sweep()
    assert await rows(services, member, "SELECT 1 FROM tool_execution") == []
    assert await machine.flow() == shown
    for phase in ("init", "step", "recover"):  # a message that comes late
        await machine.take(phase, 1)
        assert machine.answer == ended
    assert len(await rows(services, member, "SELECT 1 FROM project")) == 1


async def test_a_driver_that_begins_again_sends_out_the_same_execution(services, member):
    machine = await begin(services, member, CREATE)
    job = (await machine.until("tool"))["job"]
    again = await machine.take("init")
    assert (again["action"], again["job"]) == ("tool", job)


async def test_a_wait_that_timed_out_is_tried_again_with_the_same_execution_and_then_skipped(services, member):
    machine = await begin(services, member, CREATE, ASK)
    job = (await machine.until("tool"))["job"]
    assert (await machine.take("recover", error="States.Timeout"))["action"] == "delay"
    assert (await machine.take("step"))["job"] == job
    await machine.take("recover", error="States.Timeout")
    await machine.until("done")
    flow = await machine.flow()
    assert [step["state"] for step in flow["steps"]] == ["skipped", "succeeded"]
    assert flow["steps"][0]["error"]["code"] == "tool_timeout"


async def test_an_answer_that_came_just_in_time_counts(services, member):
    machine = await begin(services, member, CREATE)
    await machine.until("tool")
    await machine.run_tool()
    assert await machine.take("recover", error="States.Timeout") == {"action": "done"}


async def test_a_missing_field_of_an_earlier_output_is_an_invalid_argument(services, member):
    later = {"id": "later", "tool": "math", "args": {"expression": "{{steps.add.output.nothing}}"}}
    machine = await begin(services, member, ADD, later)
    await machine.until("abort")
    flow = await machine.flow()
    assert (flow["state"], flow["error"]["code"], flow["error"]["step"]) == ("FAILED", "invalid_args", "later")


async def test_a_tool_step_takes_the_output_of_the_tool_step_right_before_it(services, member):
    later = {"id": "later", "tool": "math", "args": {"expression": "{{steps.add.output.result}} * 2"}}
    last = {
        "id": "last",
        "tool": "math",
        "args": {"expression": "{{steps.add.output.result}} + {{steps.later.output.result}}"},
    }
    machine = await begin(services, member, ADD, later, last)
    await machine.until("done")
    assert [step["output"]["result"] for step in (await machine.flow())["steps"]] == [4, 8, 12]


@pytest.mark.parametrize(
    "text", ["is {{steps.big.output.result}}", f"{{{{steps.big.output.{'9' * 5000}}}}}", "{{input}}" * 1500]
)
@pytest.mark.parametrize("kind", ["llm", "tool"])
async def test_what_cannot_be_resolved_fails_its_step(services, member, text, kind):
    big = {"id": "big", "tool": "math", "args": {"expression": "10**30"}}
    use = {"llm": {"type": "llm", "args": {"prompt": text}}, "tool": {"tool": "math", "args": {"expression": text}}}
    machine = await begin(services, member, big, {"id": "use", **use[kind]}, input="x" * 10_000)
    await machine.until("abort")
    flow = await machine.flow()
    assert (flow["state"], flow["error"]["code"], flow["error"]["step"]) == ("FAILED", "invalid_args", "use")


async def test_an_alias_and_an_id_name_a_tool(services, member):
    tool = await services.toolbox.find(member.microdao_id, "math")
    alias = {"tool": "create_task", "args": {"title": "Tea"}}
    flow = (await begin(services, member, alias, ADD | {"tool": tool.id})).flow_id
    assert len((await services.flows.get(member.microdao_id, flow))["steps"]) == 2
    with pytest.raises(InvalidRequest, match="unknown tool 'teleport'"):
        await begin(services, member, ADD, {"tool": "teleport"})


async def test_an_interrupted_model_call_is_made_again_and_its_late_answer_is_dropped(services, member, model):
    machine = await begin(services, member, ASK | {"args": {"prompt": "hello", "model": "gpt-4.1-mini"}})
    await machine.until("execute")
    calling = asyncio.create_task(machine.take("step"))
    await model.was_called.wait()

    rival = Machine(services, member, machine.flow_id)
    assert await rival.take("step", revision=0) == {"action": "delay", "seconds": 2}
    assert (await rival.take("step"))["action"] == "delay"
    assert model.calls == 1

    assert await rival.take("init") == {"action": "execute"}  # a new execution: the old driver is taken for dead
    model.may_answer.set()
    await calling
    assert machine.answer == rival.answer
    await rival.until("done")
    flow = await rival.flow()
    assert (flow["steps"][0]["attempts"], flow["result"]["text"], model.calls) == (2, "at last", 2)
    assert flow["cost_microusd"] == flow["steps"][0]["cost_microusd"] > 0


async def test_a_flow_may_not_cost_more_than_allowed(services, member, model):
    model.may_answer.set()
    ask = ASK | {"args": {"prompt": "hello", "model": "gpt-4.1-mini"}}
    machine = await begin(services, member, ask, CREATE, constraints={"max_cost_microusd": 0})
    await machine.until("abort")
    flow = await machine.flow()
    assert (flow["state"], flow["error"]["code"]) == ("ABORTED", "cost_limit_exceeded")
    assert flow["steps"][1]["state"] == "pending"


async def test_the_same_key_shows_the_flow_it_started(services, member):
    first = await begin(services, member, ADD, idempotency_key="k")
    second = await begin(services, member, ADD, idempotency_key="k")
    assert first.flow_id == second.flow_id
    with pytest.raises(IdempotencyConflict):
        await begin(services, member, ASK, idempotency_key="k")


@pytest.mark.parametrize("number", [1e23, 1e-7, 2.0])
async def test_the_same_key_with_the_same_number_is_the_same_request(services, member, number):
    sent = ADD | {"args": {"number": number}}
    first = await begin(services, member, sent, idempotency_key="k")
    second = await begin(services, member, sent, idempotency_key="k")
    assert first.flow_id == second.flow_id


@pytest.mark.parametrize("context", [{"agent_id": "agent:nobody"}, {"team_id": "microdao:other"}])
async def test_unknown_agents_and_tenants_are_not_found(services, member, context):
    with pytest.raises(NotFound):
        await begin(services, member, ADD, context=context)


async def test_another_tenant_sees_no_flow(services, member):
    machine = await begin(services, member, ADD)
    for flow_id in (machine.flow_id, "flow_none", "nul \x00"):
        with pytest.raises(NotFound):
            await services.flows.get("microdao:other", flow_id)
    assert await services.flows.list("microdao:other", None, 10) == []


async def test_flows_are_listed_newest_first(services, member):
    made = [(await begin(services, member, ADD)).flow_id for _ in range(3)]
    page = await services.flows.list(member.microdao_id, None, 2)
    assert [flow["flow_id"] for flow in page] == made[:0:-1]
    rest = await services.flows.list(member.microdao_id, page[-1]["flow_id"], 2)
    assert [flow["flow_id"] for flow in rest] == made[:1]
    assert rest[0]["steps"][0]["id"] == "add"
