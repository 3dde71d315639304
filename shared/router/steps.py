"""Runs a flow's steps: a model call here and now, a tool call as an execution that the tool executor picks up.

Arguments are resolved at this moment, policy is asked at this moment, and every failure comes back as an event.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError

from shared.db.database import Database
from shared.errors import ApiError, InvalidArgs, LlmTimeout
from shared.llm.caller import Caller
from shared.observability import Log
from shared.policy.decision import Resource
from shared.policy.principal import agent_principal
from shared.router import store
from shared.router.engine import Failed, Succeeded
from shared.router.flow import FlowState, Step
from shared.router.store import StoredFlow
from shared.router.templates import references, resolve, step_of
from shared.tools.model import ToolCallRequest, ToolOutcome
from shared.tools.references import as_text
from shared.wire.chat import ChatRequest

if TYPE_CHECKING:
    from shared.llm.gateway import Gateway
    from shared.policy.policy import Policy
    from shared.tools.toolbox import Toolbox

MODEL_WAIT_S: Final = 100.0
"""How long a model call may take: below the time-out of router_step, which stands below the 120 s a step may wait."""

_TASK = "You carry out one task of a larger flow. Answer with the task's result only. The task: {task}"


_log = Log("router")


@dataclass(frozen=True, slots=True)
class Dispatched:
    """A tool step whose execution exists and waits to be run."""

    execution_id: str


class StepRunner:
    """Makes the calls of a flow's steps on behalf of the flow's agent."""

    def __init__(self, database: Database, gateway: "Gateway", toolbox: "Toolbox", policy: "Policy") -> None:
        self._database = database
        self._gateway = gateway
        self._toolbox = toolbox
        self._policy = policy

    async def call_model(self, flow: StoredFlow, position: int) -> Succeeded | Failed:
        """Call the model of an llm step and wait for its answer."""
        step = flow.state.steps[position]
        try:
            answer = await self._complete(flow, step)
        except ApiError as error:
            return Failed(position, error.code, error.message)
        return Succeeded(position, _model_output(answer), int(answer.get("daarion", {}).get("cost_microusd", 0)))

    async def submit_tool(self, flow: StoredFlow, state: FlowState, position: int) -> Dispatched | Succeeded | Failed:
        """Make sure that the step has an execution to run. One that has an outcome already is not run again.

        An execution that nobody finished is taken up again rather than doubled: the executor runs it once. ``state``
        is the flow as it is now, ``flow`` as it was last written.
        """
        step = state.steps[position]
        if step.execution_id:
            outcome = await self._toolbox.outcome(flow.microdao_id, step.execution_id)
            if outcome.status in ("queued", "running"):
                return Dispatched(step.execution_id)
            if outcome.status == "succeeded":
                return settled(position, outcome)
        try:
            outcome = await self._submit(flow, step, _unwritten_outputs(flow, state))
        except ApiError as error:
            return Failed(position, error.code, error.message)
        if outcome.status in ("queued", "running"):
            return Dispatched(outcome.execution_id)
        return settled(position, outcome)

    async def outcome(self, flow: StoredFlow, position: int) -> Succeeded | Failed | None:
        """How the execution of a waiting tool step ended; None while it has not."""
        step = flow.state.steps[position]
        if step.execution_id is None:
            return None
        outcome = await self._toolbox.outcome(flow.microdao_id, step.execution_id)
        return None if outcome.status in ("queued", "running") else settled(position, outcome)

    async def _complete(self, flow: StoredFlow, step: Step) -> dict[str, Any]:
        model = (step.fallback_model if step.fell_back else step.model) or self._gateway.default_model()
        agent = agent_principal(flow.agent_id, flow.microdao_id)
        await self._policy.authorize(agent, "llm.invoke", Resource("Model", model, flow.microdao_id))
        request = await self._model_request(flow, step, model)
        caller = Caller(microdao_id=flow.microdao_id, agent_id=flow.agent_id, flow_id=flow.id)
        try:
            async with asyncio.timeout(MODEL_WAIT_S):
                return await self._gateway.complete(request, caller)
        except TimeoutError:
            raise LlmTimeout(f"the model did not answer within {MODEL_WAIT_S:.0f} s") from None

    async def _model_request(self, flow: StoredFlow, step: Step, model: str) -> ChatRequest:
        return model_request(model, await self._resolved(flow, step, {}), flow.fields)

    async def _submit(self, flow: StoredFlow, step: Step, unwritten: Mapping[str, Any]) -> ToolOutcome:
        request = ToolCallRequest(
            microdao_id=flow.microdao_id,
            agent_id=flow.agent_id,
            tool=step.tool or "",
            args=await self._resolved(flow, step, unwritten),
            requested_by=flow.requested_by,
            idempotency_key=f"{flow.id}/{step.id}/{step.attempts}",
            user_id=flow.user_id,
            flow_id=flow.id,
            step_id=step.id,
        )
        return await self._toolbox.submit(agent_principal(flow.agent_id, flow.microdao_id), request)

    async def _resolved(self, flow: StoredFlow, step: Step, unwritten: Mapping[str, Any]) -> dict[str, Any]:
        """The step's arguments. What cannot be resolved is the step's failure: an exception would only come again."""
        try:
            outputs = await self._outputs(flow, step, unwritten)
            resolved: dict[str, Any] = resolve(step.args, flow.fields, outputs)
        except ApiError:
            raise
        except Exception as error:
            _log.warning("arguments not resolved", flow_id=flow.id, step=step.id, error=type(error).__name__)
            raise InvalidArgs(f"the arguments could not be resolved ({type(error).__name__})") from None
        return resolved

    async def _outputs(self, flow: StoredFlow, step: Step, unwritten: Mapping[str, Any]) -> dict[str, Any]:
        named = {name for reference in references(step.args) if (name := step_of(reference))}
        outputs = {name: unwritten[name] for name in named & unwritten.keys()}
        if written := sorted(named - unwritten.keys()):
            async with self._database.tenant(flow.microdao_id) as connection:
                outputs |= await store.load_outputs(connection, flow.id, written)
        return outputs


def _unwritten_outputs(flow: StoredFlow, state: FlowState) -> dict[str, Any]:
    """Outputs of the steps that succeeded since the flow was last written, by step id."""
    return {
        now.id: now.output
        for before, now in zip(flow.state.steps, state.steps, strict=True)
        if now.state == "succeeded" != before.state
    }


def settled(position: int, outcome: ToolOutcome) -> Succeeded | Failed:
    """A finished execution as the engine hears of it."""
    if outcome.status == "succeeded":
        return Succeeded(position, outcome.result, outcome.cost_microusd)
    code = outcome.error_code or "tool_failed"
    return Failed(position, code, outcome.error_message or "the tool failed", outcome.cost_microusd)


def model_request(model: str, args: Mapping[str, Any], fields: Mapping[str, str]) -> ChatRequest:
    """The chat request of an llm step's resolved arguments. Raises InvalidArgs when they make none."""
    body = {name: args[name] for name in ("temperature", "max_tokens") if args.get(name) is not None}
    try:
        return ChatRequest.model_validate({"model": model, "messages": _messages(args, fields), **body})
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        raise InvalidArgs(f"{'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}") from None


def _messages(args: Mapping[str, Any], fields: Mapping[str, str]) -> Any:
    if "messages" in args:
        return args["messages"]
    if "prompt" in args:
        return [{"role": "user", "content": as_text(args["prompt"])}]
    given = "\n\n".join(f"{name.capitalize()}: {fields[name]}" for name in ("goal", "input") if fields[name])
    return [
        {"role": "system", "content": _TASK.format(task=as_text(args["task"]))},
        {"role": "user", "content": given or "Begin."},
    ]


def _model_output(answer: Mapping[str, Any]) -> dict[str, Any]:
    choice = answer["choices"][0]
    text = (choice["message"].get("content") or "").replace("\x00", "")  # a jsonb column takes no NUL
    return {
        "text": text,
        "model": answer["model"],
        "finish_reason": choice["finish_reason"],
        "usage": answer.get("usage"),
    }
