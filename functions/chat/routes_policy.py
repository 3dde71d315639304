"""The policy decision point over HTTP: ask why, and see what was refused."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import AwareDatetime, Field

from functions.chat.bodies import JsonRoute
from functions.chat.dependencies import Cursor, PageLimit, PrincipalDep, ServicesDep, permit, within
from functions.chat.schemas import ERRORS, Body, View
from shared.bootstrap import Services
from shared.errors import InvalidRequest
from shared.policy.decision import Decision, Resource
from shared.policy.names import own_action
from shared.policy.principal import Principal, agent_principal
from shared.policy.roles import Role
from shared.tools.model import ToolCallRequest

router = APIRouter(prefix="/internal/policy", route_class=JsonRoute, responses=ERRORS, tags=["Policy"])
Identifier = Annotated[str, Field(min_length=1, max_length=200)]
Fact = bool | Annotated[str, Field(max_length=1000)] | list[Annotated[str, Field(max_length=200)]]
TenantQuery = Annotated[str | None, Query(max_length=200)]
Filter = Annotated[str | None, Query(min_length=1, max_length=200)]


class AskedPrincipal(Body):
    """Whom the question is about: an agent, a key, or some roles; the caller where all is left out."""

    id: Identifier | None = None
    agent_id: Identifier | None = None
    key_id: Identifier | None = None
    roles: list[Role] | None = Field(default=None, max_length=10)


class AskedResource(Body):
    """What it is about; the caller's microDAO where left out."""

    kind: str = Field(default="MicroDao", pattern=r"^[A-Za-z]{1,40}$")
    id: Identifier | None = None


class DecideBody(Body):
    """May they do this to that? ``principal`` may be the id of an agent or key alone.

    Of a tool and an agent, what policies look at is read from the catalogue, so that the answer is what a call would
    get; what ``context`` says beyond ``agent_id`` and ``confidential`` stands in for it.
    """

    principal: AskedPrincipal | Identifier = Field(default_factory=AskedPrincipal)
    action: str = Field(max_length=300)
    resource: AskedResource = Field(default_factory=AskedResource)
    context: dict[Annotated[str, Field(max_length=100)], Fact] = Field(default_factory=dict, max_length=50)
    microdao_id: Annotated[str, Field(max_length=200)] | None = None


class DecisionView(View):
    """The answer and the policies that gave it."""

    allow: bool
    reason: str
    policies: list[str]


class DenialView(View):
    """Equal refusals of one minute; ``request_id`` is the first one's."""

    id: str
    principal_id: str
    agent_id: str | None
    action: str
    resource_kind: str
    resource_id: str
    reason: str
    policies: list[str]
    request_id: str
    count: int
    denied_at: datetime
    last_denied_at: datetime


class DenialPage(View):
    """A page of refusals; pass ``next`` as ``before`` for the following one."""

    denials: list[DenialView]
    next: str | None


@router.post("/decide", summary="Ask the policy")
async def decide_policy(body: DecideBody, services: ServicesDep, principal: PrincipalDep) -> DecisionView:
    """Why something is allowed or not, inside the caller's microDAO."""
    principal = within(principal, body.microdao_id)
    await permit(services, principal, "policy.ask")
    decision = await _decide(services, await _asked_principal(services, principal, body.principal), body)
    return DecisionView(allow=decision.allow, reason=decision.reason, policies=list(decision.policies))


@router.get("/denials", summary="What was refused")
async def list_denials(
    services: ServicesDep,
    principal: PrincipalDep,
    agent_id: Filter = None,
    tool: Filter = None,
    action: Filter = None,
    since: AwareDatetime | None = None,
    microdao_id: TenantQuery = None,
    before: Cursor = None,
    limit: PageLimit = 100,
) -> DenialPage:
    """Of the last 90 days, newest first."""
    principal = within(principal, microdao_id)
    await permit(services, principal, "policy.read")
    rows = await services.policy.denials.list(
        principal.microdao_id, agent_id=agent_id, tool=tool, action=action, since=since, before=before, limit=limit
    )
    views = [DenialView.model_validate(row) for row in rows]
    return DenialPage(denials=views, next=views[-1].id if len(views) == limit else None)


async def _asked_principal(services: Services, caller: Principal, asked: AskedPrincipal | str) -> Principal:
    if isinstance(asked, str):
        asked = AskedPrincipal(agent_id=asked) if asked.startswith("agent:") else AskedPrincipal(key_id=asked)
    if asked.agent_id is not None:
        await services.tenants.check_agent(caller.microdao_id, asked.agent_id)
        return agent_principal(asked.agent_id, caller.microdao_id)
    if asked.key_id is not None and asked.key_id != caller.key_id:
        await permit(services, caller, "key.write", "Key", asked.key_id)
        return await services.keys.find(caller.microdao_id, asked.key_id)
    roles = caller.roles if asked.roles is None else frozenset(asked.roles)
    return Principal(asked.id or caller.key_id, caller.microdao_id, roles)


async def _decide(services: Services, asked: Principal, body: DecideBody) -> Decision:
    action, tool = own_action(body.action)
    if tool is not None and body.resource.id not in (None, tool):
        raise InvalidRequest("the action names another tool than the resource", param="resource.id")
    if tool is None and action == "tool.invoke" and body.resource.kind == "Tool":
        tool = body.resource.id
    agent_id = body.context.get("agent_id") or (asked.key_id if "agent" in asked.roles else None)
    if tool is not None and isinstance(agent_id, str) and body.context.keys() <= {"agent_id", "confidential"}:
        is_confidential = body.context.get("confidential") is True
        request = ToolCallRequest(
            asked.microdao_id, agent_id, tool, {}, requested_by=asked.key_id, confidential=is_confidential
        )
        return await services.toolbox.ask(asked, request)
    kind = body.resource.kind if tool is None else "Tool"
    resource = Resource(kind, tool or body.resource.id or asked.microdao_id, asked.microdao_id)
    return await services.policy.decide(asked, action, resource, body.context)
