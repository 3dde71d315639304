"""What routes ask for: the services, the caller, a page."""

from dataclasses import replace
from typing import Annotated, Any

from fastapi import Depends, Query, Request
from fastapi.security import HTTPBearer

from shared.bootstrap import Services
from shared.errors import NotFound
from shared.policy.decision import Resource
from shared.policy.principal import Principal

_bearer = HTTPBearer(auto_error=False, description="An API key: `daarion keys create` makes one.")


# Coroutines, though they wait for nothing: FastAPI runs plain functions in a thread, a tenth of a request's CPU time.


async def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


async def _principal(request: Request, _documented: Annotated[Any, Depends(_bearer)]) -> Principal:
    principal: Principal = request.scope["daarion"]["principal"]
    return principal


ServicesDep = Annotated[Services, Depends(_services)]
PrincipalDep = Annotated[Principal, Depends(_principal)]
PageLimit = Annotated[int, Query(ge=1, le=200)]
Cursor = Annotated[str | None, Query(max_length=200)]


def within(principal: Principal, microdao_id: str | None) -> Principal:
    """The caller inside the microDAO that the request names. Another tenant's does not exist, except for operators."""
    if microdao_id is None or microdao_id == principal.microdao_id:
        return principal
    if principal.is_operator and microdao_id:
        return replace(principal, microdao_id=microdao_id)
    raise NotFound(f"no microDAO {microdao_id!r}", param="microdao_id")


async def permit(
    services: Services, principal: Principal, action: str, kind: str = "MicroDao", identifier: str | None = None
) -> None:
    """Ask the policy about something of the caller's own microDAO. Raises Unauthorized."""
    resource = Resource(kind, identifier or principal.microdao_id, principal.microdao_id)
    await services.policy.authorize(principal, action, resource)


async def may(services: Services, principal: Principal, action: str) -> bool:
    """Whether the policy would permit something in the caller's own microDAO, where less is done without it."""
    resource = Resource("MicroDao", principal.microdao_id, principal.microdao_id)
    return (await services.policy.decide(principal, action, resource)).allow
