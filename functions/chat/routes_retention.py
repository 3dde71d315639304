"""How long memories are kept: policies, pruning and consolidation, and the report of what was removed."""

from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import Field

from functions.chat.bodies import JsonRoute
from functions.chat.dependencies import Cursor, PageLimit, PrincipalDep, ServicesDep, permit, within
from functions.chat.memory_bodies import Identifier
from functions.chat.schemas import ERRORS, Body, View
from shared.bootstrap import Services
from shared.memory.retention.retention import Report
from shared.policy.principal import Principal

router = APIRouter(prefix="/admin/memory", route_class=JsonRoute, responses=ERRORS, tags=["Memory retention"])
_PRUNE_FOR_S = 20.0
_SAMPLE = 100  # ids shown of each reason
AgentQuery = Annotated[str | None, Query(min_length=1, max_length=200)]
TenantQuery = Annotated[str | None, Query(max_length=200)]
Days = Annotated[float | None, Field(default=None, ge=0, le=36_500, allow_inf_nan=False)]
Count = Annotated[int | None, Field(default=None, ge=0, le=2**53)]


class PolicyBody(Body):
    """Limits; null is none. What is left out is inherited: an agent's from its microDAO, the microDAO's from defaults.

    Ages count from when a memory was stored. ``max_items`` and ``max_bytes`` hold for each agent's (with its users'),
    each team's and the shared memory, ``total_…`` for all of the microDAO's together. A memory never found in
    ``unused_after_days`` is removed if its importance is below ``unused_importance_below``. Exchanges of one session or
    channel that are older than ``consolidate_after_days``, at least ``consolidate_min_items`` of them, are found as a
    summary instead, written by ``consolidate_model`` or, without one, put together from their own sentences.
    """

    short_term_max_age_days: Days
    mid_term_max_age_days: Days
    long_term_max_age_days: Days
    max_items: Count
    max_bytes: Count
    total_max_items: Count
    total_max_bytes: Count
    unused_after_days: Days
    unused_importance_below: float = Field(default=0.3, ge=0, le=1)
    consolidate_after_days: Days
    consolidate_min_items: int = Field(default=6, ge=2, le=32)
    consolidate_model: Annotated[str | None, Field(min_length=1, max_length=200)] = None


class PolicyView(View):
    """``settings`` is what was asked for here, ``effective`` what holds with all that is inherited."""

    microdao_id: str
    agent_id: str | None
    settings: dict[str, Any]
    effective: dict[str, Any]


class PruneBody(Body):
    """One agent's own memory with its users', or all memory of the microDAO. A dry run changes nothing and tells what
    would be done."""

    microdao_id: Identifier | None = None
    agent_id: Identifier | None = None
    dry_run: bool = False


class RemovedView(View):
    """How much went, and the first of the ids (of documents, for their chunks)."""

    items: int
    bytes: int
    ids: list[str]


class SummaryView(View):
    """A summary and the memories that it is found in place of."""

    id: str
    sources: list[str]


class ConsolidatedView(View):
    """Memories that a summary is found in place of. ``postponed`` counts groups left for later, by the error's code."""

    groups: int
    items: int
    summaries: list[SummaryView]
    postponed: dict[str, int]


class PruneView(View):
    """What was done, by reason. Not ``complete``: call again, or leave the rest to the schedule."""

    dry_run: bool
    complete: bool
    removed: dict[str, RemovedView]
    consolidated: ConsolidatedView


class PruningView(View):
    """Memories that were removed together, or ``consolidated`` into the summary named; no content is kept."""

    id: str
    scope: dict[str, str]
    reason: str
    items: int
    bytes: int
    ids: list[str]
    created_at: datetime


class PruningPage(View):
    """A page of what was removed, the newest first; pass ``next`` as ``after`` for the following one."""

    prunings: list[PruningView]
    next: str | None


@router.get("/policy", summary="Read how long memories are kept")
async def get_policy(
    services: ServicesDep, principal: PrincipalDep, agent_id: AgentQuery = None, microdao_id: TenantQuery = None
) -> PolicyView:
    """The microDAO's policy, or an agent's."""
    principal = await _permitted(services, principal, microdao_id, "retention.read")
    return await _policy_view(services, principal, agent_id)


@router.put("/policy", summary="Say how long memories are kept")
async def put_policy(
    body: PolicyBody,
    services: ServicesDep,
    principal: PrincipalDep,
    agent_id: AgentQuery = None,
    microdao_id: TenantQuery = None,
) -> PolicyView:
    """In place of all that was said before for the microDAO, or for the agent. It holds from the next run on."""
    principal = await _permitted(services, principal, microdao_id, "retention.write")
    settings = body.model_dump(exclude_unset=True)
    await services.memory.retention.set_policy(principal.microdao_id, agent_id, settings)
    return await _policy_view(services, principal, agent_id)


@router.post("/prune", summary="Prune and consolidate now")
async def prune(body: PruneBody, services: ServicesDep, principal: PrincipalDep) -> PruneView:
    """What the schedule does each hour. Memories of importance 1 stay; a document goes whole or not at all."""
    principal = await _permitted(services, principal, body.microdao_id, "retention.write")
    report = await services.memory.retention.run(
        principal.microdao_id, body.agent_id, dry_run=body.dry_run, within_s=_PRUNE_FOR_S
    )
    return _report_view(report)


@router.get("/prunings", summary="List what was removed")
async def list_prunings(
    services: ServicesDep,
    principal: PrincipalDep,
    agent_id: AgentQuery = None,
    microdao_id: TenantQuery = None,
    after: Cursor = None,
    limit: PageLimit = 100,
) -> PruningPage:
    """Of the last 90 days, with the ids of all that went by age, size, lack of use or its own expiry."""
    principal = await _permitted(services, principal, microdao_id, "retention.read")
    rows = await services.memory.retention.prunings(principal.microdao_id, agent_id, after, limit)
    views = [
        PruningView.model_validate({**row, "scope": {"kind": row["scope_kind"], "name": row["scope_name"]}})
        for row in rows
    ]
    return PruningPage(prunings=views, next=rows[-1]["id"] if len(rows) == limit else None)


async def _permitted(services: Services, principal: Principal, microdao_id: str | None, action: str) -> Principal:
    principal = within(principal, microdao_id)
    await permit(services, principal, action)
    return principal


async def _policy_view(services: ServicesDep, principal: Principal, agent_id: str | None) -> PolicyView:
    settings, effective = await services.memory.retention.policy(principal.microdao_id, agent_id)
    return PolicyView(
        microdao_id=principal.microdao_id, agent_id=agent_id, settings=settings, effective=asdict(effective)
    )


def _report_view(report: Report) -> PruneView:
    removed: dict[str, RemovedView] = {}
    for removal in report.removals:
        view = removed.setdefault(removal.reason, RemovedView(items=0, bytes=0, ids=[]))
        view.items += removal.unit.items
        view.bytes += removal.unit.bytes
        view.ids += [removal.unit.id] if len(view.ids) < _SAMPLE else []
    summaries = [SummaryView(id=group.summary_id, sources=list(group.ids)) for group in report.groups]
    return PruneView(
        dry_run=report.dry_run,
        complete=report.is_complete,
        removed=removed,
        consolidated=ConsolidatedView(
            groups=len(summaries),
            items=sum(len(one.sources) for one in summaries),
            summaries=summaries[:_SAMPLE],
            postponed=dict(report.postponed),
        ),
    )
