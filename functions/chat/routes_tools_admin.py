"""The tool catalogue for administrators: make, change, approve and delete tools."""

import re
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from pydantic import Field

from functions.chat.bodies import JsonRoute
from functions.chat.dependencies import Cursor, PageLimit, PrincipalDep, ServicesDep
from functions.chat.schemas import ERRORS, Accepted, Body, View
from functions.chat.tool_bodies import (
    AdminToolView,
    Agents,
    Aliases,
    CostMicrousd,
    DefinitionBody,
    Description,
    Environment,
    Executor,
    PerMinute,
    Risk,
    Tag,
    Tags,
    TenantId,
    TimeoutMs,
    ToolName,
    VersionView,
    administrator,
)
from shared.tools.catalogue.catalogue import Changes, NewTool
from shared.tools.catalogue.definition import DEFINITION_FIELDS

router = APIRouter(prefix="/admin/tools", route_class=JsonRoute, responses=ERRORS, tags=["Tool catalogue"])
TenantQuery = Annotated[str | None, Query(max_length=200)]
VersionNumber = Annotated[str, Path(max_length=200, description="A whole number.")]


class NewToolBody(DefinitionBody):
    """A new tool."""

    name: ToolName
    microdao_id: TenantId | None = None
    tags: Tags = Field(default_factory=list)
    aliases: Aliases = Field(default_factory=list)
    grant_to: Agents = Field(default_factory=list)
    active: bool = True


class ChangesBody(Body):
    """Only what is to change. With ``activate: false`` the new version waits for approval."""

    microdao_id: TenantId | None = None
    description: Description | None = None
    parameters: dict[str, Any] | None = None
    executor: Executor | None = None
    config: dict[str, Any] | None = None
    risk: Risk | None = None
    timeout_ms: TimeoutMs | None = None
    idempotent: bool | None = None
    result_schema: dict[str, Any] | None = None
    cost_microusd: CostMicrousd | None = None
    rate_limit_per_minute: PerMinute | None = None
    environments: list[Environment] | None = Field(default=None, max_length=3)
    tags: Tags | None = None
    aliases: Aliases | None = None
    activate: bool = True

    def changes(self) -> Changes:
        """As the catalogue takes them. Null takes away what may be absent and leaves what may not."""
        given = {field: getattr(self, field) for field in DEFINITION_FIELDS if field in self.model_fields_set}
        kept = {field: value for field, value in given.items() if value is not None or field in _MAY_BE_ABSENT}
        if "environments" in kept:
            kept["environments"] = tuple(dict.fromkeys(kept["environments"]))
        return Changes(fields=kept, tags=self.tags, aliases=self.aliases, staged=not self.activate)


_MAY_BE_ABSENT = ("result_schema", "rate_limit_per_minute")


class ActivateBody(Body):
    """Which version to let run; the one that waits for approval, or the one it had, if left out."""

    version: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None


class DeactivateBody(Body):
    """Why, for people."""

    reason: Annotated[str, Field(max_length=500)] | None = None


class AdminToolPage(View):
    """A page of tools; pass ``next`` as ``after`` for the following one."""

    tools: list[AdminToolView]
    next: str | None


class VersionPage(View):
    """Newest first; pass ``next`` as ``before`` for the following page."""

    versions: list[VersionView]
    next: int | None


@router.post("", status_code=201, summary="Create a tool")
async def create_tool(body: NewToolBody, services: ServicesDep, principal: PrincipalDep) -> AdminToolView:
    """Live at once, for the agents in ``grant_to``. 409 when a tool of that name exists."""
    principal = await administrator(services, principal, body.microdao_id)
    new = NewTool(
        name=body.name,
        definition=body.definition(),
        tags=body.tags,
        aliases=body.aliases,
        grant_to=body.grant_to,
        active=body.active,
    )
    return AdminToolView.model_validate(await services.catalogue.create(principal, new))


@router.get("", summary="List tools with their configuration")
async def list_tools(
    services: ServicesDep,
    principal: PrincipalDep,
    microdao_id: TenantQuery = None,
    tag: Tag | None = None,
    executor: Executor | None = None,
    active: bool | None = None,
    after: Cursor = None,
    limit: PageLimit = 100,
) -> AdminToolPage:
    """By name, active or not."""
    principal = await administrator(services, principal, microdao_id)
    wanted = {"tag": tag, "executor": executor, "active": active}
    rows = await services.catalogue.list_page(principal.microdao_id, wanted, after or "", limit)
    views = [AdminToolView.model_validate(row) for row in rows]
    return AdminToolPage(tools=views, next=views[-1].name if len(views) == limit else None)


@router.get("/{tool_id}", summary="Get a tool")
async def get_tool(
    tool_id: str, services: ServicesDep, principal: PrincipalDep, microdao_id: TenantQuery = None
) -> AdminToolView:
    """At its active version."""
    principal = await administrator(services, principal, microdao_id)
    return AdminToolView.model_validate(await services.catalogue.get(principal.microdao_id, tool_id))


@router.patch("/{tool_id}", summary="Change a tool")
async def change_tool(tool_id: str, body: ChangesBody, services: ServicesDep, principal: PrincipalDep) -> AdminToolView:
    """A change of its definition is a new version; the old ones stay as they are."""
    principal = await administrator(services, principal, body.microdao_id)
    return AdminToolView.model_validate(await services.catalogue.change(principal, tool_id, body.changes()))


@router.delete("/{tool_id}", summary="Delete a tool")
async def delete_tool(
    tool_id: str, services: ServicesDep, principal: PrincipalDep, microdao_id: TenantQuery = None
) -> Accepted:
    """Its grants go, its name is free; its versions and runs stay in the audit log."""
    principal = await administrator(services, principal, microdao_id)
    await services.catalogue.delete(principal.microdao_id, tool_id)
    return Accepted()


@router.get("/{tool_id}/versions", summary="List a tool's versions")
async def list_versions(
    tool_id: str,
    services: ServicesDep,
    principal: PrincipalDep,
    microdao_id: TenantQuery = None,
    before: Annotated[int | None, Query(ge=1, le=2**31 - 1)] = None,
    limit: PageLimit = 50,
) -> VersionPage:
    """Newest first."""
    principal = await administrator(services, principal, microdao_id)
    rows = await services.catalogue.versions(principal.microdao_id, tool_id, before, limit)
    views = [VersionView.model_validate(row) for row in rows]
    return VersionPage(versions=views, next=views[-1].version if len(views) == limit else None)


@router.get("/{tool_id}/versions/{version}", summary="Get one version")
async def get_version(
    tool_id: str,
    version: VersionNumber,
    services: ServicesDep,
    principal: PrincipalDep,
    microdao_id: TenantQuery = None,
) -> VersionView:
    """As it was made."""
    principal = await administrator(services, principal, microdao_id)
    number = int(version) if re.fullmatch(r"[1-9][0-9]{0,8}", version) else 0
    return VersionView.model_validate(await services.catalogue.version(principal.microdao_id, tool_id, number))


@router.post("/{tool_id}/activate", summary="Approve a version, or let the tool run again")
async def activate_tool(
    tool_id: str,
    services: ServicesDep,
    principal: PrincipalDep,
    body: ActivateBody | None = None,
    microdao_id: TenantQuery = None,
) -> AdminToolView:
    """Name the version that you looked at: another may have come since."""
    principal = await administrator(services, principal, microdao_id)
    version = body.version if body else None
    return AdminToolView.model_validate(await services.catalogue.activate(principal.microdao_id, tool_id, version))


@router.post("/{tool_id}/deactivate", summary="Stop a tool")
async def deactivate_tool(
    tool_id: str,
    services: ServicesDep,
    principal: PrincipalDep,
    body: DeactivateBody | None = None,
    microdao_id: TenantQuery = None,
) -> AdminToolView:
    """No agent sees or runs it until it is activated."""
    principal = await administrator(services, principal, microdao_id)
    reason = body.reason if body else None
    return AdminToolView.model_validate(await services.catalogue.deactivate(principal.microdao_id, tool_id, reason))
