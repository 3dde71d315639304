"""An agent's memory: store, query, statistics."""

from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import AliasChoices, AwareDatetime, Field, model_validator

from functions.chat.bodies import JsonRoute
from functions.chat.dependencies import PrincipalDep, ServicesDep, permit, within
from functions.chat.schemas import ERRORS, Body, View
from shared.memory.model import MemoryQuery, NewMemory

router = APIRouter(prefix="/internal/agent-memory", route_class=JsonRoute, responses=ERRORS, tags=["Memory"])

Tier = Literal["short_term", "mid_term", "long_term"]
Identifier = Annotated[str, Field(min_length=1, max_length=200)]


class MemoryContent(Body):
    """An exchange (``user_message``, ``agent_reply``) or a text."""

    user_message: str | None = Field(default=None, max_length=100_000)
    agent_reply: str | None = Field(default=None, max_length=100_000)
    text: str | None = Field(default=None, max_length=1_000_000)
    title: str | None = Field(default=None, max_length=1000)
    source: str | None = Field(default=None, max_length=1000)
    context: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _says_something(self) -> "MemoryContent":
        if not any((part or "").strip() for part in (self.user_message, self.agent_reply, self.text)):
            raise ValueError("give user_message and agent_reply, or text")
        return self


class StoreBody(Body):
    """What to remember."""

    agent_id: Identifier
    microdao_id: Identifier | None = None
    memory_type: Tier = "mid_term"
    content: MemoryContent
    importance: float = Field(default=0.5, ge=0, le=1)
    channel_id: Identifier | None = None
    session_id: Identifier | None = None
    occurred_at: AwareDatetime | None = None
    expires_at: AwareDatetime | None = None


class StoredView(View):
    """Stored; found by meaning once its state is ``ready``."""

    id: str
    state: Literal["pending", "ready", "failed"]


class QueryFilters(Body):
    """Which memories may answer."""

    channel_id: Identifier | None = None
    session_id: Identifier | None = None
    source: str | None = Field(default=None, max_length=1000)
    since: AwareDatetime | None = None
    until: AwareDatetime | None = None


class QueryBody(Body):
    """What to look for."""

    agent_id: Identifier
    microdao_id: Identifier | None = None
    query: str = Field(min_length=1, max_length=20_000, pattern=r"\S")
    k: int = Field(default=5, ge=1, le=100, validation_alias=AliasChoices("k", "limit"))
    memory_types: list[Tier] = Field(default_factory=list, max_length=3)
    filters: QueryFilters = Field(default_factory=QueryFilters)
    explain: bool = False


class RecollectionView(View):
    """One memory found, best first."""

    id: str
    memory_type: Tier
    score: float
    content: dict[str, Any]
    text: str
    occurred_at: datetime
    source: str | None
    why: dict[str, Any] | None = None


class QueryView(View):
    """The memories found."""

    memories: list[RecollectionView]


class StatsView(View):
    """An agent's memory in figures. ``pending`` counts what is not yet found by meaning."""

    agent_id: str
    items: dict[Tier, int]
    pending: int
    failed: int
    bytes: int
    queries: int
    last_indexed_at: datetime | None


@router.post("/store", status_code=201, summary="Remember something")
async def store(body: StoreBody, services: ServicesDep, principal: PrincipalDep) -> StoredView:
    """Kept at once; embedded in the background."""
    principal = within(principal, body.microdao_id)
    permit(principal, "memory.write", "Agent", body.agent_id)
    content = body.content.model_dump(exclude_none=True)
    stored = await services.memory.store(
        NewMemory(
            microdao_id=principal.microdao_id,
            agent_id=body.agent_id,
            tier=body.memory_type,
            content=content,
            importance=body.importance,
            channel_id=body.channel_id,
            session_id=body.session_id,
            occurred_at=body.occurred_at,
            expires_at=body.expires_at,
            source=body.content.source,
        )
    )
    return StoredView(id=stored.id, state=stored.state)


@router.post("/query", summary="Find memories by meaning")
async def query(body: QueryBody, services: ServicesDep, principal: PrincipalDep) -> QueryView:
    """The agent's own memories, best first."""
    principal = within(principal, body.microdao_id)
    permit(principal, "memory.read", "Agent", body.agent_id)
    found = await services.memory.query(
        MemoryQuery(
            microdao_id=principal.microdao_id,
            agent_id=body.agent_id,
            query=body.query,
            k=body.k,
            tiers=tuple(body.memory_types),
            channel_id=body.filters.channel_id,
            session_id=body.filters.session_id,
            source=body.filters.source,
            since=body.filters.since,
            until=body.filters.until,
            explain=body.explain,
        )
    )
    return QueryView(
        memories=[
            RecollectionView(
                id=one.id,
                memory_type=one.tier,
                score=one.score,
                content=one.content,
                text=one.text,
                occurred_at=one.occurred_at,
                source=one.source,
                why=one.why,
            )
            for one in found
        ]
    )


@router.get("/agents/{agent_id}/stats", summary="An agent's memory in figures")
async def stats(
    agent_id: str,
    services: ServicesDep,
    principal: PrincipalDep,
    microdao_id: Annotated[str | None, Query(max_length=200)] = None,
) -> StatsView:
    """Items by tier, what waits for the indexer, what failed."""
    principal = within(principal, microdao_id)
    permit(principal, "memory.read", "Agent", agent_id)
    figures = await services.memory.stats(principal.microdao_id, agent_id)
    return StatsView.model_validate({"agent_id": agent_id, **asdict(figures)})
