"""Bodies and answers of the tool catalogue that several of its areas share."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field

from functions.chat.dependencies import permit, within
from functions.chat.schemas import Body, View
from shared.bootstrap import Services
from shared.policy.principal import Principal
from shared.tools.catalogue.definition import DEFINITION_FIELDS, Definition

Risk = Literal["A", "B", "C", "D"]
Executor = Literal["builtin", "http", "python", "mcp", "agent", "chain"]
Environment = Literal["dev", "staging", "prod"]
ToolName = Annotated[str, Field(pattern=r"^[a-zA-Z][a-zA-Z0-9_.-]{0,99}$")]
Tag = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,49}$")]
Tags = Annotated[list[Tag], Field(max_length=20)]
Aliases = Annotated[list[ToolName], Field(max_length=20)]
Agents = Annotated[list[Annotated[str, Field(min_length=1, max_length=200)]], Field(max_length=500)]
TenantId = Annotated[str, Field(min_length=1, max_length=200)]
TimeoutMs = Annotated[int, Field(ge=1, le=900_000)]
CostMicrousd = Annotated[int, Field(ge=0, le=1_000_000_000)]
PerMinute = Annotated[int, Field(ge=1, le=100_000)]
Description = Annotated[str, Field(min_length=1, max_length=4_000)]


class DefinitionBody(Body):
    """What a version says. ``parameters`` and ``result_schema`` are JSON schemas (draft 2020-12)."""

    description: Description
    parameters: dict[str, Any] = Field(default_factory=lambda: {"type": "object", "properties": {}})
    executor: Executor
    config: dict[str, Any] = Field(default_factory=dict)
    risk: Risk = "C"
    timeout_ms: TimeoutMs = 30_000
    idempotent: bool = False
    result_schema: dict[str, Any] | None = None
    cost_microusd: CostMicrousd = 0
    rate_limit_per_minute: PerMinute | None = None
    environments: list[Environment] = Field(default_factory=list, max_length=3)

    def definition(self) -> Definition:
        """As the catalogue takes it."""
        fields = {field: getattr(self, field) for field in DEFINITION_FIELDS}
        return Definition(**{**fields, "environments": tuple(dict.fromkeys(self.environments))})


class VersionView(View):
    """One version of a tool, which never changes. ``definition_hash`` is the identity of what a model is told."""

    name: str
    version: int
    definition_hash: str
    description: str
    parameters: dict[str, Any]
    executor: str
    config: dict[str, Any]
    risk: Risk
    timeout_ms: int
    idempotent: bool
    result_schema: dict[str, Any] | None
    cost_microusd: int
    rate_limit_per_minute: int | None
    environments: list[str]
    created_by: str
    version_created_at: datetime


class AdminToolView(VersionView):
    """A tool at its active version. ``pending_version`` waits for approval (``activate``)."""

    id: str
    active: bool
    tags: list[str]
    aliases: list[str]
    latest_version: int
    pending_version: int | None
    disabled_reason: str | None
    import_id: str | None
    created_at: datetime


async def administrator(services: Services, principal: Principal, microdao_id: str | None) -> Principal:
    """The caller inside the microDAO that the request names, if it may change tools there. Raises Unauthorized."""
    principal = within(principal, microdao_id)
    await permit(services, principal, "tool.write")
    return principal
