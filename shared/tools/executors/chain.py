"""The ``chain`` executor: tools run one after another, each with what earlier ones returned.

``config``: ``{"steps": [{"id", "tool", "args", "on_error": "abort|continue"}], "result"}``. Arguments and ``result``
may hold ``{{args.<path>}}`` and ``{{steps.<id>.<path>}}``; without ``result`` a chain returns what its last step did.
Every step is an execution of its own, on the same path and under the same policy as any other, with an idempotency key
made of the chain's: a chain that was cut off goes on after the last step it made.
"""

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from shared.errors import ApiError, IdempotencyInProgress, InvalidArgs, InvalidRequest, Unavailable
from shared.policy.principal import Principal, agent_principal
from shared.tools.model import Invocation, Tool, ToolCallRequest, ToolFailed, ToolOutcome, ToolUncertain
from shared.tools.references import descend, references, resolve

MAX_STEPS: Final = 20
_VOCABULARY = re.compile(r"\{\{\s*((?:args|steps)\.[^{}\s]+)\s*\}\}")
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_FIELDS = {"id", "tool", "args", "on_error"}

Execute = Callable[[Principal, ToolCallRequest], Awaitable[ToolOutcome]]


class ChainExecutor:
    """Runs chains through ``execute``, the one path of all tools."""

    def __init__(self, execute: Execute) -> None:
        self._execute = execute

    async def __call__(self, tool: Tool, args: dict[str, Any], invocation: Invocation) -> object:
        """The chain's result. Raises ToolFailed for a step that failed, ToolUncertain for one that is unknown."""
        outputs: dict[str, Any] = {}
        result: Any = None
        for step in tool.config["steps"]:
            outcome = await self._run(step, _resolved(step.get("args", {}), args, outputs, step["id"]), invocation)
            if outcome.status != "succeeded" and step.get("on_error") != "continue":
                raise _failure(step, outcome)
            result = outputs[step["id"]] = outcome.result
        if "result" in tool.config:
            return _resolved(tool.config["result"], args, outputs, "result")
        return result

    async def _run(self, step: Mapping[str, Any], args: dict[str, Any], invocation: Invocation) -> ToolOutcome:
        request = ToolCallRequest(
            microdao_id=invocation.microdao_id,
            agent_id=invocation.agent_id,
            tool=step["tool"],
            args=args,
            requested_by=invocation.requested_by,
            idempotency_key=f"{invocation.execution_id}/{step['id']}",
            session_id=invocation.session_id,
            user_id=invocation.user_id,
            flow_id=invocation.flow_id,
            confidential=invocation.confidential,
            depth=invocation.depth + 1,
        )
        try:
            return await self._execute(agent_principal(invocation.agent_id, invocation.microdao_id), request)
        except (IdempotencyInProgress, Unavailable) as error:
            raise ToolFailed(f"step {step['id']}: {error.message}", is_transient=True, retry_after_s=1.0) from None
        except ApiError as error:
            raise ToolFailed(f"step {step['id']} ({step['tool']}): {error.message}", code=error.code) from None


def check_chain_config(config: Mapping[str, Any], parameters: Mapping[str, Any]) -> None:
    """Raises InvalidRequest naming the field: no steps, doubled ids, a reference to what is not there yet."""
    steps = config.get("steps")
    if not isinstance(steps, list) or not 0 < len(steps) <= MAX_STEPS:
        raise InvalidRequest(f"a chain has 1 to {MAX_STEPS} steps", param="config.steps")
    known: set[str] = set()
    for position, step in enumerate(steps):
        where = f"config.steps.{position}"
        _check_step(step, known, where)
        _check_references(step.get("args", {}), parameters, known, f"{where}.args")
        known.add(step["id"])
    _check_references(config.get("result"), parameters, known, "config.result")


def _check_step(step: Any, known: set[str], where: str) -> None:
    if not isinstance(step, dict) or not isinstance(step.get("tool"), str) or not step["tool"]:
        raise InvalidRequest("a step names its tool", param=where)
    if surplus := sorted(step.keys() - _FIELDS):
        raise InvalidRequest(f"a step has no field {surplus[0]!r}", param=where)
    if not isinstance(step.get("id"), str) or not _ID.fullmatch(step["id"]) or step["id"] in known:
        raise InvalidRequest("a step needs an id of its own, of letters, digits, _ and -", param=f"{where}.id")
    if not isinstance(step.get("args", {}), dict):
        raise InvalidRequest("arguments are an object", param=f"{where}.args")
    if step.get("on_error", "abort") not in ("abort", "continue"):
        raise InvalidRequest("on_error is abort or continue", param=f"{where}.on_error")


def _check_references(value: Any, parameters: Mapping[str, Any], known: set[str], where: str) -> None:
    for reference in references(value, _VOCABULARY):
        root, name, *_ = reference.split(".")
        if root == "steps" and name not in known:
            raise InvalidRequest(f"{{{{{reference}}}}} refers to {name!r}, which is no earlier step", param=where)
        if root == "args" and name not in parameters.get("properties", {}):
            raise InvalidRequest(f"{{{{{reference}}}}} names no parameter of this tool", param=where)


def _resolved(value: Any, args: Mapping[str, Any], outputs: Mapping[str, Any], where: str) -> Any:
    try:
        return resolve(value, _VOCABULARY, lambda reference: _look_up(reference, args, outputs))
    except InvalidArgs as error:
        raise ToolFailed(f"{where}: {error.message}", code=error.code) from None


def _look_up(reference: str, args: Mapping[str, Any], outputs: Mapping[str, Any]) -> Any:
    root, name, *path = reference.split(".")
    if root == "args":  # one that was left out is null
        return descend(args[name], path, reference) if name in args else None
    return descend(outputs[name], path, reference)


def _failure(step: Mapping[str, Any], outcome: ToolOutcome) -> ToolFailed:
    message = f"step {step['id']} ({step['tool']}): {outcome.error_message or outcome.status}"
    if outcome.status == "unknown":
        return ToolUncertain(message, code=outcome.error_code or "tool_failed", is_transient=False)
    return ToolFailed(message, code=outcome.error_code or "tool_failed")
