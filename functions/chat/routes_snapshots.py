"""Snapshots of agents' memory: save, list, export, restore, import."""

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from pydantic import Field
from starlette.responses import StreamingResponse

from functions.chat.bodies import JsonRoute, is_raw
from functions.chat.dependencies import Cursor, PageLimit, PrincipalDep, ServicesDep, may, permit, within
from functions.chat.memory_bodies import AgentBody, Identifier, MemoryAction, acting
from functions.chat.schemas import ERRORS, Accepted, Body, View
from shared.bootstrap import Services
from shared.db.database import Row
from shared.errors import UnsupportedMediaType
from shared.memory.snapshots.file import MEDIA_TYPE
from shared.policy.principal import Principal

router = APIRouter(
    prefix="/internal/agent-memory/snapshots", route_class=JsonRoute, responses=ERRORS, tags=["Memory snapshots"]
)
AgentQuery = Annotated[str, Query(min_length=1, max_length=200)]
ActingQuery = Annotated[
    str | None, Query(min_length=1, max_length=200, description="Act for this agent: only what it may see exists.")
]
TenantQuery = Annotated[str | None, Query(max_length=200)]
Mode = Literal["replace", "merge"]

_FILE = {MEDIA_TYPE: {"schema": {"type": "string"}}}


class SaveBody(AgentBody):
    """Whose memory to save, and a name for people."""

    name: Annotated[str, Field(max_length=200)] = ""


class RestoreBody(Body):
    """Into which agent's memory (that of the snapshot, if left out), and whether it becomes exactly the snapshot."""

    agent_id: Identifier | None = None
    microdao_id: Identifier | None = None
    mode: Mode = "merge"


class SnapshotView(View):
    """A snapshot; ``users`` is for how many end users it holds memories, ``bytes`` the size of its file."""

    id: str
    agent_id: str
    name: str
    items: int
    documents: int
    users: int
    bytes: int
    created_at: datetime


class SnapshotPage(View):
    """A page of snapshots, oldest first; pass ``next`` as ``after`` for the following one."""

    snapshots: list[SnapshotView]
    next: str | None


class RestoredView(View):
    """How the memory changed. ``changed`` got their tier, importance or expiry from the snapshot, ``kept`` nothing."""

    agent_id: str
    mode: Mode
    added: int
    kept: int
    changed: int
    removed: int
    documents_added: int
    documents_removed: int


@router.post("", status_code=201, summary="Save an agent's memory")
async def save(body: SaveBody, services: ServicesDep, principal: PrincipalDep) -> SnapshotView:
    """All of the agent's own memory, and what it keeps for its users, as it is at one moment."""
    principal = await acting(services, principal, body, "memory.write")
    return _view(await services.memory.snapshots.save(principal.microdao_id, body.agent_id, body.name))


@router.get("", summary="List snapshots")
async def list_snapshots(
    agent_id: AgentQuery,
    services: ServicesDep,
    principal: PrincipalDep,
    microdao_id: TenantQuery = None,
    after: Cursor = None,
    limit: PageLimit = 100,
) -> SnapshotPage:
    """An agent's."""
    principal = within(principal, microdao_id)
    await permit(services, principal, "memory.read", "Agent", agent_id)
    rows = await services.memory.snapshots.list_page(principal.microdao_id, agent_id, after or "", limit)
    return SnapshotPage(snapshots=[_view(row) for row in rows], next=rows[-1]["id"] if len(rows) == limit else None)


@router.post(
    "/import",
    summary="Restore from a file",
    openapi_extra={"requestBody": {"required": True, "content": _FILE}},
)
async def import_file(
    agent_id: AgentQuery,
    request: Request,
    services: ServicesDep,
    principal: PrincipalDep,
    microdao_id: TenantQuery = None,
    mode: Mode = "merge",
) -> RestoredView:
    """The body is the file as it was exported. All of it or nothing; the same file twice changes nothing more."""
    principal = within(principal, microdao_id)
    await permit(services, principal, "memory.write", "Agent", agent_id)
    if not is_raw(request.url.path, request.headers.get("content-type")):
        raise UnsupportedMediaType(f"Send the file itself, with content-type: {MEDIA_TYPE}.")
    data = await request.body()
    restored = await services.memory.snapshots.import_file(principal.microdao_id, agent_id, data, mode)
    return RestoredView.model_validate(restored, from_attributes=True)


@router.get("/{snapshot_id}", summary="Get a snapshot")
async def get_snapshot(
    snapshot_id: str,
    services: ServicesDep,
    principal: PrincipalDep,
    agent_id: ActingQuery = None,
    microdao_id: TenantQuery = None,
) -> SnapshotView:
    """What is known of it."""
    principal = within(principal, microdao_id)
    return _view(await _permitted(services, principal, snapshot_id, agent_id, "memory.read"))


@router.delete("/{snapshot_id}", summary="Delete a snapshot")
async def delete_snapshot(
    snapshot_id: str,
    services: ServicesDep,
    principal: PrincipalDep,
    agent_id: ActingQuery = None,
    microdao_id: TenantQuery = None,
) -> Accepted:
    """The agent's memory stays as it is."""
    principal = within(principal, microdao_id)
    await _permitted(services, principal, snapshot_id, agent_id, "memory.write")
    await services.memory.snapshots.delete(principal.microdao_id, snapshot_id, agent_id)
    return Accepted()


@router.get(
    "/{snapshot_id}/file",
    summary="Export a snapshot",
    response_class=StreamingResponse,
    responses={200: {"content": _FILE}},
)
async def export(
    snapshot_id: str,
    services: ServicesDep,
    principal: PrincipalDep,
    agent_id: ActingQuery = None,
    microdao_id: TenantQuery = None,
) -> StreamingResponse:
    """Its file: JSON Lines with a checksum. Any DAARION can import it."""
    principal = within(principal, microdao_id)
    snapshot = await _permitted(services, principal, snapshot_id, agent_id, "memory.read")
    pieces = await services.memory.snapshots.file(principal.microdao_id, snapshot_id, agent_id)
    headers = {
        "content-disposition": f'attachment; filename="{snapshot["id"]}.ndjson"',
        "content-length": str(snapshot["bytes"]),
    }
    return StreamingResponse(pieces, media_type=MEDIA_TYPE, headers=headers)


@router.post("/{snapshot_id}/restore", summary="Restore a snapshot")
async def restore(
    snapshot_id: str,
    body: RestoreBody,
    services: ServicesDep,
    principal: PrincipalDep,
) -> RestoredView:
    """``merge`` adds what is missing, ``replace`` forgets the rest. Into another agent only if it may read that
    memory, or by who may share it."""
    principal = within(principal, body.microdao_id)
    by_admin = await may(services, principal, "memory.share")
    reader = None if by_admin else body.agent_id
    snapshot = await _permitted(services, principal, snapshot_id, reader, "memory.read")
    await permit(services, principal, "memory.write", "Agent", body.agent_id or snapshot["agent_id"])
    restored = await services.memory.snapshots.restore(
        principal.microdao_id, snapshot_id, body.agent_id, body.mode, by_admin=by_admin
    )
    return RestoredView.model_validate(restored, from_attributes=True)


async def _permitted(
    services: Services, principal: Principal, snapshot_id: str, agent_id: str | None, action: MemoryAction
) -> Row:
    """The snapshot, if the caller may do this to the memory of the agent whose it is. Raises NotFound, Unauthorized."""
    if agent_id is not None:
        await permit(services, principal, action, "Agent", agent_id)
    snapshot = await services.memory.snapshots.get(principal.microdao_id, snapshot_id, agent_id)
    await permit(services, principal, action, "Agent", snapshot["agent_id"])
    return snapshot


def _view(row: Row) -> SnapshotView:
    return SnapshotView.model_validate(row)
