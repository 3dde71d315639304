"""The tool catalogue, permissions and calls."""

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import ConfigDict, Field, model_validator

from functions.chat.bodies import JsonRoute
from functions.chat.dependencies import Cursor, PageLimit, PrincipalDep, ServicesDep, permit, within
from functions.chat.schemas import ERRORS, Body, View
from shared.errors import InvalidRequest
from shared.policy.principal import Principal
from shared.tools.model import ToolCallRequest

router = APIRouter(prefix="/internal", route_class=JsonRoute, responses=ERRORS, tags=["Tools"])
Identifier = Annotated[str, Field(min_length=1, max_length=200)]
AgentQuery = Annotated[
    str | None, Query(min_length=1, max_length=200, description="Only what this agent was granted and may run.")
]


class ToolView(View):
    """A catalogue entry at its active version. ``parameters`` is a JSON schema."""

    id: str
    name: str
    version: int
    description: str
    parameters: dict[str, Any]
    risk: Literal["A", "B", "C", "D"]
    executor: str
    active: bool


class ToolPage(View):
    """A page of tools; pass ``next`` as ``after`` for the following one."""

    tools: list[ToolView]
    next: str | None


class CallBody(Body):
    """Which tool to run, for which agent (and which of its end users, ``user_id``), with what."""

    tool_id: Identifier | None = None
    tool_name: Identifier | None = None
    agent_id: Identifier
    user_id: Identifier | None = None
    microdao_id: Identifier | None = None
    args: dict[str, Any] | None = None
    parameters: dict[str, Any] | None = None
    idempotency_key: str | None = Field(default=None, min_length=1, max_length=255)
    confidential: bool = False

    @model_validator(mode="after")
    def _names_one_tool(self) -> "CallBody":
        if (self.tool_id is None) == (self.tool_name is None):
            raise ValueError("give tool_id or tool_name")
        if self.args is not None and self.parameters is not None:
            raise ValueError("give args or parameters, not both")
        return self


class FailureView(View):
    """Why the tool failed."""

    code: str
    message: str


class OutcomeView(View):
    """One run. A tool's own failure is ``status: failed``."""

    execution_id: str
    status: Literal["queued", "running", "succeeded", "failed", "unknown"]
    result: Any
    error: FailureView | None
    ms: int
    cost_microusd: int


class ExecutionView(View):
    """An audit row: who ran what, how it ended. Arguments and results stay in the database."""

    model_config = ConfigDict(extra="ignore")
    execution_id: str
    tool: str
    version: int
    agent_id: str
    requested_by: str
    status: str
    error_code: str | None
    ms: int | None
    cost_microusd: int
    created_at: datetime


class ExecutionPage(View):
    """Newest first; pass ``next`` as ``before`` for the following page."""

    executions: list[ExecutionView]
    next: str | None


class PermissionView(View):
    """Whether the agent may run a tool, and why."""

    name: str
    granted: bool
    reason: str


class PermissionsView(View):
    """Every tool of the catalogue as this agent sees it."""

    agent_id: str
    tools: list[PermissionView]


class PermissionsBody(Body):
    """Tools by name, alias or id, or all with a tag: ``tag:finance``."""

    grant: list[Identifier] = Field(default_factory=list, max_length=500)
    revoke: list[Identifier] = Field(default_factory=list, max_length=500)


async def list_tools(
    services: ServicesDep,
    principal: PrincipalDep,
    agent_id: AgentQuery = None,
    after: Cursor = None,
    limit: PageLimit = 100,
) -> ToolPage:
    """Tools of the caller's microDAO, by name. An agent's key sees what ``agent_id`` may use and nothing else."""
    await permit(services, principal, "tool.list")
    acting = acting_agent(principal, agent_id)
    if acting is None:
        tools = await services.toolbox.list_all(principal.microdao_id, after or "", limit)
    else:
        tools = await services.toolbox.list_for_agent(principal.microdao_id, acting, after or "", limit)
    views = [ToolView.model_validate(tool, from_attributes=True) for tool in tools]
    return ToolPage(tools=views, next=views[-1].name if len(views) == limit else None)


def acting_agent(principal: Principal, agent_id: str | None) -> str | None:
    """For whom a list is: an agent's key sees the catalogue only through an agent's grants. Raises InvalidRequest."""
    if agent_id is None and is_agent(principal):
        raise InvalidRequest("a key with the role agent must name its agent", param="agent_id")
    return agent_id


def is_agent(principal: Principal) -> bool:
    """Whether the caller is an agent and nothing more: what its grants do not name does not exist for it."""
    return principal.roles <= {"agent"}


async def call_tool(body: CallBody, services: ServicesDep, principal: PrincipalDep) -> OutcomeView:
    """Run a tool for an agent and wait for its result. The same idempotency key gives the same run while it is kept."""
    principal = within(principal, body.microdao_id)
    outcome = await services.toolbox.execute(
        principal,
        ToolCallRequest(
            microdao_id=principal.microdao_id,
            agent_id=body.agent_id,
            tool=body.tool_id or body.tool_name or "",
            args=body.args or body.parameters or {},
            requested_by=principal.key_id,
            idempotency_key=body.idempotency_key,
            user_id=body.user_id,
            confidential=body.confidential,
        ),
    )
    failed = outcome.error_code is not None
    error = FailureView(code=outcome.error_code or "", message=outcome.error_message or "") if failed else None
    return OutcomeView(
        execution_id=outcome.execution_id,
        status=outcome.status,
        result=outcome.result,
        error=error,
        ms=outcome.ms or 0,
        cost_microusd=outcome.cost_microusd,
    )


# The source documents name each of these twice; both answer alike.
for path in ("/tools", "/tools/catalog"):
    router.get(path, summary="List tools", operation_id=f"list{path.replace('/', '_')}")(list_tools)
for path in ("/tools/call", "/tools/execute"):
    router.post(path, summary="Run a tool", operation_id=f"run{path.replace('/', '_')}")(call_tool)


@router.get("/tools/executions", summary="The audit log of tool runs")
async def list_executions(
    services: ServicesDep,
    principal: PrincipalDep,
    agent_id: Cursor = None,
    tool: Cursor = None,
    status: Literal["queued", "running", "succeeded", "failed", "unknown"] | None = None,
    before: Cursor = None,
    limit: PageLimit = 50,
) -> ExecutionPage:
    """Newest first. An agent's key must name its agent."""
    await permit(services, principal, "tool.list")
    acting_agent(principal, agent_id)
    rows = await services.toolbox.executions(
        principal.microdao_id, agent_id=agent_id, tool=tool, status=status, before=before, limit=limit
    )
    views = [ExecutionView.model_validate(row) for row in rows]
    return ExecutionPage(executions=views, next=views[-1].execution_id if len(views) == limit else None)


@router.get("/tools/agents/{agent_id}/permissions", summary="What an agent may run")
async def get_permissions(agent_id: str, services: ServicesDep, principal: PrincipalDep) -> PermissionsView:
    """Every tool with the reason for its grant or denial; to an agent's key only those that the agent may run."""
    await permit(services, principal, "tool.list")
    return await _permissions(services, principal, agent_id)


@router.put("/tools/agents/{agent_id}/permissions", summary="Grant and revoke tools")
async def put_permissions(
    agent_id: str, body: PermissionsBody, services: ServicesDep, principal: PrincipalDep
) -> PermissionsView:
    """Takes effect with the next call."""
    await permit(services, principal, "grant.write", "Agent", agent_id)
    await services.toolbox.set_grants(principal.microdao_id, agent_id, body.grant, body.revoke)
    return await _permissions(services, principal, agent_id)


async def _permissions(services: ServicesDep, principal: Principal, agent_id: str) -> PermissionsView:
    rows = await services.toolbox.permissions(principal.microdao_id, agent_id)
    shown = [row for row in rows if row[1]] if is_agent(principal) else rows
    views = [PermissionView(name=name, granted=granted, reason=reason) for name, granted, reason in shown]
    return PermissionsView(agent_id=agent_id, tools=views)
