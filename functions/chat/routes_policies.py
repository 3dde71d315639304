"""The policies that a microDAO adds to the shipped ones."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import Field

from functions.chat.bodies import JsonRoute
from functions.chat.dependencies import Cursor, PageLimit, PrincipalDep, ServicesDep, permit, within
from functions.chat.schemas import ERRORS, Accepted, Body, View
from shared.bootstrap import Services
from shared.policy.check import MAX_CHARACTERS, find_faults, schema_text
from shared.policy.own import MAX_VERSION
from shared.policy.principal import Principal

router = APIRouter(prefix="/admin/policies", route_class=JsonRoute, responses=ERRORS, tags=["Policy"])
TenantQuery = Annotated[str | None, Query(max_length=200)]
TenantName = Annotated[str, Field(max_length=200)]
Source = Annotated[str, Field(min_length=1, max_length=MAX_CHARACTERS, description="One Cedar policy")]


class PolicyBody(Body):
    """A policy, whole. ``name`` is what a refusal calls it: ``own/<name>``."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,99}$")
    description: str = Field(default="", max_length=1000)
    source: Source
    active: bool = True
    microdao_id: TenantName | None = None


class SourceBody(Body):
    """A text that may become a policy."""

    source: Annotated[str, Field(max_length=100_000)]
    microdao_id: TenantName | None = None


class PolicyView(View):
    """A policy as it is now."""

    id: str
    name: str
    description: str
    source: str
    active: bool
    version: int
    created_at: datetime
    updated_at: datetime


class PolicyPage(View):
    """A page of policies; pass ``next`` as ``after`` for the following one."""

    policies: list[PolicyView]
    next: str | None


class PolicyVersionView(View):
    """What a policy was from ``changed_at`` on."""

    version: int
    change: str
    name: str
    description: str
    source: str
    active: bool
    changed_by: str
    changed_at: datetime


class PolicyVersionPage(View):
    """A page of versions; pass ``next`` as ``before`` for the following one."""

    versions: list[PolicyVersionView]
    next: int | None


class FaultView(View):
    """What is wrong, and in which line."""

    line: int
    message: str


class ValidityView(View):
    """Whether the text would be taken, and what keeps it from that."""

    valid: bool
    faults: list[FaultView]


@router.get("", summary="List policies")
async def list_policies(
    services: ServicesDep,
    principal: PrincipalDep,
    microdao_id: TenantQuery = None,
    after: Cursor = None,
    limit: PageLimit = 100,
) -> PolicyPage:
    """The microDAO's own, by id; the shipped ones are the same for all."""
    principal = await _administrator(services, principal, microdao_id, "policy.read")
    rows = await services.own_policies.list(principal.microdao_id, after or "", limit)
    views = [PolicyView.model_validate(row) for row in rows]
    return PolicyPage(policies=views, next=views[-1].id if len(views) == limit else None)


@router.post("", status_code=201, summary="Add a policy")
async def create_policy(body: PolicyBody, services: ServicesDep, principal: PrincipalDep) -> PolicyView:
    """Holds at once here and within two seconds everywhere. 409 when the name is taken."""
    principal = await _administrator(services, principal, body.microdao_id)
    created = await services.own_policies.create(principal, body.name, body.description, body.source, body.active)
    return PolicyView.model_validate(created)


@router.post("/validate", summary="Try a policy's text")
async def validate_policy(body: SourceBody, services: ServicesDep, principal: PrincipalDep) -> ValidityView:
    """Nothing is stored."""
    await _administrator(services, principal, body.microdao_id, "policy.read")
    faults = [FaultView(line=fault.line, message=fault.message) for fault in find_faults(body.source)]
    return ValidityView(valid=not faults, faults=faults)


@router.get(
    "/schema",
    summary="What policies may speak of",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def get_schema(services: ServicesDep, principal: PrincipalDep) -> Response:
    """The Cedar schema: kinds of resources, actions, and what the context of each tells."""
    await permit(services, principal, "policy.read")
    return Response(schema_text(), media_type="text/plain")


@router.get("/{policy_id}", summary="One policy")
async def get_policy(
    policy_id: str, services: ServicesDep, principal: PrincipalDep, microdao_id: TenantQuery = None
) -> PolicyView:
    """As it is now."""
    principal = await _administrator(services, principal, microdao_id, "policy.read")
    return PolicyView.model_validate(await services.own_policies.get(principal.microdao_id, policy_id))


@router.get("/{policy_id}/versions", summary="A policy's history")
async def list_versions(
    policy_id: str,
    services: ServicesDep,
    principal: PrincipalDep,
    microdao_id: TenantQuery = None,
    before: Annotated[int, Query(ge=1, le=MAX_VERSION)] = MAX_VERSION,
    limit: PageLimit = 100,
) -> PolicyVersionPage:
    """Newest first: what it was, who changed it and when; also of a deleted one."""
    principal = await _administrator(services, principal, microdao_id, "policy.read")
    rows = await services.own_policies.versions(principal.microdao_id, policy_id, before, limit)
    views = [PolicyVersionView.model_validate(row) for row in rows]
    return PolicyVersionPage(versions=views, next=views[-1].version if len(views) == limit else None)


@router.put("/{policy_id}", summary="Change a policy")
async def put_policy(policy_id: str, body: PolicyBody, services: ServicesDep, principal: PrincipalDep) -> PolicyView:
    """The whole of it, as a new version; ``active: false`` keeps it without effect."""
    principal = await _administrator(services, principal, body.microdao_id)
    changed = await services.own_policies.replace(
        principal, policy_id, body.name, body.description, body.source, body.active
    )
    return PolicyView.model_validate(changed)


@router.delete("/{policy_id}", summary="Delete a policy")
async def delete_policy(
    policy_id: str, services: ServicesDep, principal: PrincipalDep, microdao_id: TenantQuery = None
) -> Accepted:
    """Its history stays."""
    principal = await _administrator(services, principal, microdao_id)
    await services.own_policies.delete(principal, policy_id)
    return Accepted()


async def _administrator(
    services: Services, principal: Principal, microdao_id: str | None, action: str = "policy.write"
) -> Principal:
    principal = within(principal, microdao_id)
    await permit(services, principal, action)
    return principal
