"""How tools are used, and one tool as a caller may know it."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query

from functions.chat.bodies import JsonRoute
from functions.chat.dependencies import PrincipalDep, ServicesDep, permit, within
from functions.chat.routes_tools import AgentQuery, ToolView, acting_agent
from functions.chat.schemas import ERRORS, View
from shared.tools.catalogue.analytics import UsageQuestion, tool_usage
from shared.usage.report import parse_period

router = APIRouter(prefix="/internal/tools", route_class=JsonRoute, responses=ERRORS, tags=["Tools"])
TenantQuery = Annotated[str | None, Query(max_length=200)]


class ToolDetailView(ToolView):
    """A tool with all that a caller needs to know to call it."""

    result_schema: dict[str, Any] | None
    timeout_ms: int
    idempotent: bool
    cost_microusd: int
    rate_limit_per_minute: int | None
    environments: list[str]


class UsageFigures(View):
    """``unknown`` runs may have had their effect. Times are of runs that ended, null if none did."""

    runs: int
    succeeded: int
    failed: int
    unknown: int
    unfinished: int
    failures: dict[str, int]
    ms_p50: int | None
    ms_p95: int | None
    cost_microusd: int
    last_used_at: datetime | None


class UsageGroup(UsageFigures):
    """The figures of one group; only what was grouped by is set."""

    tool: str | None = None
    agent: str | None = None
    day: str | None = None


class DenialGroup(View):
    """Calls that policy refused; only what was grouped by is set."""

    denied: int
    tool: str | None = None
    agent: str | None = None
    day: str | None = None


class UnusedView(View):
    """An active tool that was not run in the period, and how many agents may use it."""

    name: str
    last_used_at: datetime | None
    agents: int


class UsageView(View):
    """At most 1,000 groups, most runs first."""

    since: datetime
    until: datetime
    total: UsageFigures
    groups: list[UsageGroup]
    denied: int
    denials: list[DenialGroup]
    unused: list[UnusedView]


@router.get("/analytics", summary="How tools are used")
async def analytics(
    services: ServicesDep,
    principal: PrincipalDep,
    microdao_id: TenantQuery = None,
    period: Annotated[str, Query(max_length=50, description="30d, 24h, a date, or date..date")] = "30d",
    agent_id: Annotated[str | None, Query(min_length=1, max_length=200)] = None,
    tool: Annotated[str | None, Query(min_length=1, max_length=200)] = None,
    group_by: Annotated[str, Query(max_length=50, description="tool, agent, day, or several with commas")] = "tool",
) -> UsageView:
    """Runs, failures by code, times, cost; and the tools that nobody used. Runs that were removed are not counted."""
    principal = within(principal, microdao_id)
    await permit(services, principal, "usage.read")
    since, until = parse_period(period)
    keys: Any = [key for key in group_by.split(",") if key]
    question = UsageQuestion(since=since, until=until, agent_id=agent_id, tool=tool, group_by=keys)
    report = await tool_usage(services.database, principal.microdao_id, question)
    return UsageView.model_validate({**report, "since": since, "until": until})


@router.get("/{name_or_id}", summary="Get a tool")
async def get_tool(
    name_or_id: str, services: ServicesDep, principal: PrincipalDep, agent_id: AgentQuery = None
) -> ToolDetailView:
    """By id, name or alias, at its active version. To an agent a tool it may not use does not exist."""
    await permit(services, principal, "tool.list")
    acting = acting_agent(principal, agent_id)
    if acting is None:
        tool = await services.toolbox.find(principal.microdao_id, name_or_id)
    else:
        tool = await services.toolbox.find_for_agent(principal.microdao_id, acting, name_or_id)
    return ToolDetailView.model_validate(tool, from_attributes=True)
