"""Secrets of a microDAO's tools: set and replaced, never shown."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Path, Query
from pydantic import Field, Secret, StringConstraints

from functions.chat.bodies import JsonRoute
from functions.chat.dependencies import Cursor, PageLimit, PrincipalDep, ServicesDep, permit, within
from functions.chat.schemas import ERRORS, Accepted, Body, View
from shared.bootstrap import Services
from shared.policy.principal import Principal

router = APIRouter(prefix="/admin/secrets", route_class=JsonRoute, responses=ERRORS, tags=["Administration"])
SecretName = Annotated[str, Path(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$")]
Host = Annotated[str, Field(min_length=1, max_length=300)]
TenantQuery = Annotated[str | None, Query(max_length=200)]


class SecretBody(Body):
    """A value, and the hosts (``api.example.com`` for https, or ``host:port``) that it may be sent to."""

    value: Secret[Annotated[str, StringConstraints(min_length=8, max_length=8192)]] = Field(
        json_schema_extra={"format": "password", "writeOnly": True}
    )
    hosts: list[Host] = Field(min_length=1, max_length=20)
    microdao_id: Annotated[str, Field(min_length=1, max_length=200)] | None = None


class SecretView(View):
    """What may be known of a secret; its value may not."""

    name: str
    hosts: list[str]
    changed_by: str
    created_at: datetime
    rotated_at: datetime
    last_used_at: datetime | None


class SecretPage(View):
    """A page of secrets; pass ``next`` as ``after`` for the following one."""

    secrets: list[SecretView]
    next: str | None


class ResealBody(Body):
    """An empty object: what acts on everything is not set off by an empty request."""


class Resealed(View):
    """How many secrets the newest key opens now, and how many no key opens."""

    resealed: int
    lost: int


@router.get("", summary="List secrets")
async def list_secrets(
    services: ServicesDep,
    principal: PrincipalDep,
    microdao_id: TenantQuery = None,
    after: Cursor = None,
    limit: PageLimit = 100,
) -> SecretPage:
    """By name, without their values."""
    principal = await _administrator(services, principal, microdao_id)
    rows = await services.outside.secrets.list(principal.microdao_id, after or "", limit)
    views = [SecretView.model_validate(row) for row in rows]
    return SecretPage(secrets=views, next=views[-1].name if len(views) == limit else None)


@router.get("/{name}", summary="One secret")
async def get_secret(
    name: SecretName, services: ServicesDep, principal: PrincipalDep, microdao_id: TenantQuery = None
) -> SecretView:
    """Without its value."""
    principal = await _administrator(services, principal, microdao_id)
    return SecretView.model_validate(await services.outside.secrets.get(principal.microdao_id, name))


@router.put("/{name}", summary="Set a secret")
async def put_secret(name: SecretName, body: SecretBody, services: ServicesDep, principal: PrincipalDep) -> SecretView:
    """Value and hosts together, in place of what was there: tools send the new value from their next call on."""
    principal = await _administrator(services, principal, body.microdao_id)
    row = await services.outside.secrets.put(principal, name, body.value.get_secret_value(), body.hosts)
    return SecretView.model_validate(row)


@router.delete("/{name}", summary="Delete a secret")
async def delete_secret(
    name: SecretName, services: ServicesDep, principal: PrincipalDep, microdao_id: TenantQuery = None
) -> Accepted:
    """Tools that need it fail from their next call on."""
    await services.outside.secrets.delete(await _administrator(services, principal, microdao_id), name)
    return Accepted()


@router.post("/reseal", summary="Seal every secret with the newest key")
async def reseal_secrets(body: ResealBody, services: ServicesDep, principal: PrincipalDep) -> Resealed:
    """For operators, after a new ``DAARION_SECRET_KEY``: tools' secrets and those of webhooks. The previous keys are
    needed no more afterwards."""
    await permit(services, principal, "platform.write")
    resealed, lost = await services.resealing.run()
    return Resealed(resealed=resealed, lost=lost)


async def _administrator(services: Services, principal: Principal, microdao_id: str | None) -> Principal:
    principal = within(principal, microdao_id)
    await permit(services, principal, "secret.write")
    return principal
