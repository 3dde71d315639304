"""What a turn reports while it runs, and what it comes to."""

from dataclasses import dataclass, field
from typing import Any, Literal

from shared.wire.chat import Usage, new_usage


@dataclass(frozen=True, slots=True)
class TextDelta:
    """A piece of the answer's text."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolUse:
    """One tool run of the turn."""

    name: str
    execution_id: str
    status: str
    ms: int


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """One memory that the turn was given."""

    id: str
    score: float


@dataclass(slots=True)
class TurnResult:
    """The turn's outcome; filled while it runs, so that an interrupted turn still knows what it spent."""

    session_id: str
    agent_id: str
    reply: dict[str, Any] | None = None
    finish_reason: Literal["stop", "length", "tool_calls", "content_filter"] = "stop"
    iterations: int = 0
    cost_microusd: int = 0
    memories: list[MemoryUse] = field(default_factory=list)
    tools: list[ToolUse] = field(default_factory=list)
    usage: Usage = field(default_factory=lambda: new_usage(0, 0))

    def add(self, usage: Usage | None, cost_microusd: int) -> None:
        """Add one model call's figures."""
        self.iterations += 1
        self.cost_microusd += cost_microusd
        if usage:
            self.usage = new_usage(
                self.usage["prompt_tokens"] + usage["prompt_tokens"],
                self.usage["completion_tokens"] + usage["completion_tokens"],
                cached=_detail(self.usage, "prompt", "cached") + _detail(usage, "prompt", "cached"),
                reasoning=_detail(self.usage, "completion", "reasoning") + _detail(usage, "completion", "reasoning"),
            )


TurnEvent = TextDelta | ToolUse | TurnResult


def _detail(usage: Usage, side: str, name: str) -> int:
    details: Any = usage.get(f"{side}_tokens_details") or {}
    return int(details.get(f"{name}_tokens") or 0)
