"""The documents of long-term memory."""

import base64
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import AwareDatetime, Field, model_validator

from functions.chat.bodies import JsonRoute
from functions.chat.dependencies import Cursor, PageLimit, PrincipalDep, ServicesDep, permit, within
from functions.chat.memory_bodies import ForAll, ScopeBody, Source, UserQuery, acting, scope_ref
from functions.chat.schemas import ERRORS, Accepted, View
from shared.bootstrap import Services
from shared.errors import InvalidRequest
from shared.memory.documents.documents import NewDocument
from shared.memory.model import ScopeKind
from shared.policy.principal import Principal

router = APIRouter(
    prefix="/internal/agent-memory/documents", route_class=JsonRoute, responses=ERRORS, tags=["Memory documents"]
)
AgentQuery = Annotated[str, Query(min_length=1, max_length=200)]
TenantQuery = Annotated[str | None, Query(max_length=200)]


class DocumentBody(ScopeBody):
    """A document as text, or as base64 of its bytes (a PDF)."""

    text: str | None = Field(default=None, max_length=10_000_000)
    content_base64: str | None = Field(default=None, max_length=14_000_000)
    content_type: str = Field(default="text/plain", max_length=200)
    title: str | None = Field(default=None, max_length=1000)
    source: Source | None = None
    importance: float = Field(default=0.5, ge=0, le=1)
    occurred_at: AwareDatetime | None = None
    expires_at: AwareDatetime | None = None
    metadata: dict[str, Any] = Field(default_factory=dict, max_length=50)

    @model_validator(mode="after")
    def _has_one_content(self) -> "DocumentBody":
        if (self.text is None) == (self.content_base64 is None):
            raise ValueError("give either text or content_base64")
        return self


class DocumentView(View):
    """A document; ``pending`` of its chunks are not yet found by meaning."""

    id: str
    agent_id: str
    scope: dict[str, str]
    title: str
    source: str | None
    content_type: str
    characters: int
    chunks: int
    pending: int
    failed: int
    metadata: dict[str, Any]
    created_at: datetime


class DocumentPage(View):
    """A page of documents; pass ``next`` as ``after`` for the following one."""

    documents: list[DocumentView]
    next: str | None


@router.post("", status_code=201, summary="Add a document")
async def add_document(body: DocumentBody, services: ServicesDep, principal: PrincipalDep) -> DocumentView:
    """Plain text, Markdown, HTML or PDF: cut into chunks by its structure, each a long-term memory."""
    principal = await acting(services, principal, body, "memory.write")
    return _view(
        await services.memory.documents.add(
            NewDocument(
                microdao_id=principal.microdao_id,
                agent_id=body.agent_id,
                data=_bytes(body),
                media_type=body.content_type,
                title=body.title,
                source=body.source,
                scope=await scope_ref(services, principal, body),
                by_admin=body.for_all,
                importance=body.importance,
                occurred_at=body.occurred_at,
                expires_at=body.expires_at,
                metadata=body.metadata,
            )
        )
    )


@router.get("", summary="List documents")
async def list_documents(
    agent_id: AgentQuery,
    services: ServicesDep,
    principal: PrincipalDep,
    microdao_id: TenantQuery = None,
    user_id: UserQuery = None,
    after: Cursor = None,
    limit: PageLimit = 100,
) -> DocumentPage:
    """Those that the agent may read."""
    principal = await _reader(services, principal, microdao_id, agent_id)
    rows = await services.memory.documents.list_page(principal.microdao_id, agent_id, after or "", limit, user_id)
    return DocumentPage(documents=[_view(row) for row in rows], next=rows[-1]["id"] if len(rows) == limit else None)


@router.get("/{document_id}", summary="Get a document")
async def get_document(
    document_id: str,
    agent_id: AgentQuery,
    services: ServicesDep,
    principal: PrincipalDep,
    microdao_id: TenantQuery = None,
    user_id: UserQuery = None,
) -> DocumentView:
    """With how much of it is found by meaning. Its chunks: the agent's items with this ``document_id``."""
    principal = await _reader(services, principal, microdao_id, agent_id)
    return _view(await services.memory.documents.get(principal.microdao_id, agent_id, document_id, user_id))


@router.delete("/{document_id}", summary="Forget a document")
async def delete_document(
    document_id: str,
    agent_id: AgentQuery,
    services: ServicesDep,
    principal: PrincipalDep,
    microdao_id: TenantQuery = None,
    user_id: UserQuery = None,
    scope: ForAll = None,
) -> Accepted:
    """With all its chunks, their postings and embeddings."""
    principal = within(principal, microdao_id)
    await permit(services, principal, "memory.share" if scope else "memory.write", "Agent", agent_id)
    by_admin = scope is not None
    await services.memory.documents.delete(principal.microdao_id, agent_id, document_id, user_id, by_admin=by_admin)
    return Accepted()


async def _reader(services: Services, principal: Principal, microdao_id: str | None, agent_id: str) -> Principal:
    principal = within(principal, microdao_id)
    await permit(services, principal, "memory.read", "Agent", agent_id)
    return principal


def _bytes(body: DocumentBody) -> bytes:
    if body.text is not None:
        return body.text.encode()
    try:
        return base64.b64decode(body.content_base64 or "", validate=True)
    except ValueError:  # binascii.Error, or letters that are no ASCII
        raise InvalidRequest("content_base64 is not base64", param="content_base64") from None


def _view(row: dict[str, Any]) -> DocumentView:
    scope: dict[str, ScopeKind | str] = {"kind": row["scope_kind"], "name": row["scope_name"]}
    return DocumentView.model_validate({**row, "scope": scope, "content_type": row["media_type"]})
