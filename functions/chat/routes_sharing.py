"""Teams, grants, and what follows from them for an agent's memory. Members look, admins share."""

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query
from pydantic import Field

from functions.chat.bodies import JsonRoute
from functions.chat.dependencies import Cursor, PageLimit, PrincipalDep, ServicesDep, permit, within
from functions.chat.memory_bodies import Identifier, ScopeView
from functions.chat.schemas import ERRORS, Accepted, Body, View
from shared.db.database import Row
from shared.errors import InvalidRequest
from shared.memory.model import Access, Grantee, Reach
from shared.memory.sharing.sharing import Direction

router = APIRouter(
    prefix="/internal/agent-memory", route_class=JsonRoute, responses=ERRORS, tags=["Memory teams and sharing"]
)
TenantQuery = Annotated[str | None, Query(max_length=200)]
PartyQuery = Annotated[str | None, Query(min_length=1, max_length=200)]
TeamId = Annotated[str, Path(pattern=r"^team:[a-z0-9][a-z0-9_.-]{0,99}$")]


class TeamBody(Body):
    """A team to make or rename; without a name it keeps the one it has, or takes its id."""

    microdao_id: Identifier | None = None
    name: Annotated[str, Field(min_length=1, max_length=200)] | None = None


class TeamView(View):
    """A team and how many agents belong to it."""

    team_id: str
    name: str
    members: int
    created_at: datetime


class TeamPage(View):
    """A page of teams; pass ``next`` as ``after`` for the following one."""

    teams: list[TeamView]
    next: str | None


class MemberPage(View):
    """A page of a team's agents; pass ``next`` as ``after`` for the following one."""

    members: list[str]
    next: str | None


class PartyBody(Body):
    """An agent or a team, by its id."""

    kind: Literal["agent", "team"]
    name: Identifier


class GrantBody(Body):
    """Whose memory (``scope``) is opened to whom (``grantee``), and how far."""

    microdao_id: Identifier | None = None
    scope: PartyBody
    grantee: PartyBody
    access: Access = "read"


class GrantView(View):
    """A grant in force."""

    id: str
    scope: ScopeView
    grantee: ScopeView
    access: Access
    created_at: datetime


class GrantPage(View):
    """A page of grants; pass ``next`` as ``after`` for the following one."""

    grants: list[GrantView]
    next: str | None


class ReasonView(View):
    """What opens a scope: it is the agent's ``own``, its team's, its microDAO's, or a grant to it or to its team."""

    reason: Literal["own", "member", "microdao", "grant"]
    access: Access
    grant_id: str | None
    team_id: str | None


class ReachView(View):
    """A memory that the agent may read, whether it may write it, and why."""

    scope: ScopeView
    access: Access
    reasons: list[ReasonView]


class ReachPage(View):
    """A page of scopes; pass ``next`` as ``after`` for the following one."""

    scopes: list[ReachView]
    next: str | None


@router.get("/agents/{agent_id}/scopes", summary="What an agent may read and write, and why")
async def list_scopes(
    agent_id: str,
    services: ServicesDep,
    principal: PrincipalDep,
    microdao_id: TenantQuery = None,
    after: Annotated[str | None, Query(max_length=500)] = None,
    limit: PageLimit = 100,
) -> ReachPage:
    """As the database enforces it at this moment."""
    principal = within(principal, microdao_id)
    await permit(services, principal, "memory.read", "Agent", agent_id)
    found = await services.memory.sharing.reach(principal.microdao_id, agent_id, after or "", limit)
    last = f"{found[-1].scope.kind} {found[-1].scope.name}" if len(found) == limit else None
    return ReachPage(scopes=[_reach_view(one) for one in found], next=last)


@router.get("/teams", summary="List teams")
async def list_teams(
    services: ServicesDep,
    principal: PrincipalDep,
    microdao_id: TenantQuery = None,
    after: Cursor = None,
    limit: PageLimit = 100,
) -> TeamPage:
    """Of one microDAO, by id."""
    principal = within(principal, microdao_id)
    await permit(services, principal, "memory.read")
    rows = await services.memory.sharing.list_teams(principal.microdao_id, after or "", limit)
    views = [TeamView.model_validate(row) for row in rows]
    return TeamPage(teams=views, next=views[-1].team_id if len(views) == limit else None)


@router.put("/teams/{team_id}", summary="Make or rename a team")
async def put_team(team_id: TeamId, body: TeamBody, services: ServicesDep, principal: PrincipalDep) -> TeamView:
    """A new team has a memory of its own and no members."""
    principal = within(principal, body.microdao_id)
    await permit(services, principal, "memory.share", "Team", team_id)
    return TeamView.model_validate(await services.memory.sharing.put_team(principal.microdao_id, team_id, body.name))


@router.get("/teams/{team_id}", summary="Get a team")
async def get_team(
    team_id: str, services: ServicesDep, principal: PrincipalDep, microdao_id: TenantQuery = None
) -> TeamView:
    """With how many agents belong to it."""
    principal = within(principal, microdao_id)
    await permit(services, principal, "memory.read", "Team", team_id)
    return TeamView.model_validate(await services.memory.sharing.get_team(principal.microdao_id, team_id))


@router.delete("/teams/{team_id}", summary="Delete a team")
async def delete_team(
    team_id: str,
    services: ServicesDep,
    principal: PrincipalDep,
    microdao_id: TenantQuery = None,
    force: bool = False,
) -> Accepted:
    """409 while it remembers anything; with ``force`` its memory is deleted with it, for good."""
    principal = within(principal, microdao_id)
    await permit(services, principal, "memory.share", "Team", team_id)
    await services.memory.sharing.delete_team(principal.microdao_id, team_id, force=force)
    return Accepted()


@router.get("/teams/{team_id}/members", summary="List a team's agents")
async def list_members(
    team_id: str,
    services: ServicesDep,
    principal: PrincipalDep,
    microdao_id: TenantQuery = None,
    after: Cursor = None,
    limit: PageLimit = 100,
) -> MemberPage:
    """By id."""
    principal = within(principal, microdao_id)
    await permit(services, principal, "memory.read", "Team", team_id)
    members = await services.memory.sharing.list_members(principal.microdao_id, team_id, after or "", limit)
    return MemberPage(members=members, next=members[-1] if len(members) == limit else None)


@router.put("/teams/{team_id}/members/{agent_id}", summary="Add an agent to a team")
async def add_member(
    team_id: str, agent_id: str, services: ServicesDep, principal: PrincipalDep, microdao_id: TenantQuery = None
) -> Accepted:
    """It reads and writes the team's memory from now on."""
    principal = within(principal, microdao_id)
    await permit(services, principal, "memory.share", "Team", team_id)
    await services.memory.sharing.add_member(principal.microdao_id, team_id, agent_id)
    return Accepted()


@router.delete("/teams/{team_id}/members/{agent_id}", summary="Take an agent out of a team")
async def remove_member(
    team_id: str, agent_id: str, services: ServicesDep, principal: PrincipalDep, microdao_id: TenantQuery = None
) -> Accepted:
    """At once. What it told the team stays the team's."""
    principal = within(principal, microdao_id)
    await permit(services, principal, "memory.share", "Team", team_id)
    await services.memory.sharing.remove_member(principal.microdao_id, team_id, agent_id)
    return Accepted()


@router.put("/grants", summary="Share an agent's or a team's memory")
async def put_grant(body: GrantBody, services: ServicesDep, principal: PrincipalDep) -> GrantView:
    """With another agent or a team of the same microDAO. Sharing again changes the access and keeps the grant's id."""
    principal = within(principal, body.microdao_id)
    await permit(services, principal, "memory.share", body.scope.kind.title(), body.scope.name)
    row = await services.memory.sharing.share(
        principal.microdao_id, _party(body.scope), _party(body.grantee), body.access
    )
    return _grant_view(row)


@router.get("/grants", summary="List grants")
async def list_grants(
    services: ServicesDep,
    principal: PrincipalDep,
    microdao_id: TenantQuery = None,
    agent_id: PartyQuery = None,
    team_id: PartyQuery = None,
    shared: Direction | None = None,
    after: Cursor = None,
    limit: PageLimit = 100,
) -> GrantPage:
    """All of a microDAO's, or one agent's or team's: what is shared ``by`` it, ``with`` it (or its teams), or both."""
    principal = within(principal, microdao_id)
    await permit(services, principal, "memory.read")
    rows = await services.memory.sharing.list_grants(
        principal.microdao_id, _asked_party(agent_id, team_id), shared, after or "", limit
    )
    return GrantPage(grants=[_grant_view(row) for row in rows], next=rows[-1]["id"] if len(rows) == limit else None)


@router.delete("/grants/{grant_id}", summary="Stop sharing")
async def revoke_grant(
    grant_id: str, services: ServicesDep, principal: PrincipalDep, microdao_id: TenantQuery = None
) -> Accepted:
    """At once."""
    principal = within(principal, microdao_id)
    await permit(services, principal, "memory.share", "Grant", grant_id)
    await services.memory.sharing.revoke(principal.microdao_id, grant_id)
    return Accepted()


def _party(body: PartyBody) -> Grantee:
    return Grantee(body.kind, body.name)


def _asked_party(agent_id: str | None, team_id: str | None) -> Grantee | None:
    if agent_id and team_id:
        raise InvalidRequest("name an agent_id or a team_id, not both", param="team_id")
    if team_id:
        return Grantee("team", team_id)
    return Grantee("agent", agent_id) if agent_id else None


def _grant_view(row: Row) -> GrantView:
    scope = {"kind": row["scope_kind"], "name": row["scope_name"]}
    grantee = {"kind": row["grantee_kind"], "name": row["grantee"]}
    return GrantView.model_validate({**row, "scope": scope, "grantee": grantee})


def _reach_view(one: Reach) -> ReachView:
    return ReachView.model_validate(one, from_attributes=True)
