"""What the tools package speaks of: tools, calls and their outcomes. Plain data, no I/O."""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

Risk = Literal["A", "B", "C", "D"]
Status = Literal["queued", "running", "succeeded", "failed", "unknown"]
STATUSES: tuple[Status, ...] = ("queued", "running", "succeeded", "failed", "unknown")

CONFIDENTIAL_RISKS = ("A", "B")
"""The risk categories that a confidential flow may use."""

_NOT_IN_FUNCTION_NAMES = re.compile(r"[^a-zA-Z0-9_-]")
_FUNCTION_NAME_LENGTH = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """One version of a tool. ``parameters`` is the JSON schema of its arguments, ``config`` is its executor's.

    ``cost_microusd`` is charged for each run that succeeded or may have, ``rate_limit_per_minute`` counts runs of the
    microDAO, ``environments`` are the profiles in which it may run (none named: all).
    """

    id: str
    name: str
    version: int
    description: str
    parameters: dict[str, Any]
    risk: Risk
    executor: str
    active: bool
    timeout_ms: int
    idempotent: bool
    config: dict[str, Any]
    result_schema: dict[str, Any] | None = None
    cost_microusd: int = 0
    rate_limit_per_minute: int | None = None
    environments: tuple[str, ...] = ()

    @property
    def may_run_again(self) -> bool:
        """Whether a run that may have happened can be repeated. A chain can: it goes on after the last step it made."""
        return self.idempotent or self.executor == "chain"

    @property
    def function_name(self) -> str:
        """The name shown to a model, which may hold only ``[a-zA-Z0-9_-]``: ``task_create`` for ``task.create``.

        Source: platform.openai.com/docs/api-reference/chat/create (tools.function.name)
        """
        return _NOT_IN_FUNCTION_NAMES.sub("_", self.name)[:_FUNCTION_NAME_LENGTH]


def by_function_name(tools: Iterable[Tool]) -> dict[str, Tool]:
    """From the name that a model calls back to the tool."""
    return {tool.function_name: tool for tool in tools}


@dataclass(frozen=True, slots=True)
class ToolCallRequest:
    """A call to make: ``tool`` is an id, a name or an alias; ``requested_by`` goes to the audit log.

    The same ``idempotency_key`` again, with the same tool and arguments, answers with the first call's outcome.
    ``depth`` is how many tools (chains, agents) stand above the call. ``user_id`` is the end user it is made for.
    """

    microdao_id: str
    agent_id: str
    tool: str
    args: dict[str, Any]
    requested_by: str
    idempotency_key: str | None = None
    session_id: str | None = None
    user_id: str | None = None
    flow_id: str | None = None
    step_id: str | None = None
    confidential: bool = False
    depth: int = 0


@dataclass(frozen=True, slots=True)
class ToolOutcome:
    """How an execution stands. ``unknown``: the effect may or may not have happened, and is not tried again.

    ``task_token`` is that of the flow's step which waits for it.
    """

    execution_id: str
    tool_name: str
    status: Status
    result: Any = None
    error_code: str | None = None
    error_message: str | None = None
    ms: int | None = None
    cost_microusd: int = 0
    task_token: str | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Invocation:
    """Who a running tool works for, and until when (``deadline``, of the running loop's clock).

    ``user_id`` is the end user on whose behalf the agent acts; None is nobody in particular.
    """

    execution_id: str
    microdao_id: str
    agent_id: str
    requested_by: str = ""
    session_id: str | None = None
    user_id: str | None = None
    flow_id: str | None = None
    confidential: bool = False
    depth: int = 0
    attempt: int = 1
    deadline: float = math.inf


class Permission(NamedTuple):
    """Whether an agent may use a tool, and why."""

    name: str
    granted: bool
    reason: str


class ToolFailed(Exception):
    """A tool did not do what it was asked. The message is for the caller: what was wrong, what to do instead.

    ``is_transient``: the same again may succeed, after ``retry_after_s`` if that is known.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str = "tool_failed",
        is_transient: bool = False,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.is_transient = is_transient
        self.retry_after_s = retry_after_s


class ToolUncertain(ToolFailed):
    """The request went out and no whole answer came back: what was asked may have happened or not."""

    def __init__(
        self,
        message: str,
        *,
        code: str = "tool_failed",
        is_transient: bool = True,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message, code=code, is_transient=is_transient, retry_after_s=retry_after_s)
