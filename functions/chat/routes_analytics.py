"""Figures about memory: growth, questions, use, duplicates, the indexer's queue, embeddings and their cost."""

from datetime import datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Query

from functions.chat.bodies import JsonRoute
from functions.chat.dependencies import PageLimit, PrincipalDep, ServicesDep, permit, within
from functions.chat.memory_bodies import Tier, read_cursor, write_cursor
from functions.chat.schemas import ERRORS, View
from shared.bootstrap import Services
from shared.db.database import Row
from shared.memory.analytics.analytics import Subject, Wanted
from shared.memory.model import ScopeKind
from shared.policy.principal import Principal
from shared.usage.report import parse_period

router = APIRouter(
    prefix="/internal/agent-memory/analytics", route_class=JsonRoute, responses=ERRORS, tags=["Memory analytics"]
)
AgentQuery = Annotated[
    str | None, Query(min_length=1, max_length=200, description="Its own memory; all of the microDAO's without it.")
]
TenantQuery = Annotated[str | None, Query(max_length=200)]
UnusedDays = Annotated[int, Query(ge=1, le=3650, description="Not used for so many days is stale.")]


class GrowthView(View):
    """What was stored on a (UTC) day and is still there."""

    day: str
    memory_type: Tier
    items: int
    bytes: int


class QueriesView(View):
    """What was asked on a day. A miss found nothing worth telling; ``hits`` are the rest."""

    day: str
    queries: int
    hits: int
    misses: int


class DuplicatesView(View):
    """Of the newest items, those that repeat another one's words in the same memory."""

    looked_at: int
    duplicates: int
    rate: float


class FailureView(View):
    """Why items could not be embedded."""

    reason: str
    items: int


class QueueView(View):
    """What is not found by meaning yet."""

    pending: int
    oldest_pending_s: float | None
    failed: int
    failures: list[FailureView]


class EmbeddingsView(View):
    """A model's vectors and about how many bytes their rows take."""

    model: str
    state: str
    dimensions: int
    vectors: int
    bytes: int


class EmbeddingCostView(View):
    """What calls of an embedding model cost in the period."""

    model: str
    requests: int
    errors: int
    prompt_tokens: int
    cost_microusd: int
    cost_1t: float


class AnalyticsView(View):
    """``agent_id`` null is the whole microDAO. ``stale`` counts items that are old and long unused."""

    agent_id: str | None
    since: datetime
    until: datetime
    growth: list[GrowthView]
    queries: list[QueriesView]
    duplicates: DuplicatesView
    stale: int
    queue: QueueView
    embeddings: list[EmbeddingsView]
    embedding_cost: list[EmbeddingCostView]


class UsedItemView(View):
    """A memory, how its text begins, and how often it answered."""

    id: str
    memory_type: Tier
    scope: dict[str, ScopeKind | str]
    text: str
    hits: int
    last_hit_at: datetime | None
    created_at: datetime


class UsedItemPage(View):
    """A page of memories; pass ``next`` as ``after`` for the following one."""

    items: list[UsedItemView]
    next: str | None


@router.get("", summary="Memory in figures")
async def analytics(
    services: ServicesDep,
    principal: PrincipalDep,
    agent_id: AgentQuery = None,
    microdao_id: TenantQuery = None,
    period: Annotated[str, Query(max_length=50, description="30d, 24h, a date, or date..date")] = "30d",
    unused_days: UnusedDays = 90,
) -> AnalyticsView:
    """Growth, questions and cost in a period of at most 366 days; all else as it is now."""
    subject = await _subject(services, principal, agent_id, microdao_id)
    since, until = parse_period(period)
    report = await services.memory.analytics.report(
        subject,
        Wanted(
            since=since,
            until=until,
            unused_for=timedelta(days=unused_days),
            embedding_models=[model.id for model in services.gateway.models() if model.kind == "embedding"],
            usd_per_1t=services.settings.usd_per_1t,
        ),
    )
    growth = [{**row, "memory_type": row["tier"]} for row in report["growth"]]
    return AnalyticsView.model_validate(
        {**report, "growth": growth, "agent_id": agent_id, "since": since, "until": until}
    )


@router.get("/most-used", summary="The memories that answer most")
async def most_used(
    services: ServicesDep,
    principal: PrincipalDep,
    agent_id: AgentQuery = None,
    microdao_id: TenantQuery = None,
    after: Annotated[str | None, Query(pattern=r"^[0-9]{1,9}\.[0-9]{1,18}$")] = None,
    limit: PageLimit = 20,
) -> UsedItemPage:
    """By how often they were found, most first."""
    subject = await _subject(services, principal, agent_id, microdao_id)
    hits, _, number = (after or "").partition(".")
    cursor = (int(hits), int(number)) if after else None
    rows = await services.memory.analytics.most_used(subject, cursor, limit)
    return _page(rows, f"{rows[-1]['hits']}.{rows[-1]['number']}" if len(rows) == limit else None)


@router.get("/stale", summary="Memories that nobody needs")
async def stale(
    services: ServicesDep,
    principal: PrincipalDep,
    agent_id: AgentQuery = None,
    microdao_id: TenantQuery = None,
    unused_days: UnusedDays = 90,
    after: Annotated[str | None, Query(max_length=500)] = None,
    limit: PageLimit = 20,
) -> UsedItemPage:
    """At least so old and never or long not found, oldest first."""
    subject = await _subject(services, principal, agent_id, microdao_id)
    rows = await services.memory.analytics.stale(subject, timedelta(days=unused_days), read_cursor(after), limit)
    cursor = write_cursor({**rows[-1], "occurred_at": rows[-1]["created_at"]}) if len(rows) == limit else None
    return _page(rows, cursor)


async def _subject(services: Services, principal: Principal, agent_id: str | None, microdao_id: str | None) -> Subject:
    principal = within(principal, microdao_id)
    if agent_id is None:
        await permit(services, principal, "memory.read")
    else:
        await permit(services, principal, "memory.read", "Agent", agent_id)
    return Subject(microdao_id=principal.microdao_id, agent_id=agent_id)


def _page(rows: list[Row], cursor: str | None) -> UsedItemPage:
    placed: list[dict[str, Any]] = [
        {**row, "memory_type": row["tier"], "scope": {"kind": row["scope_kind"], "name": row["scope_name"]}}
        for row in rows
    ]
    return UsedItemPage.model_validate({"items": placed, "next": cursor})
