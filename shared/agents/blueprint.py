"""A blueprint: the versioned definition of an agent's behaviour."""

from typing import Annotated, Literal

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


class ToolRules(BaseModel):
    """Which of the tools that the agent was granted are offered, and how many at once.

    Without ``allow`` all of them. Where they are more than ``max_in_prompt``, the ``required`` ones are offered and so
    many of the others, the best for what was said (strategy ``search``).
    """

    model_config = ConfigDict(extra="forbid")
    required: list[str] = Field(default_factory=list, max_length=50)
    allow: list[str] | None = Field(default=None, max_length=500)
    deny: list[str] = Field(default_factory=list, max_length=500)
    max_in_prompt: int = Field(default=12, ge=1, le=100)
    strategy: Literal["search", "all"] = "search"

    @property
    def named(self) -> list[str]:
        """The tools that the rules ask for by name."""
        return [name for name in dict.fromkeys([*self.required, *(self.allow or ())]) if name not in self.deny]

    def offers(self, name: str) -> bool:
        """Whether a granted tool is offered at all."""
        return name not in self.deny and (self.allow is None or name in self.allow or name in self.required)


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
    tools: Annotated[list[str], Field(max_length=200)] | ToolRules = Field(default_factory=list)
    sanitize: SanitizeOptions | None = None
    cache_ttl_s: int | None = Field(default=None, ge=1, le=MAX_TTL_S)

    @property
    def tool_rules(self) -> ToolRules:
        """``tools`` as rules; a list of names allows just these."""
        return self.tools if isinstance(self.tools, ToolRules) else ToolRules(allow=self.tools)
