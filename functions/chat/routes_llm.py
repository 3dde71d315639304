"""What model calls used."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import ConfigDict

from functions.chat.bodies import JsonRoute
from functions.chat.dependencies import PrincipalDep, ServicesDep, permit, within
from functions.chat.schemas import ERRORS, View
from shared.errors import InvalidRequest
from shared.usage.report import GROUP_KEYS, UsageFilter, parse_period, usage_report

router = APIRouter(prefix="/internal/llm", route_class=JsonRoute, responses=ERRORS, tags=["Gateway"])
Text = Annotated[str | None, Query(max_length=200)]


class UsageFigures(View):
    """Sums over calls; latencies are percentiles in milliseconds."""

    model_config = ConfigDict(extra="allow")
    requests: int
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    reasoning_tokens: int
    total_tokens: int
    cost_microusd: int
    cost_1t: float
    latency_ms_p50: float | None
    latency_ms_p95: float | None
    errors: int


class UsageView(View):
    """The total and, with ``group_by``, the same figures per group."""

    total: UsageFigures
    groups: list[UsageFigures]


class RouteView(View):
    """A physical model behind a logical one."""

    provider: str
    model: str


class LogicalModelView(View):
    """A logical model and its routes, best first."""

    id: str
    routes: list[RouteView]


class LogicalModels(View):
    """Every logical model with a usable route."""

    models: list[LogicalModelView]


@router.get("/models", summary="Logical models and their routes")
async def list_logical_models(services: ServicesDep, principal: PrincipalDep) -> LogicalModels:
    """Only what can answer now."""
    permit(principal, "model.list")
    models = [LogicalModelView.model_validate(one, from_attributes=True) for one in services.gateway.models()]
    return LogicalModels(models=models)


@router.get("/usage", summary="Tokens, cost and latency")
async def get_usage(
    services: ServicesDep,
    principal: PrincipalDep,
    agent_id: Text = None,
    microdao_id: Text = None,
    model: Text = None,
    flow_id: Text = None,
    period: Annotated[str, Query(max_length=50, description="30d, 24h, a date, or date..date")] = "30d",
    group_by: Annotated[str, Query(max_length=100, description="Comma-separated: day, model, agent_id")] = "",
) -> UsageView:
    """Calls that the usage meter has seen."""
    principal = within(principal, microdao_id)
    permit(principal, "usage.read")
    since, until = parse_period(period)
    chosen = UsageFilter(
        agent_id=agent_id, model=model, flow_id=flow_id, since=since, until=until, group_by=_group_keys(group_by)
    )
    report: Any = await usage_report(
        services.database, principal.microdao_id, chosen, usd_per_1t=services.settings.usd_per_1t
    )
    return UsageView.model_validate(report)


def _group_keys(group_by: str) -> tuple[Literal["day", "model", "agent_id"], ...]:
    keys: Any = tuple(key.strip() for key in group_by.split(",") if key.strip())
    if unknown := [key for key in keys if key not in GROUP_KEYS]:
        raise InvalidRequest(f"cannot group by {unknown[0]!r}; use {', '.join(GROUP_KEYS)}", param="group_by")
    return keys  # type: ignore[no-any-return]
