"""Plain data of the router: the request as it comes over HTTP, and the flow as the engine sees it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, FailFast, Field, StringConstraints, field_validator

from shared.errors import LimitExceeded

Mode = Literal["auto", "structured", "hybrid"]
OnError = Literal["skip", "abort", "fallback"]
State = Literal[
    "INIT",
    "PLAN",
    "WAIT_APPROVAL",
    "EXECUTE_STEP",
    "WAIT_TOOL",
    "WAIT_AGENT",
    "ERROR_RECOVERY",
    "DONE",
    "FAILED",
    "ABORTED",
    "CANCELLED",
]
StepState = Literal["pending", "running", "succeeded", "failed", "skipped"]

STEP_TYPES: Final = ("llm", "tool", "agent", "platform", "branch", "parallel", "loop")
BUILT_STEP_TYPES: Final = ("llm", "tool")
MAX_STEPS: Final = 50
"""Steps a flow may have (router design, §7), those inside other steps included."""

FINAL_STATES: Final[frozenset[State]] = frozenset({"DONE", "FAILED", "ABORTED", "CANCELLED"})

Text = Annotated[str, StringConstraints(max_length=1_000_000)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=200)]
StepId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]


class _Body(BaseModel):
    """A part of a request body: a field that the contract does not name is refused."""

    model_config = ConfigDict(extra="forbid")


class Constraints(_Body):
    """What the caller allows the flow at most, on top of the platform's limits."""

    max_cost_microusd: int | None = Field(default=None, ge=0, le=10**15)
    max_steps: int | None = Field(default=None, ge=1, le=1_000_000)


class FlowContext(_Body):
    """On whose behalf the flow runs. ``team_id`` is another word for ``microdao_id``; ``user_id`` is an end user's."""

    team_id: Name | None = None
    microdao_id: Name | None = None
    agent_id: Name | None = None
    agent_run_id: Name | None = None
    user_id: Name | None = Field(default=None, exclude_if=lambda user_id: user_id is None)
    """Left out of what is kept where nobody is named: a request from before there were users is still the same one."""
    confidential: bool = False


_NESTED_STEPS: Final = ("if_true", "if_false", "steps")


class StepRequest(_Body):
    """One step as asked for. Without ``type`` it is a tool step, or an llm step where ``tool`` is ``llm``."""

    id: StepId | None = None
    type: Name | None = None
    tool: Name | None = None
    args: dict[str, Any] = {}
    condition: Text | None = None
    if_true: list["StepRequest"] | None = None
    if_false: list["StepRequest"] | None = None
    steps: list["StepRequest"] | None = None
    max_loops: int | None = Field(default=None, ge=1, le=1_000_000)
    on_error: OnError | None = None
    critical: bool = False

    @property
    def kind(self) -> str:
        """The type, named or implied by ``tool``."""
        return self.type or ("llm" if self.tool == "llm" else "tool")


class FlowRequest(_Body):
    """The body of ``POST /internal/router/flows``."""

    input: Text = ""
    goal: Text = ""
    mode: Mode | None = None
    constraints: Constraints = Constraints()
    context: FlowContext = FlowContext()
    steps: Annotated[list[StepRequest], Field(max_length=MAX_STEPS)] | Literal["auto"] = "auto"
    tools: Annotated[list[Name], FailFast(), Field(max_length=1000)] = []
    idempotency_key: Name | None = None

    @field_validator("steps", mode="before")
    @classmethod
    def _few_enough(cls, steps: Any) -> Any:
        """Counted before they are read: a million bad steps would keep the process busy for minutes."""
        if isinstance(steps, list):
            check_count(len(steps))
            check_count(_count_steps(steps))
        return steps


def check_count(count: int, allowed: int = MAX_STEPS) -> None:
    """Raises LimitExceeded for more steps than allowed."""
    if count > allowed:
        raise LimitExceeded(f"the flow has {count} steps; at most {allowed} are allowed", param="steps")


def _count_steps(steps: list[Any]) -> int:
    """Steps in an unread request, those inside other steps included; the count stops soon after ``MAX_STEPS``."""
    count, waiting = 0, [steps]
    while waiting and count <= MAX_STEPS:
        level = waiting.pop()
        count += len(level)
        if count <= MAX_STEPS:
            inner = (step.get(name) for step in level if isinstance(step, dict) for name in _NESTED_STEPS)
            waiting += [one for one in inner if isinstance(one, list)]
    return count


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a step or a flow failed: a code of the platform's table, words for a person, and the step."""

    code: str
    message: str
    step: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A step of a flow's plan and how far it is. ``output`` is set by success and not loaded again with the flow."""

    id: str
    type: str
    tool: str | None = None
    args: Mapping[str, Any] = field(default_factory=dict)
    model: str | None = None
    fallback_model: str | None = None
    on_error: OnError | None = None
    critical: bool = False
    state: StepState = "pending"
    attempts: int = 0
    fell_back: bool = False
    execution_id: str | None = None
    cost_microusd: int = 0
    output: Any = None
    error: Failure | None = None

    @classmethod
    def from_definition(cls, step_id: str, kind: str, definition: Mapping[str, Any], **progress: Any) -> Self:
        """A step from its stored definition and progress."""
        return cls(id=step_id, type=kind, **definition, **progress)

    def definition(self) -> dict[str, Any]:
        """What the plan says about the step: the part that never changes."""
        return {
            "tool": self.tool,
            "args": dict(self.args),
            "model": self.model,
            "fallback_model": self.fallback_model,
            "on_error": self.on_error,
            "critical": self.critical,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowState:
    """A flow as the engine sees it. ``transitions`` lists the states of the state machine in the order entered."""

    state: State = "INIT"
    steps: tuple[Step, ...] = ()
    transitions: tuple[State, ...] = ("INIT",)
    cost_microusd: int = 0
    max_cost_microusd: int | None = None
    error: Failure | None = None

    @property
    def is_finished(self) -> bool:
        """Nothing runs any more."""
        return self.state in FINAL_STATES

    def first(self, state: StepState) -> int | None:
        """The position of the first step in this state."""
        return next((position for position, step in enumerate(self.steps) if step.state == state), None)
