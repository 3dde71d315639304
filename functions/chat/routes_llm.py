"""Logical models, calls to them on behalf of agents, and what calls used."""

import csv
import io
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from pydantic import ConfigDict
from starlette.responses import Response

from functions.chat.dependencies import PrincipalDep, ServicesDep, permit, within
from functions.chat.model_answers import ClientHintsDep, answer_by_model
from functions.chat.model_route import ModelRoute
from functions.chat.schemas import ERRORS, View
from shared.bootstrap import Services
from shared.clock import utc_now
from shared.errors import InvalidRequest, ModelNotFound, Unavailable
from shared.llm.caller import Caller
from shared.usage.report import GROUP_KEYS, GroupKey, UsageFilter, parse_period, usage_report
from shared.wire.chat import ChatMetadata, ChatRequest

router = APIRouter(prefix="/internal/llm", route_class=ModelRoute, responses=ERRORS, tags=["Gateway"])
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


class PriceView(View):
    """USD per million tokens: plain input, input read from and written to the provider's cache, output."""

    input_usd_per_mtok: float
    cached_input_usd_per_mtok: float
    cache_creation_usd_per_mtok: float
    output_usd_per_mtok: float


class RouteView(View):
    """A physical model behind a logical one. Unhealthy: it failed of late and is avoided. A price may be unknown."""

    provider: str
    model: str
    healthy: bool
    price: PriceView | None


class LogicalModelView(View):
    """A logical model and its routes, best first."""

    id: str
    kind: str
    routes: list[RouteView]


class LogicalModels(View):
    """Every logical model with a usable route."""

    models: list[LogicalModelView]


class ProxyRequest(ChatRequest):
    """An OpenAI chat body with the agent and microDAO it is for, here or under ``metadata``."""

    model_config = ConfigDict(defer_build=True)
    agent_id: str | None = None
    microdao_id: str | None = None

    def chat_request(self) -> ChatRequest:
        """The body alone."""
        own = {name: getattr(self, name) for name in ChatRequest.model_fields}
        return ChatRequest.model_construct(self.model_fields_set & own.keys(), **{**own, **(self.model_extra or {})})


@router.get("/models", summary="Logical models and their routes")
async def list_logical_models(services: ServicesDep, principal: PrincipalDep) -> LogicalModels:
    """Only what can answer now."""
    await permit(services, principal, "model.list")
    return LogicalModels(
        models=[
            LogicalModelView(
                id=model.id,
                kind=model.kind,
                routes=[
                    RouteView(
                        provider=route.provider,
                        model=route.model,
                        healthy=route.healthy,
                        price=_price(services, route.provider, route.model),
                    )
                    for route in model.routes
                ],
            )
            for model in services.gateway.models()
        ]
    )


@router.post(
    "/proxy",
    summary="Call a logical model",
    response_model=None,
    responses={200: {"content": {"application/json": {"schema": {"type": "object"}}, "text/event-stream": {}}}},
)
async def call_model(
    body: ProxyRequest, services: ServicesDep, principal: PrincipalDep, hints: ClientHintsDep
) -> Response:
    """As ``POST /v1/chat/completions`` does for a logical model, on behalf of an agent."""
    metadata = body.metadata or ChatMetadata()
    principal = within(principal, body.microdao_id or metadata.microdao_id)
    await permit(services, principal, "llm.invoke", "Model", body.model)
    agent_id = body.agent_id or metadata.agent_id
    if agent_id is not None:
        await services.tenants.check_agent(principal.microdao_id, agent_id)
    if not services.gateway.knows(body.model):
        raise ModelNotFound(f"no logical model {body.model!r}; GET /internal/llm/models lists them", param="model")
    caller = Caller(microdao_id=principal.microdao_id, key_id=principal.key_id, agent_id=agent_id)
    return await answer_by_model(services, body.chat_request(), caller, hints)


@router.get(
    "/usage",
    summary="Tokens, cost and latency",
    response_model=UsageView,
    responses={200: {"content": {"text/csv": {"schema": {"type": "string"}}}}},
)
async def get_usage(
    request: Request,
    services: ServicesDep,
    principal: PrincipalDep,
    agent_id: Text = None,
    microdao_id: Text = None,
    model: Text = None,
    flow_id: Text = None,
    period: Annotated[str, Query(max_length=50, description="30d, 24h, a date, or date..date")] = "30d",
    group_by: Annotated[str, Query(max_length=100, description=f"Comma-separated: {', '.join(GROUP_KEYS)}")] = "",
    format: Annotated[Literal["json", "csv"] | None, Query(description="csv also by Accept: text/csv")] = None,  # noqa: A002 - the query's name
) -> Any:
    """Calls that the usage meter has seen. As CSV, one line per group, or the total without groups."""
    principal = within(principal, microdao_id)
    await permit(services, principal, "usage.read")
    since, until = parse_period(period)
    keys = _group_keys(group_by)
    chosen = UsageFilter(agent_id=agent_id, model=model, flow_id=flow_id, since=since, until=until, group_by=keys)
    report: Any = await usage_report(
        services.database, principal.microdao_id, chosen, usd_per_1t=services.settings.usd_per_1t
    )
    if format == "csv" or (format is None and "text/csv" in request.headers.get("accept", "")):
        return _csv(report["groups"] if keys else [report["total"]], keys)
    return UsageView.model_validate(report)


def _group_keys(group_by: str) -> tuple[GroupKey, ...]:
    keys: Any = tuple(key.strip() for key in group_by.split(",") if key.strip())
    if unknown := [key for key in keys if key not in GROUP_KEYS]:
        raise InvalidRequest(f"cannot group by {unknown[0]!r}; use {', '.join(GROUP_KEYS)}", param="group_by")
    return keys  # type: ignore[no-any-return]


def _csv(lines: list[dict[str, Any]], keys: tuple[GroupKey, ...]) -> Response:
    text = io.StringIO()
    writer = csv.DictWriter(text, [*dict.fromkeys(keys), *UsageFigures.model_fields])
    writer.writeheader()
    writer.writerows(lines)
    return Response(
        text.getvalue(), media_type="text/csv", headers={"content-disposition": 'attachment; filename="usage.csv"'}
    )


def _price(services: Services, provider: str, model: str) -> PriceView | None:
    """What a small call costs now; a large prompt may cost more."""
    try:
        prices = services.prices.unit_prices(provider, model, utc_now(), 0)
    except Unavailable:
        return None
    return PriceView(
        input_usd_per_mtok=float(prices.input),
        cached_input_usd_per_mtok=float(prices.cached_input),
        cache_creation_usd_per_mtok=float(prices.cache_creation),
        output_usd_per_mtok=float(prices.output),
    )
