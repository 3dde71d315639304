"""What happens next in a flow: pure, without I/O, and without a word about the state machine that waits for it.

``decide`` takes the flow and what happened and returns the flow as it is now and the next move. The transitions are
those of the router's design (§5): INIT → PLAN → EXECUTE_STEP → WAIT_* → EXECUTE_STEP → … → DONE, and EXECUTE_STEP →
ERROR_RECOVERY → EXECUTE_STEP | DONE. A failed or aborted flow ends at DONE too; its ``state`` tells how.
"""

from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from shared.router.flow import Failure, FlowState, State, Step

Action = Literal["plan", "approve", "execute", "tool", "agent", "group", "delay", "recover", "done", "abort"]
Verdict = Literal["retry", "fallback", "skip", "fail", "abort"]

MAX_ATTEMPTS: Final = 5
"""Runs of one step, those cut off by a crash included."""


@dataclass(frozen=True, slots=True)
class Next:
    """Where the driver goes: ``position`` is the step a job is for, ``seconds`` how long to wait first."""

    action: Action
    position: int | None = None
    seconds: int = 0


@dataclass(frozen=True, slots=True)
class CallModel:
    """The driver itself calls the model for this step and comes back with how it went."""

    position: int


@dataclass(frozen=True, slots=True)
class Begin:
    """A driver takes the flow up, for the first time or after another was lost."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The plan is asked for; a structured flow brings its own."""


@dataclass(frozen=True, slots=True)
class Proceed:
    """Nothing new: go on with the next step."""


@dataclass(frozen=True, slots=True)
class Recover:
    """Deal with the step that failed."""


@dataclass(frozen=True, slots=True)
class Succeeded:
    """The running step at ``position`` gave its output."""

    position: int
    output: Any = None
    cost_microusd: int = 0


@dataclass(frozen=True, slots=True)
class Failed:
    """The running step at ``position`` failed with a code of the platform's table."""

    position: int
    code: str
    message: str
    cost_microusd: int = 0


@dataclass(frozen=True, slots=True)
class Stop:
    """End the flow here, as failed."""

    code: str
    message: str


Event = Begin | Plan | Proceed | Recover | Succeeded | Failed | Stop
Move = tuple[FlowState, Next | CallModel]


@dataclass(frozen=True, slots=True)
class ErrorRule:
    """How often an error is tried again, and what then."""

    retries: int
    then: Verdict


# The error table (router design, §13). "fallback" is another model; where there is none, the step fails.
ERROR_RULES: Final[dict[str, ErrorRule]] = {
    "tool_timeout": ErrorRule(1, "skip"),
    "llm_timeout": ErrorRule(1, "fallback"),
    "rate_limit_exceeded": ErrorRule(2, "fallback"),
    "overloaded": ErrorRule(2, "fallback"),
    "unavailable": ErrorRule(2, "fallback"),
    "upstream_error": ErrorRule(2, "fallback"),
    "unauthorized": ErrorRule(0, "abort"),
    "confidential_denied": ErrorRule(0, "abort"),
    "insufficient_quota": ErrorRule(0, "abort"),
    "cost_limit_exceeded": ErrorRule(0, "abort"),
}
OTHER_ERROR: Final = ErrorRule(0, "fail")


def decide(flow: FlowState, event: Event) -> Move:
    """The flow after the event, and the next move. A finished flow never changes."""
    if flow.is_finished:
        return flow, Next("done" if flow.state == "DONE" else "abort")
    match event:
        case Stop(code, message):
            return _finish(flow, "FAILED", Failure(code, message))
        case Succeeded(position) | Failed(position) if flow.steps[position].state == "running":
            return _settle(flow, event)
        case Recover() if flow.state == "ERROR_RECOVERY":
            return _recover(flow)
        case Plan() if flow.state == "PLAN":
            return _enter(flow, "EXECUTE_STEP"), Next("execute")
        case Proceed() if flow.state == "EXECUTE_STEP":
            return _start_next(_release(flow))
        case Proceed() if flow.state == "WAIT_TOOL":
            return _settle(flow, Failed(_running(flow), "internal", "the tool's run ended without an outcome"))
        case _:
            return _resume(flow)


def verdict_on(step: Step, code: str) -> Verdict:
    """What the error table and the step's own wishes say about a failure with this code."""
    rule = ERROR_RULES.get(code, OTHER_ERROR)
    if rule.then == "abort":
        return "abort"
    if step.attempts <= rule.retries:
        return "retry"
    wanted: Verdict = step.on_error or rule.then
    if "fallback" in (wanted, rule.then) and step.fallback_model and not step.fell_back:
        return "fallback"
    if step.critical:
        return "abort"
    return "fail" if wanted == "fallback" else wanted


def _resume(flow: FlowState) -> Move:
    """Go on from wherever the flow is, without repeating what is known to have happened."""
    match flow.state:
        case "INIT":
            return _enter(flow, "PLAN"), Next("plan")
        case "PLAN":
            return flow, Next("plan")
        case "WAIT_TOOL":
            return flow, Next("tool", _running(flow))
        case "ERROR_RECOVERY":
            return flow, Next("recover")
        case _:
            return _release(flow), Next("execute")


def _start_next(flow: FlowState) -> Move:
    position = flow.first("pending")
    if position is None:
        return _finish(flow, "DONE", None)
    step = flow.steps[position]
    if step.attempts >= MAX_ATTEMPTS:
        error = step.error or Failure("internal", f"the step was cut off {step.attempts} times", step.id)
        flow = _with_step(flow, position, replace(step, state="failed", error=error))
        return _enter(flow, "ERROR_RECOVERY"), Next("recover")
    flow = _with_step(flow, position, replace(step, state="running", attempts=step.attempts + 1))
    if step.type == "tool":
        return _enter(flow, "WAIT_TOOL"), Next("tool", position)
    return flow, CallModel(position)


def _settle(flow: FlowState, event: Succeeded | Failed) -> Move:
    step = flow.steps[event.position]
    step = replace(step, cost_microusd=step.cost_microusd + event.cost_microusd)
    if isinstance(event, Succeeded):
        step = replace(step, state="succeeded", output=event.output, error=None)
    else:
        step = replace(step, state="failed", error=Failure(event.code, event.message, step.id))
    flow = replace(flow, cost_microusd=flow.cost_microusd + event.cost_microusd)
    flow = _with_step(_enter(flow, "EXECUTE_STEP"), event.position, step)
    if error := _over_budget(flow):
        return _finish(flow, "ABORTED", error)
    return _after_success(flow) if step.state == "succeeded" else (_enter(flow, "ERROR_RECOVERY"), Next("recover"))


def _after_success(flow: FlowState) -> Move:
    following = flow.first("pending")
    if following is not None and flow.steps[following].type == "llm":
        return flow, Next("execute")  # a model call gets an invocation of its own
    return _start_next(flow)


def _over_budget(flow: FlowState) -> Failure | None:
    if flow.max_cost_microusd is None or flow.cost_microusd <= flow.max_cost_microusd:
        return None
    message = f"the flow has cost {flow.cost_microusd} µUSD; it may cost {flow.max_cost_microusd}"
    return Failure("cost_limit_exceeded", message)


def _recover(flow: FlowState) -> Move:
    position = flow.first("failed")
    if position is None or (error := flow.steps[position].error) is None:
        return _enter(flow, "EXECUTE_STEP"), Next("execute")
    step = flow.steps[position]
    match verdict_on(step, error.code):
        case "fail":
            return _finish(flow, "FAILED", error)
        case "abort":
            return _finish(flow, "ABORTED", error)
        case "skip":
            return _go_on(flow, position, replace(step, state="skipped")), Next("execute")
        case "fallback":
            return _go_on(flow, position, replace(step, state="pending", fell_back=True)), Next("execute")
        case "retry":
            pause = 2 ** (step.attempts - 1)
            return _go_on(flow, position, replace(step, state="pending")), Next("delay", seconds=pause)


def _go_on(flow: FlowState, position: int, step: Step) -> FlowState:
    return _enter(_with_step(flow, position, step), "EXECUTE_STEP")


# How a flow that must end leaves each state, by legal transitions only.
_WAYS_OUT: Final[dict[State, tuple[State, ...]]] = {
    "INIT": ("PLAN", "EXECUTE_STEP", "ERROR_RECOVERY"),
    "PLAN": ("EXECUTE_STEP", "ERROR_RECOVERY"),
    "EXECUTE_STEP": ("ERROR_RECOVERY",),
    "WAIT_TOOL": ("EXECUTE_STEP", "ERROR_RECOVERY"),
}


def _finish(flow: FlowState, state: State, error: Failure | None) -> Move:
    for stop in _WAYS_OUT.get(flow.state, ()) if error else ():
        flow = _enter(flow, stop)
    flow = replace(_enter(_release(flow), "DONE"), state=state, error=error)
    return flow, Next("done" if state == "DONE" else "abort")


def _enter(flow: FlowState, state: State) -> FlowState:
    if flow.state == state:
        return flow
    return replace(flow, state=state, transitions=(*flow.transitions, state))


def _release(flow: FlowState) -> FlowState:
    """Steps whose run was cut off wait again; the attempt stays counted."""
    steps = (replace(step, state="pending") if step.state == "running" else step for step in flow.steps)
    return replace(flow, steps=tuple(steps))


def _with_step(flow: FlowState, position: int, step: Step) -> FlowState:
    return replace(flow, steps=(*flow.steps[:position], step, *flow.steps[position + 1 :]))


def _running(flow: FlowState) -> int:
    position = flow.first("running")
    if position is None:
        raise ValueError("a waiting flow has no running step")
    return position
