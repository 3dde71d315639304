"""The agent loop: ask the model, run the tools it calls, ask again, until it answers in words."""

import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any

import orjson
from pydantic import ValidationError

from shared.agents.prompt import build_messages
from shared.agents.sessions import Session, Sessions, check_history
from shared.agents.turn import TextDelta, ToolUse, TurnResult
from shared.errors import ApiError, ContextLengthExceeded
from shared.llm.caller import Caller
from shared.llm.gateway import Gateway
from shared.policy.principal import agent_principal
from shared.tools.model import Tool, ToolCallRequest, ToolOutcome
from shared.tools.toolbox import Toolbox
from shared.wire.assemble import AnswerAssembler
from shared.wire.chat import ChatRequest, ToolSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopInput:
    """What one turn works with. ``depth`` tools stand above it."""

    session: Session
    key_id: str
    memories: Sequence[str]
    said: Sequence[str]
    tools: Sequence[Tool]
    client_tools: Sequence[ToolSpec]
    overrides: dict[str, Any]
    depth: int = 0
    confidential: bool = False


class AgentLoop:
    """Runs one turn of a session. It writes what it does to ``result`` as it goes."""

    def __init__(self, gateway: Gateway, toolbox: Toolbox, sessions: Sessions, work: LoopInput) -> None:
        self._gateway = gateway
        self._toolbox = toolbox
        self._sessions = sessions
        self._work = work
        self._definition = work.session.agent.definition
        self._tools = {tool.function_name: tool for tool in work.tools}
        self._client_names = {spec.function.name for spec in work.client_tools}
        self._caller = Caller(
            microdao_id=work.session.agent.microdao_id,
            agent_id=work.session.agent.agent_id,
            key_id=work.key_id,
            session_id=work.session.id,
            blueprint=self._definition.code,
            sanitize=self._definition.sanitize.policy() if self._definition.sanitize else None,
        )

    async def run(self, result: TurnResult) -> AsyncGenerator[TextDelta | ToolUse, None]:
        """Yield text and tool runs; ``result`` holds the reply when the iterator ends."""
        history = list(self._work.session.history)
        while True:
            answer = AnswerAssembler()
            async with aclosing(self._gateway.stream(self._request(history, result), self._caller)) as chunks:
                async for chunk in chunks:
                    if text := answer.feed(chunk):
                        yield TextDelta(text)
            result.add(answer.usage, answer.cost_microusd)
            message = answer.message()
            calls = message.get("tool_calls", [])
            if not calls or self._is_for_client(message):
                result.reply = message
                result.finish_reason = answer.finish_reason or "stop"  # type: ignore[assignment]
                return
            produced = [message]
            for call in calls:
                use, reply = await self._run_tool(call)
                produced.append(reply)
                result.tools.append(use)
                yield use
            await self._sessions.append(self._work.session, produced)
            history.extend(produced)

    def _request(self, history: list[dict[str, Any]], result: TurnResult) -> ChatRequest:
        check_history(history)
        specs = [*map(_tool_spec, self._tools.values()), *(spec.model_dump() for spec in self._work.client_tools)]
        body: dict[str, Any] = {
            "model": self._definition.model,
            "messages": build_messages(self._definition.instructions, self._work.memories, history, self._work.said),
            "stream": True,
            **self._definition.llm.model_dump(exclude_none=True),
            **self._work.overrides,
        }
        if self._definition.cache_ttl_s is not None:
            body["metadata"] = {"cache": {"ttl_s": self._definition.cache_ttl_s}}
        if specs:
            body["tools"] = specs
            body["tool_choice"] = "none" if self._is_exhausted(result) else "auto"
        return _checked(body)

    def _is_exhausted(self, result: TurnResult) -> bool:
        """The last permitted call must answer in words."""
        limits = self._definition.limits
        if limits.max_cost_microusd is not None and result.cost_microusd >= limits.max_cost_microusd:
            return True
        return result.iterations >= limits.max_iterations - 1

    def _is_for_client(self, message: dict[str, Any]) -> bool:
        """Whether the client must run a tool of its own; then only its calls are handed over."""
        theirs = [call for call in message["tool_calls"] if call["function"]["name"] in self._client_names]
        if theirs:
            message["tool_calls"] = theirs
        return bool(theirs)

    async def _run_tool(self, call: dict[str, Any]) -> tuple[ToolUse, dict[str, Any]]:
        name = call["function"]["name"]
        tool = self._tools.get(name)
        if tool is None:
            agent = self._work.session.agent
            with suppress(ApiError):  # which leaves a row of the refusal
                await self._toolbox.find_for_agent(agent.microdao_id, agent.agent_id, name)
            return ToolUse(name, "", "failed", 0), _tool_reply(call, {"error": f"there is no tool {name!r}"})
        try:
            outcome = await self._execute(tool, call)
        except ApiError as error:
            return ToolUse(tool.name, "", "failed", 0), _tool_reply(call, {"error": error.message})
        use = ToolUse(tool.name, outcome.execution_id, outcome.status, outcome.ms or 0)
        return use, _tool_reply(call, _shown(outcome))

    async def _execute(self, tool: Tool, call: dict[str, Any]) -> ToolOutcome:
        agent = self._work.session.agent
        request = ToolCallRequest(
            microdao_id=agent.microdao_id,
            agent_id=agent.agent_id,
            tool=tool.id,
            args=_arguments(call["function"]["arguments"]),
            requested_by=self._work.key_id,
            session_id=self._work.session.id,
            user_id=self._work.session.user_id,
            depth=self._work.depth,
            confidential=self._work.confidential,
        )
        return await self._toolbox.execute(agent_principal(agent.agent_id, agent.microdao_id), request)


def _checked(body: dict[str, Any]) -> ChatRequest:
    """The request. Raises ContextLengthExceeded for what was said in the session and no request may hold."""
    try:
        return ChatRequest.model_validate(body)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
    # Raised out here: the cause quotes what was said, and must not be logged with it.
    where = ".".join(map(str, fault["loc"]))
    raise ContextLengthExceeded(f"the session cannot go on ({where}: {fault['msg']}); start a new session")


def _tool_spec(tool: Tool) -> dict[str, Any]:
    function = {"name": tool.function_name, "description": tool.description, "parameters": tool.parameters}
    return {"type": "function", "function": function}


def _arguments(text: str) -> Any:
    """The model's argument text as JSON; text that is none goes on as it is, for validation to refuse."""
    try:
        return orjson.loads(text or "{}")
    except orjson.JSONDecodeError:
        return text


def _shown(outcome: ToolOutcome) -> Any:
    if outcome.status == "succeeded":
        return outcome.result
    return {"error": outcome.error_message, "code": outcome.error_code}


def _tool_reply(call: dict[str, Any], result: Any) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call["id"], "content": _as_json(result)}


def _as_json(result: Any) -> str:
    """JSON of any result: orjson is strict about numbers, and a tool may give one of more than 64 bits."""
    return json.dumps(result, ensure_ascii=False, separators=(",", ":"))
