"""Rate limits and budgets of the platform, a microDAO, an agent, a key or a flow."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import Field

from functions.chat.bodies import JsonRoute
from functions.chat.dependencies import PageLimit, PrincipalDep, ServicesDep, permit, within
from functions.chat.schemas import ERRORS, Body, View
from shared.bootstrap import Services
from shared.errors import InvalidRequest, NotFound
from shared.llm.money.limits import Listing
from shared.llm.money.scopes import PLATFORM, Period, ScopeKey, ScopeKind
from shared.policy.principal import Principal

router = APIRouter(prefix="/admin", route_class=JsonRoute, responses=ERRORS, tags=["Administration"])
Identifier = Annotated[str, Field(min_length=1, max_length=200)]
TenantQuery = Annotated[str | None, Query(max_length=200)]
LimitCursor = Annotated[str | None, Query(max_length=500)]
PerMinute = Annotated[int, Field(ge=0, le=2_000_000_000)]


class ScopeBody(Body):
    """What it is for. ``id`` may be left out for the platform and for the key's own microDAO."""

    scope: ScopeKind
    id: Identifier | None = None
    microdao_id: Identifier | None = None


class LimitBody(ScopeBody):
    """The most per minute of each, in place of what held before; null lifts."""

    requests_per_minute: PerMinute | None = None
    tokens_per_minute: PerMinute | None = None


class BudgetBody(ScopeBody):
    """The most to spend in a day or month (UTC) or in total, in micro-USD; null lifts."""

    period: Period
    limit_microusd: Annotated[int, Field(ge=0, le=10**15)] | None


class ScopeView(View):
    """What it is for; the platform has neither id."""

    scope: ScopeKind
    id: str | None
    microdao_id: str | None


class LimitView(ScopeView):
    """The most per minute; null is no limit."""

    requests_per_minute: int | None
    tokens_per_minute: int | None


class LimitPage(View):
    """A page of limits; pass ``next`` as ``after`` for the following one."""

    limits: list[LimitView]
    next: str | None


class BudgetSetting(ScopeView):
    """A budget as it was set; null is none."""

    period: Period
    limit_microusd: int | None


class BudgetView(BudgetSetting):
    """A budget with what its running period has spent and holds for calls in flight. A total never resets."""

    spent_microusd: int
    reserved_microusd: int
    resets_at: datetime | None


class BudgetPage(View):
    """A page of budgets; pass ``next`` as ``after`` for the following one."""

    budgets: list[BudgetView]
    next: str | None


@router.put("/limits", summary="Set a rate limit")
async def put_limit(body: LimitBody, services: ServicesDep, principal: PrincipalDep) -> LimitView:
    """It holds from the next call on. The platform's are for operators."""
    key = await _writable(services, principal, body)
    await services.limits.set_limit(key, body.requests_per_minute, body.tokens_per_minute)
    return LimitView.model_validate(_shown({**body.model_dump(), "microdao_id": key.microdao_id, "id": key.id}))


@router.get("/limits", summary="List rate limits")
async def list_limits(
    services: ServicesDep,
    principal: PrincipalDep,
    microdao_id: TenantQuery = None,
    after: LimitCursor = None,
    limit: PageLimit = 100,
) -> LimitPage:
    """Those of one microDAO; an operator sees the platform's, too."""
    rows = await services.limits.list_limits(await _listing(services, principal, microdao_id, after, limit))
    views = [LimitView.model_validate(_shown(row)) for row in rows]
    return LimitPage(limits=views, next=rows[-1]["cursor"] if len(rows) == limit else None)


@router.put("/budgets", summary="Set a budget")
async def put_budget(body: BudgetBody, services: ServicesDep, principal: PrincipalDep) -> BudgetSetting:
    """It holds from the next call on, and counts what the running period has spent already."""
    key = await _writable(services, principal, body)
    await services.limits.set_budget(key, body.period, body.limit_microusd)
    return BudgetSetting.model_validate(_shown({**body.model_dump(), "microdao_id": key.microdao_id, "id": key.id}))


@router.get("/budgets", summary="List budgets")
async def list_budgets(
    services: ServicesDep,
    principal: PrincipalDep,
    microdao_id: TenantQuery = None,
    after: LimitCursor = None,
    limit: PageLimit = 100,
) -> BudgetPage:
    """With what is spent and reserved. Those of one microDAO; an operator sees the platform's, too."""
    rows = await services.limits.list_budgets(await _listing(services, principal, microdao_id, after, limit))
    views = [BudgetView.model_validate(_shown(row)) for row in rows]
    return BudgetPage(budgets=views, next=rows[-1]["cursor"] if len(rows) == limit else None)


async def _writable(services: Services, principal: Principal, body: ScopeBody) -> ScopeKey:
    if body.scope == "platform":
        await permit(services, principal, "platform.write")
        return ScopeKey(microdao_id=PLATFORM, scope="platform", id=PLATFORM)
    principal = within(principal, body.microdao_id or (body.id if body.scope == "microdao" else None))
    await permit(services, principal, "limit.write")
    if body.scope == "microdao":
        if body.id not in (None, principal.microdao_id):
            raise NotFound(f"no microDAO {body.id!r} in {principal.microdao_id}", param="id")
        return ScopeKey(microdao_id=principal.microdao_id, scope="microdao", id=principal.microdao_id)
    if body.id is None:
        raise InvalidRequest(f"id must name the {body.scope}", param="id")
    return ScopeKey(microdao_id=principal.microdao_id, scope=body.scope, id=body.id)


async def _listing(
    services: Services, principal: Principal, microdao_id: str | None, after: str | None, limit: int
) -> Listing:
    principal = within(principal, microdao_id)
    await permit(services, principal, "limit.read")
    return Listing(
        microdao_id=principal.microdao_id, with_platform=principal.is_operator, after=after or "", limit=limit
    )


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "id": None, "microdao_id": None} if row["scope"] == "platform" else row
