"""Tenants, agents and keys."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import AwareDatetime, Field

from functions.chat.bodies import JsonRoute
from functions.chat.dependencies import Cursor, PageLimit, PrincipalDep, ServicesDep, permit, within
from functions.chat.schemas import ERRORS, Accepted, AgentView, Body, View
from shared.policy.keys import KeyChanges, check_may_manage
from shared.policy.roles import Role

router = APIRouter(prefix="/admin", route_class=JsonRoute, responses=ERRORS, tags=["Administration"])
TenantId = Annotated[str, Field(pattern=r"^microdao:[a-z0-9][a-z0-9_.-]{0,99}$")]
AgentId = Annotated[str, Field(pattern=r"^agent:[a-z0-9][a-z0-9_.-]{0,99}$")]
Name = Annotated[str, Field(min_length=1, max_length=200)]
TenantQuery = Annotated[str | None, Query(max_length=200)]


class MicroDaoBody(Body):
    """A new tenant."""

    microdao_id: TenantId
    name: Name | None = None


class MicroDaoView(View):
    """A tenant."""

    microdao_id: str
    name: str
    created_at: datetime


class MicroDaoPage(View):
    """A page of tenants; pass ``next`` as ``after`` for the following one."""

    microdaos: list[MicroDaoView]
    next: str | None


class AgentBody(Body):
    """A new agent, bound to a blueprint of its microDAO and granted that blueprint's tools."""

    agent_id: AgentId
    microdao_id: TenantId | None = None
    blueprint: Name
    name: Name | None = None


class AgentPage(View):
    """A page of agents; pass ``next`` as ``after`` for the following one."""

    agents: list[AgentView]
    next: str | None


class KeyBody(Body):
    """A new key."""

    microdao_id: TenantId | None = None
    roles: list[Role] = Field(default=["member"], min_length=1, max_length=7)
    name: Name = "key"
    expires_at: AwareDatetime | None = None


class KeyChange(Body):
    """What is to be different; what is left out stays. ``expires_at: null`` lets the key live for ever."""

    name: Name | None = None
    roles: list[Role] | None = Field(default=None, min_length=1, max_length=7)
    expires_at: AwareDatetime | None = None
    microdao_id: TenantId | None = None


class NewKeyView(View):
    """The one time that the key itself is shown."""

    id: str
    key: str
    microdao_id: str
    roles: list[str]
    name: str
    expires_at: datetime | None


class RotatedKeyView(View):
    """The one time that the new secret is shown."""

    id: str
    key: str


class KeyView(View):
    """A key without its secret; ``hint`` is its end, ``last_used_at`` is right to the hour."""

    id: str
    microdao_id: str
    name: str
    hint: str
    roles: list[str]
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None


class KeyPage(View):
    """A page of keys; pass ``next`` as ``after`` for the following one."""

    keys: list[KeyView]
    next: str | None


@router.post("/microdaos", status_code=201, summary="Create a tenant")
async def create_microdao(body: MicroDaoBody, services: ServicesDep, principal: PrincipalDep) -> MicroDaoView:
    """With the starter blueprints and the built-in tools. Operators only."""
    await permit(services, principal, "microdao.write")
    name = body.name or body.microdao_id.removeprefix("microdao:")
    created = await services.tenants.create(body.microdao_id, name)
    await services.agents.seed(body.microdao_id)
    return MicroDaoView.model_validate(created)


@router.get("/microdaos", summary="List tenants")
async def list_microdaos(
    services: ServicesDep, principal: PrincipalDep, after: Cursor = None, limit: PageLimit = 100
) -> MicroDaoPage:
    """An operator sees all, anyone else their own."""
    await permit(services, principal, "agent.write")
    rows = await services.tenants.list(principal, after or "", limit)
    views = [MicroDaoView.model_validate(row) for row in rows]
    return MicroDaoPage(microdaos=views, next=views[-1].microdao_id if len(views) == limit else None)


@router.post("/agents", status_code=201, summary="Create an agent")
async def create_agent(body: AgentBody, services: ServicesDep, principal: PrincipalDep) -> AgentView:
    """409 when the id is taken."""
    principal = within(principal, body.microdao_id)
    await permit(services, principal, "agent.write")
    name = body.name or body.agent_id.removeprefix("agent:").title()
    created = await services.agents.create_agent(principal.microdao_id, body.agent_id, name, body.blueprint)
    return AgentView.model_validate(created)


@router.get("/agents", summary="List agents")
async def list_agents(
    services: ServicesDep,
    principal: PrincipalDep,
    microdao_id: TenantQuery = None,
    after: Cursor = None,
    limit: PageLimit = 100,
) -> AgentPage:
    """Agents of one microDAO, by id."""
    principal = within(principal, microdao_id)
    await permit(services, principal, "agent.write")
    rows = await services.agents.list_agents(principal.microdao_id, after or "", limit)
    views = [AgentView.model_validate(row) for row in rows]
    return AgentPage(agents=views, next=views[-1].agent_id if len(views) == limit else None)


@router.post("/keys", status_code=201, summary="Create a key")
async def create_key(body: KeyBody, services: ServicesDep, principal: PrincipalDep) -> NewKeyView:
    """The key is shown once. Nobody can give a role above their own."""
    principal = within(principal, body.microdao_id)
    await permit(services, principal, "key.write")
    check_may_manage(principal, body.roles)
    key = await services.keys.create(principal.microdao_id, body.roles, body.name, expires_at=body.expires_at)
    return NewKeyView(
        id=key.id,
        key=key.secret,
        microdao_id=principal.microdao_id,
        roles=list(body.roles),
        name=body.name,
        expires_at=body.expires_at,
    )


@router.get("/keys", summary="List keys")
async def list_keys(
    services: ServicesDep,
    principal: PrincipalDep,
    microdao_id: TenantQuery = None,
    after: Cursor = None,
    limit: PageLimit = 100,
) -> KeyPage:
    """Without their secrets."""
    principal = within(principal, microdao_id)
    await permit(services, principal, "key.write")
    views = [KeyView.model_validate(row) for row in await services.keys.list(principal.microdao_id, after or "", limit)]
    return KeyPage(keys=views, next=views[-1].id if len(views) == limit else None)


@router.patch("/keys/{key_id}", summary="Change a key")
async def change_key(key_id: str, body: KeyChange, services: ServicesDep, principal: PrincipalDep) -> KeyView:
    """Its name, roles or end. Nobody can change a key above their own, nor give a role above it."""
    principal = within(principal, body.microdao_id)
    await permit(services, principal, "key.write", "Key", key_id)
    return KeyView.model_validate(await services.keys.change(principal, key_id, _changes(body)))


@router.post("/keys/{key_id}/rotate", summary="Give a key another secret")
async def rotate_key(
    key_id: str, services: ServicesDep, principal: PrincipalDep, microdao_id: TenantQuery = None
) -> RotatedKeyView:
    """Shown once; the old secret is refused at once here and within two seconds everywhere."""
    principal = within(principal, microdao_id)
    await permit(services, principal, "key.write", "Key", key_id)
    key = await services.keys.rotate(principal, key_id)
    return RotatedKeyView(id=key.id, key=key.secret)


@router.delete("/keys/{key_id}", summary="Revoke a key")
async def revoke_key(
    key_id: str, services: ServicesDep, principal: PrincipalDep, microdao_id: TenantQuery = None
) -> Accepted:
    """At once, everywhere. Nobody can revoke a key with a role above their own."""
    principal = within(principal, microdao_id)
    await permit(services, principal, "key.write", "Key", key_id)
    await services.keys.revoke(principal.microdao_id, key_id, by=principal)
    return Accepted()


def _changes(body: KeyChange) -> KeyChanges:
    changes: KeyChanges = {}
    if body.name is not None:
        changes["name"] = body.name
    if body.roles is not None:
        changes["roles"] = list(body.roles)
    if "expires_at" in body.model_fields_set:
        changes["expires_at"] = body.expires_at
    return changes
