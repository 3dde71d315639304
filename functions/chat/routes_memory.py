"""An agent's memory: store, query, recent, items, statistics."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Query

from functions.chat.bodies import JsonRoute
from functions.chat.dependencies import PageLimit, PrincipalDep, ServicesDep, permit, within
from functions.chat.memory_bodies import (
    ForAll,
    UserQuery,
    acting,
    read_cursor,
    scope_ref,
    write_cursor,
)
from functions.chat.memory_item_bodies import (
    ForgetBody,
    ForgottenView,
    ItemPage,
    ItemView,
    QueryBody,
    QueryFilters,
    QueryView,
    RecentBody,
    RecentMessage,
    RecentView,
    RecollectionView,
    StatsView,
    StoreBody,
    StoredView,
    placed,
)
from functions.chat.schemas import ERRORS, Accepted
from shared.memory.documents.documents import NewDocument
from shared.memory.model import Filters, Listing, MemoryQuery, NewMemory, Recollection, ScopeKind, Tier

router = APIRouter(prefix="/internal/agent-memory", route_class=JsonRoute, responses=ERRORS, tags=["Memory"])

_CHUNKED_CHARACTERS = 1500  # a longer text of long-term memory is a document


@router.post("/store", status_code=201, summary="Remember something")
async def store(body: StoreBody, services: ServicesDep, principal: PrincipalDep) -> StoredView:
    """Kept at once; embedded in the background. A long text of long-term memory becomes a document of chunks, unless
    it is part of an exchange, a session or a channel."""
    principal = await acting(services, principal, body, "memory.write")
    if _is_document(body):
        document = await services.memory.documents.add(
            _document(body, principal.microdao_id, await scope_ref(services, principal, body))
        )
        return StoredView(id=document["id"], state="pending" if document["pending"] else "ready")
    stored = await services.memory.store(
        NewMemory(
            microdao_id=principal.microdao_id,
            agent_id=body.agent_id,
            tier=body.memory_type,
            content=body.content.model_dump(exclude_none=True),
            scope=await scope_ref(services, principal, body),
            by_admin=body.for_all,
            importance=body.importance,
            channel_id=body.channel_id,
            session_id=body.session_id,
            occurred_at=body.occurred_at,
            expires_at=body.expires_at,
            source=body.content.source,
        )
    )
    return StoredView(id=stored.id, state=stored.state)


@router.post("/query", summary="Find memories by meaning and words")
async def query(body: QueryBody, services: ServicesDep, principal: PrincipalDep) -> QueryView:
    """What the agent may read, best first: its own memory, its teams', its microDAO's and what is shared with it; with
    ``user_id`` also what it keeps for that user, and never for another."""
    principal = await acting(services, principal, body)
    found = await services.memory.query(
        MemoryQuery(
            microdao_id=principal.microdao_id,
            agent_id=body.agent_id,
            user_id=body.user_id,
            query=body.query,
            k=body.k,
            min_score=body.min_score,
            filters=_filters(body.filters, body.memory_types, body.scopes),
            mode=body.mode,
            context_turns=body.context_turns,
            explain=body.explain,
        )
    )
    return QueryView(memories=[_recollection_view(one) for one in found])


@router.post("/recent", summary="Read the newest messages of a channel or session")
async def recent(body: RecentBody, services: ServicesDep, principal: PrincipalDep) -> RecentView:
    """Short-term memory: by time, within a budget of tokens."""
    principal = await acting(services, principal, body)
    filters = Filters(tiers=tuple(body.memory_types), channel_id=body.channel_id, session_id=body.session_id)
    rows = await services.memory.channels.recent(
        principal.microdao_id,
        body.agent_id,
        filters,
        user_id=body.user_id,
        max_tokens=body.max_tokens,
        limit=body.limit,
    )
    return RecentView(
        messages=[RecentMessage.model_validate(placed(row)) for row in rows], tokens=sum(row["tokens"] for row in rows)
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
    await permit(services, principal, "memory.read", "Agent", agent_id)
    figures = await services.memory.stats(principal.microdao_id, agent_id)
    return StatsView.model_validate({"agent_id": agent_id, **asdict(figures)})


@router.get("/agents/{agent_id}/items", summary="List memories")
async def list_items(
    agent_id: str,
    services: ServicesDep,
    principal: PrincipalDep,
    microdao_id: Annotated[str | None, Query(max_length=200)] = None,
    user_id: UserQuery = None,
    memory_type: Tier | None = None,
    scope: ScopeKind | None = None,
    channel_id: Annotated[str | None, Query(max_length=200)] = None,
    session_id: Annotated[str | None, Query(max_length=200)] = None,
    document_id: Annotated[str | None, Query(max_length=200)] = None,
    after: Annotated[str | None, Query(max_length=500)] = None,
    limit: PageLimit = 100,
) -> ItemPage:
    """What the agent may read, newest first. Where texts are long a page has fewer items than its limit."""
    principal = within(principal, microdao_id)
    await permit(services, principal, "memory.read", "Agent", agent_id)
    filters = Filters(
        tiers=(memory_type,) if memory_type else (),
        scopes=(scope,) if scope else (),
        channel_id=channel_id,
        session_id=session_id,
        document_id=document_id,
    )
    rows = await services.memory.list(
        Listing(
            microdao_id=principal.microdao_id,
            agent_id=agent_id,
            filters=filters,
            user_id=user_id,
            before=read_cursor(after),
            limit=limit,
        )
    )
    items = [ItemView.model_validate(placed(row)) for row in rows]
    is_last = not rows or len(rows) == rows[-1]["matching"] < limit
    return ItemPage(items=items, next=None if is_last else write_cursor(rows[-1]))


@router.delete("/agents/{agent_id}/items/{item_id}", summary="Forget a memory")
async def forget(
    agent_id: str,
    item_id: str,
    services: ServicesDep,
    principal: PrincipalDep,
    microdao_id: Annotated[str | None, Query(max_length=200)] = None,
    user_id: UserQuery = None,
    scope: ForAll = None,
) -> Accepted:
    """Really deleted, with its postings and embeddings, and with a summary that was made of it."""
    principal = within(principal, microdao_id)
    await permit(services, principal, "memory.share" if scope else "memory.write", "Agent", agent_id)
    await services.memory.forget(principal.microdao_id, agent_id, item_id, user_id, by_admin=scope is not None)
    return Accepted()


@router.post("/forget", summary="Forget memories by filter")
async def forget_matching(body: ForgetBody, services: ServicesDep, principal: PrincipalDep) -> ForgottenView:
    """Deletes all that match: of the agent's own memories, or with ``user_id`` of those it keeps for that user."""
    principal = await acting(services, principal, body, "memory.write")
    filters = _filters(body.filters, body.memory_types, ())
    forgotten = await services.memory.forget_matching(principal.microdao_id, body.agent_id, filters, body.user_id)
    return ForgottenView(forgotten=forgotten)


def _is_document(body: StoreBody) -> bool:
    """A document has no place for an exchange, a session or a channel: what names one is kept as it is."""
    said = body.content.user_message or body.content.agent_reply
    is_plain = not (said or body.session_id or body.channel_id)
    return body.memory_type == "long_term" and is_plain and len(body.content.text or "") > _CHUNKED_CHARACTERS


def _document(body: StoreBody, microdao_id: str, scope: Any) -> NewDocument:
    return NewDocument(
        microdao_id=microdao_id,
        agent_id=body.agent_id,
        data=(body.content.text or "").encode(),
        media_type="text/plain",
        title=body.content.title,
        source=body.content.source,
        scope=scope,
        by_admin=body.for_all,
        importance=body.importance,
        occurred_at=body.occurred_at,
        expires_at=body.expires_at,
        metadata=body.content.context or {},
    )


def _filters(filters: QueryFilters, tiers: Sequence[Tier], scopes: Sequence[ScopeKind]) -> Filters:
    return Filters(tiers=tuple(tiers), scopes=tuple(scopes), **filters.model_dump())


def _recollection_view(one: Recollection) -> RecollectionView:
    fields = {name: getattr(one, name) for name in Recollection.__dataclass_fields__}  # asdict would copy all of it
    return RecollectionView.model_validate({**fields, "memory_type": one.tier}, from_attributes=True)
