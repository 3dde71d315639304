"""The policy decision point over HTTP: ask why."""

from typing import Annotated

from fastapi import APIRouter
from pydantic import Field

from functions.chat.bodies import JsonRoute
from functions.chat.dependencies import PrincipalDep, ServicesDep, permit
from functions.chat.schemas import ERRORS, Body, View
from shared.policy.decision import Resource
from shared.policy.principal import Principal
from shared.policy.roles import Role

router = APIRouter(prefix="/internal/policy", route_class=JsonRoute, responses=ERRORS, tags=["Policy"])
Identifier = Annotated[str, Field(min_length=1, max_length=200)]


class AskedPrincipal(Body):
    """Whom the question is about; the caller where left out."""

    id: Identifier | None = None
    roles: list[Role] | None = Field(default=None, max_length=10)


class AskedResource(Body):
    """What it is about; the caller's microDAO where left out."""

    kind: str = Field(default="MicroDao", pattern=r"^[A-Za-z]{1,40}$")
    id: Identifier | None = None


class DecideBody(Body):
    """May these roles do this to that?"""

    principal: AskedPrincipal = Field(default_factory=AskedPrincipal)
    action: str = Field(max_length=100)
    resource: AskedResource = Field(default_factory=AskedResource)
    context: dict[Annotated[str, Field(max_length=100)], bool | Annotated[str, Field(max_length=1000)]] = Field(
        default_factory=dict, max_length=50
    )


class DecisionView(View):
    """The answer and the policies that gave it."""

    allow: bool
    reason: str
    policies: list[str]


@router.post("/decide", summary="Ask the policy")
async def decide_policy(body: DecideBody, services: ServicesDep, principal: PrincipalDep) -> DecisionView:
    """Why something is allowed or not, inside the caller's microDAO."""
    await permit(services, principal, "policy.ask")
    roles = principal.roles if body.principal.roles is None else frozenset(body.principal.roles)
    asked = Principal(body.principal.id or principal.key_id, principal.microdao_id, roles)
    resource = Resource(body.resource.kind, body.resource.id or principal.microdao_id, principal.microdao_id)
    decision = await services.policy.decide(asked, body.action, resource, body.context)
    return DecisionView(allow=decision.allow, reason=decision.reason, policies=list(decision.policies))
