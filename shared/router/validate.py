"""Checks a flow before it starts: pure, every fault named with its place. What is not built yet is refused as such."""

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

import orjson
from pydantic import TypeAdapter, ValidationError

from shared.errors import ErrorDetail, InvalidArgs, InvalidRequest
from shared.router.flow import (
    BUILT_STEP_TYPES,
    MAX_STEPS,
    STEP_TYPES,
    FlowRequest,
    Mode,
    Step,
    StepRequest,
    check_count,
)
from shared.router.templates import references, step_of
from shared.wire.chat import ChatMessage

_MAX_REFERENCE_FAULTS: Final = 10  # told of one step
_PROMPTS: Final = ("prompt", "messages", "task")
_LLM_ARGS: Final[frozenset[str]] = frozenset({*_PROMPTS, "model", "temperature", "max_tokens"})
_NESTED_FIELDS: Final = ("condition", "if_true", "if_false", "steps", "max_loops")
_MESSAGES: Final = TypeAdapter(list[ChatMessage])


@dataclass(frozen=True, slots=True)
class Known:
    """What a flow may name: the tools of its microDAO, the logical models, and the model used where none is named."""

    tools: Collection[str]
    has_model: Callable[[str], bool]
    default_model: str


@dataclass(slots=True)
class _Plan:
    """The plan so far and its faults."""

    request: FlowRequest
    known: Known
    steps: list[Step] = field(default_factory=list)
    faults: list[ErrorDetail] = field(default_factory=list)


def mode_of(request: FlowRequest) -> Mode:
    """The mode asked for, or the one its steps imply."""
    return request.mode or ("auto" if request.steps == "auto" else "structured")


def tool_names(request: FlowRequest) -> set[str]:
    """Every tool that the steps name."""
    steps = [] if request.steps == "auto" else request.steps
    return {step.tool for step in steps if step.tool and step.kind == "tool"}


def storable(request: FlowRequest) -> dict[str, Any]:
    """The request as the JSON that is kept. Raises InvalidRequest for text that no database takes."""
    try:
        document: dict[str, Any] = orjson.loads(orjson.dumps(request.model_dump(mode="json")))
    except (TypeError, ValueError) as error:
        raise InvalidRequest(f"the request holds a value that JSON cannot carry: {error}") from None
    if any("\x00" in text for text in _strings(document)):
        raise InvalidRequest("the request holds a NUL character; remove it")
    return document


def check_outline(request: FlowRequest) -> list[StepRequest]:
    """The steps asked for, their number and types checked: all that can be said without looking anything up.

    Raises LimitExceeded for too many steps and InvalidRequest for anything else.
    """
    steps = _structured_steps(request)
    check_count(len(steps), min(MAX_STEPS, request.constraints.max_steps or MAX_STEPS))
    _refuse([_detail(position, fault) for position, asked in enumerate(steps) for fault in _type_faults(asked)])
    return steps


def validate(request: FlowRequest, known: Known) -> tuple[Step, ...]:
    """The flow's steps, ids given where they had none.

    Raises LimitExceeded for too many steps and InvalidRequest for anything else, with a detail for each fault.
    """
    plan = _Plan(request, known)
    for position, asked in enumerate(check_outline(request)):
        _add_step(plan, asked, position)
    _refuse(plan.faults)
    return tuple(plan.steps)


def _refuse(faults: Sequence[ErrorDetail]) -> None:
    if faults:
        first = faults[0]
        raise InvalidRequest(f"{first.path}: {first.message}", param=first.path, details=faults)


def fingerprint(document: Mapping[str, Any]) -> str:
    """The identity of a request: the same values give the same hash, whatever the order of keys.

    Taken from the request as sent: the database gives some numbers back in another form (1e23 as a whole number).
    """
    return hashlib.sha256(orjson.dumps(document, option=orjson.OPT_SORT_KEYS)).hexdigest()


def _structured_steps(request: FlowRequest) -> list[StepRequest]:
    if mode_of(request) != "structured":
        raise InvalidRequest(f"mode {mode_of(request)!r} is not built yet; give the steps as a list", param="mode")
    if request.context.confidential:
        raise InvalidRequest("confidential flows are not built yet", param="context.confidential")
    if request.steps == "auto" or not request.steps:
        raise InvalidRequest("a structured flow needs at least one step", param="steps")
    return request.steps


def _add_step(plan: _Plan, asked: StepRequest, position: int) -> None:
    step_id = asked.id or f"step_{position + 1}"
    faults = [*_step_faults(plan, asked)]
    if step_id in {step.id for step in plan.steps}:
        faults.append(("id", f"{step_id!r} names another step already"))
    plan.faults += (_detail(position, fault) for fault in faults)
    plan.steps.append(_planned(step_id, asked, plan.known))


def _planned(step_id: str, asked: StepRequest, known: Known) -> Step:
    is_model_call = asked.kind == "llm"
    model = asked.args.get("model", known.default_model) if is_model_call else None
    return Step(
        id=step_id,
        type=asked.kind,
        tool=None if is_model_call else asked.tool,
        args=asked.args,
        model=model,
        fallback_model=known.default_model if is_model_call and model != known.default_model else None,
        on_error=asked.on_error,
        critical=asked.critical,
    )


_Fault = tuple[str, str]


def _detail(position: int, fault: _Fault) -> ErrorDetail:
    where, message = fault
    return ErrorDetail(f"steps.{position}.{where}", message)


def _type_faults(asked: StepRequest) -> Iterator[_Fault]:
    if asked.kind not in STEP_TYPES:
        yield "type", f"unknown step type {asked.kind!r}; types are {', '.join(BUILT_STEP_TYPES)}"
    elif asked.kind not in BUILT_STEP_TYPES:
        yield "type", f"steps of type {asked.kind!r} are not built yet; use {' or '.join(BUILT_STEP_TYPES)}"


def _step_faults(plan: _Plan, asked: StepRequest) -> Iterator[_Fault]:
    for name in _NESTED_FIELDS:
        if getattr(asked, name) is not None:
            yield name, f"a step of type {asked.kind!r} takes no {name!r}"
    yield from islice(_reference_faults(plan, asked), _MAX_REFERENCE_FAULTS)
    yield from _model_call_faults(plan, asked) if asked.kind == "llm" else _tool_faults(plan, asked)


def _tool_faults(plan: _Plan, asked: StepRequest) -> Iterator[_Fault]:
    if not asked.tool:
        yield "tool", "a tool step needs the tool's name"
    elif asked.tool not in plan.known.tools:
        yield "tool", f"unknown tool {asked.tool!r}; GET /internal/tools lists them"
    elif plan.request.tools and not _allowed(asked.tool, plan.request.tools):
        yield "tool", f"{asked.tool!r} is not among the flow's tools"


def _allowed(tool: str, names: Collection[str]) -> bool:
    """A name in ``tools`` stands for that tool, or for every tool of the group (``project`` for ``project.create``)."""
    return any(tool == name or tool.startswith(f"{name}.") for name in names)


def _model_call_faults(plan: _Plan, asked: StepRequest) -> Iterator[_Fault]:
    args = asked.args
    if asked.tool not in (None, "llm"):
        yield "tool", "an llm step takes no tool"
    if sum(name in args for name in _PROMPTS) != 1:
        yield "args", f"an llm step needs exactly one of {', '.join(_PROMPTS)}"
    for name in sorted(args.keys() - _LLM_ARGS):
        yield f"args.{name}", f"an llm step takes no {name!r}"
    for name in ("prompt", "task"):
        if name in args and not (isinstance(args[name], str) and args[name].strip()):
            yield f"args.{name}", "must be text"
    yield from _setting_faults(plan.known, args)
    if "messages" in args:
        yield from _message_faults(args["messages"])


def _setting_faults(known: Known, args: Mapping[str, Any]) -> Iterator[_Fault]:
    model, temperature, max_tokens = args.get("model"), args.get("temperature"), args.get("max_tokens")
    if "model" in args and not (isinstance(model, str) and known.has_model(model)):
        yield "args.model", f"unknown model {model!r}; GET /v1/models lists them"
    if temperature is not None and not (type(temperature) in (int, float) and 0 <= temperature <= 2):
        yield "args.temperature", "must be between 0 and 2"
    if max_tokens is not None and not (type(max_tokens) is int and 1 <= max_tokens <= 10_000_000):
        yield "args.max_tokens", "must be a whole number above 0"


def _message_faults(messages: Any) -> Iterator[_Fault]:
    if not messages:
        yield "args.messages", "must hold at least one message"
        return
    try:
        _MESSAGES.validate_python(messages)
    except ValidationError as error:
        for fault in error.errors(include_url=False, include_input=False, include_context=False):
            place = ".".join(str(part) for part in fault["loc"])
            yield f"args.messages.{place}".rstrip("."), fault["msg"]


def _reference_faults(plan: _Plan, asked: StepRequest) -> Iterator[_Fault]:
    earlier = {step.id for step in plan.steps}
    for reference in references(asked.args):
        try:
            named = step_of(reference)
        except InvalidArgs as error:
            yield "args", error.message
            continue
        if named is not None and named not in earlier:
            yield "args", f"{{{{{reference}}}}} refers to {named!r}, which is no earlier step"


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from _strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner)
