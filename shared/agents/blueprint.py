"""A blueprint: the versioned definition of an agent's behaviour."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from shared.llm.answers.response_cache import MAX_TTL_S
from shared.llm.safety.policy import MAX_PATTERNS, Mode, NamedPattern, SanitizePolicy, check_patterns


class LlmOptions(BaseModel):
    """Parameters of every model call that the agent makes."""

    model_config = ConfigDict(extra="forbid")
    temperature: float | None = Field(default=None, ge=0, le=2)
    max_tokens: int | None = Field(default=None, ge=1)


class Limits(BaseModel):
    """Where the loop stops."""

    model_config = ConfigDict(extra="forbid")
    max_iterations: int = Field(default=8, ge=1, le=50)
    max_cost_microusd: int | None = Field(default=None, ge=0)


class SanitizePattern(BaseModel):
    """A kind of secret of the team's own; docs/gateway.md tells the language of patterns."""

    model_config = ConfigDict(extra="forbid")
    name: str
    pattern: str


class SanitizeOptions(BaseModel):
    """What is taken out of the agent's prompts, and with ``answers`` out of what the model says."""

    model_config = ConfigDict(extra="forbid")
    mode: Mode = "redact"
    answers: bool = False
    extra_patterns: list[SanitizePattern] = Field(default_factory=list, max_length=MAX_PATTERNS)
    fail_closed: bool = True

    @field_validator("extra_patterns")
    @classmethod
    def _are_safe(cls, patterns: list[SanitizePattern]) -> list[SanitizePattern]:
        check_patterns([NamedPattern(one.name, one.pattern) for one in patterns])
        return patterns

    def policy(self) -> SanitizePolicy:
        """The options as the gateway takes them."""
        patterns = tuple(NamedPattern(one.name, one.pattern) for one in self.extra_patterns)
        return SanitizePolicy(mode=self.mode, answers=self.answers, patterns=patterns, fail_closed=self.fail_closed)


class BlueprintDefinition(BaseModel):
    """What a version fixes. ``tools`` names what is offered; a tool must also be granted to the agent to run.

    Without ``sanitize`` the platform's policy holds. With ``cache_ttl_s`` the same prompt gets the same answer again
    for so many seconds, at no cost.
    """

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)  # instructions must not reach logs
    code: str = Field(pattern=r"^[a-z][a-z0-9_-]{0,63}$")
    name: str = Field(min_length=1, max_length=200)
    description: str = Field(default="", max_length=4000)
    tags: list[str] = Field(default_factory=list, max_length=50)
    model: str = Field(default="smart", max_length=256)
    instructions: str = Field(default="", max_length=100_000)
    kind: Literal["tool_calling"] = "tool_calling"
    llm: LlmOptions = Field(default_factory=LlmOptions)
    limits: Limits = Field(default_factory=Limits)
    tools: list[str] = Field(default_factory=list, max_length=200)
    sanitize: SanitizeOptions | None = None
    cache_ttl_s: int | None = Field(default=None, ge=1, le=MAX_TTL_S)
