"""Tools from elsewhere: OpenAPI documents, remote MCP servers, and packs to take from one microDAO to another."""

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import Field, model_validator

from functions.chat.bodies import JsonRoute
from functions.chat.dependencies import Cursor, PageLimit, PrincipalDep, ServicesDep
from functions.chat.routes_tools_admin import TenantQuery
from functions.chat.schemas import ERRORS, Accepted, Body, View
from functions.chat.tool_bodies import Agents, Risk, TenantId, administrator
from shared.tools.catalogue.imports.imports import ImportOptions
from shared.tools.catalogue.imports.openapi import OpenApiOptions
from shared.tools.catalogue.imports.remote import McpOptions

router = APIRouter(prefix="/admin/tools", route_class=JsonRoute, responses=ERRORS, tags=["Tool imports"])
Url = Annotated[str, Field(min_length=1, max_length=2_000, pattern=r"^https?://")]
SecretRef = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$")]
Prefix = Annotated[str, Field(pattern=r"^([a-zA-Z][a-zA-Z0-9_.-]{0,39})?$")]
Chosen = Annotated[list[Annotated[str, Field(min_length=1, max_length=300)]], Field(max_length=1_000)]
Outcome = Literal["made", "unchanged", "changed", "vanished", "found", "skipped"]


class ImportBody(Body):
    """What to do with new tools. ``dry_run`` tells what would happen."""

    microdao_id: TenantId | None = None
    secret_ref: SecretRef | None = None
    prefix: Prefix = ""
    risk: Risk | None = None
    grant_to: Agents = Field(default_factory=list)
    activate: bool = True
    dry_run: bool = False

    def options(self) -> ImportOptions:
        """As the imports take them."""
        return ImportOptions(active=self.activate, grant_to=self.grant_to, dry_run=self.dry_run)


class OpenApiBody(ImportBody):
    """An OpenAPI 3 document, or where it is. ``operations`` are operation ids or ``GET /path``; all if left out."""

    document: dict[str, Any] | Annotated[str, Field(max_length=5_000_000)] | None = None
    url: Url | None = None
    base_url: Url | None = None
    operations: Chosen | None = None

    @model_validator(mode="after")
    def _names_one_source(self) -> "OpenApiBody":
        if (self.document is None) == (self.url is None):
            raise ValueError("give document or url")
        return self


class McpBody(ImportBody):
    """A remote MCP server (streamable HTTP); ``tools`` are names of its tools, all if left out."""

    url: Url
    tools: Chosen | None = None


class ImportedToolView(View):
    """What became of one tool. ``changed`` and ``vanished`` ones do not run until they are activated."""

    source_name: str
    name: str | None
    outcome: Outcome
    reason: str | None
    tool_id: str | None
    version: int | None


class ImportReportView(View):
    """What an import did, or would do. ``requires`` are secrets that have to be there before the tools can run."""

    import_id: str | None
    title: str
    dry_run: bool
    counts: dict[str, int]
    requires: list[str]
    tools: list[ImportedToolView]


class ImportView(View):
    """Where tools come from. ``pending`` wait for approval; ``next_check_at`` is null for a document that was sent."""

    id: str
    kind: Literal["openapi", "mcp"]
    title: str
    source: dict[str, Any]
    tools: int
    pending: int
    vanished: int
    created_by: str
    created_at: datetime
    checked_at: datetime
    check_error: str | None
    next_check_at: datetime | None


class ImportPage(View):
    """A page of imports; pass ``next`` as ``after`` for the following one."""

    imports: list[ImportView]
    next: str | None


class ExportBody(Body):
    """Which tools, by name, alias, id or ``tag:``."""

    microdao_id: TenantId | None = None
    tools: Annotated[list[Annotated[str, Field(min_length=1, max_length=200)]], Field(min_length=1, max_length=500)]


class PackBody(Body):
    """A pack as it was exported. Its tools are not active unless ``activate``."""

    microdao_id: TenantId | None = None
    pack: dict[str, Any]
    grant_to: Agents = Field(default_factory=list)
    activate: bool = False
    dry_run: bool = False


@router.post("/import/openapi", summary="Import an OpenAPI document")
async def import_openapi(body: OpenApiBody, services: ServicesDep, principal: PrincipalDep) -> ImportReportView:
    """A tool for each operation. Importing it again makes what is new and disables what changed or vanished."""
    principal = await administrator(services, principal, body.microdao_id)
    wanted = OpenApiOptions(
        base_url=body.base_url,
        url=body.url,
        secret_ref=body.secret_ref,
        prefix=body.prefix,
        operations=body.operations,
        risk=body.risk,
    )
    report = await services.imports.import_openapi(principal, body.document, wanted, body.options())
    return ImportReportView.model_validate(report.as_dict())


@router.post("/import/mcp", summary="Import a remote MCP server's tools")
async def import_mcp(body: McpBody, services: ServicesDep, principal: PrincipalDep) -> ImportReportView:
    """A tool for each of the server's. Importing it again makes what is new and disables what changed or vanished."""
    principal = await administrator(services, principal, body.microdao_id)
    wanted = McpOptions(url=body.url, secret_ref=body.secret_ref, prefix=body.prefix, tools=body.tools, risk=body.risk)
    return ImportReportView.model_validate(
        (await services.imports.import_mcp(principal, wanted, body.options())).as_dict()
    )


@router.get("/imports", summary="List imports")
async def list_imports(
    services: ServicesDep,
    principal: PrincipalDep,
    microdao_id: TenantQuery = None,
    after: Cursor = None,
    limit: PageLimit = 100,
) -> ImportPage:
    """Where the microDAO's tools come from."""
    principal = await administrator(services, principal, microdao_id)
    rows = await services.imports.list_page(principal.microdao_id, after or "", limit)
    views = [ImportView.model_validate(row) for row in rows]
    return ImportPage(imports=views, next=views[-1].id if len(views) == limit else None)


@router.post("/imports/{import_id}/refresh", summary="Look at an import's source again")
async def refresh_import(
    import_id: str, services: ServicesDep, principal: PrincipalDep, microdao_id: TenantQuery = None
) -> ImportReportView:
    """As the schedule does every hour: changed and vanished tools are disabled, new ones are told of, not made."""
    principal = await administrator(services, principal, microdao_id)
    return ImportReportView.model_validate((await services.imports.refresh(principal, import_id)).as_dict())


@router.delete("/imports/{import_id}", summary="Forget an import's source")
async def delete_import(
    import_id: str, services: ServicesDep, principal: PrincipalDep, microdao_id: TenantQuery = None
) -> Accepted:
    """Its tools stay, and are not looked at again."""
    principal = await administrator(services, principal, microdao_id)
    await services.imports.delete(principal.microdao_id, import_id)
    return Accepted()


@router.post("/export", summary="Export tools as a pack")
async def export_pack(body: ExportBody, services: ServicesDep, principal: PrincipalDep) -> dict[str, Any]:
    """A JSON document with a checksum, without secrets, ids and tenants."""
    principal = await administrator(services, principal, body.microdao_id)
    return await services.packs.export(principal.microdao_id, body.tools)


@router.post("/import/pack", summary="Import a pack")
async def import_pack(body: PackBody, services: ServicesDep, principal: PrincipalDep) -> ImportReportView:
    """All of it or nothing: 409 when a name is taken by another tool."""
    principal = await administrator(services, principal, body.microdao_id)
    options = ImportOptions(active=body.activate, grant_to=body.grant_to, dry_run=body.dry_run)
    return ImportReportView.model_validate((await services.packs.import_pack(principal, body.pack, options)).as_dict())
