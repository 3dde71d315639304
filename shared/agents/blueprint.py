"""A blueprint: the versioned definition of an agent's behaviour."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


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


class BlueprintDefinition(BaseModel):
    """What a version fixes. ``tools`` names what is offered; a tool must also be granted to the agent to run."""

    model_config = ConfigDict(extra="forbid")
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
