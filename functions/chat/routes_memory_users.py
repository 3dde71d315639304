"""The end users that an agent remembers something for."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Path, Query
from starlette.convertors import PathConvertor, register_url_convertor

from functions.chat.bodies import JsonRoute
from functions.chat.dependencies import Cursor, PageLimit, PrincipalDep, ServicesDep, permit, within
from functions.chat.schemas import ERRORS, View


class _AnyText(PathConvertor):
    """The rest of a path, lines and all: a path's own pattern would leave out a last line's end, and name another."""

    regex = "(?s:.*)"


register_url_convertor("anytext", _AnyText())
router = APIRouter(
    prefix="/internal/agent-memory/agents/{agent_id}/users",
    route_class=JsonRoute,
    responses=ERRORS,
    tags=["Memory users"],
)
TenantQuery = Annotated[str | None, Query(max_length=200)]
UserId = Annotated[str, Path(min_length=1, max_length=200)]


class UserView(View):
    """An end user, how many memories the agent keeps for that one alone, and when the newest was stored."""

    user_id: str
    items: int
    last_stored_at: datetime | None


class UserPage(View):
    """A page of users; pass ``next`` as ``after`` for the following one."""

    users: list[UserView]
    next: str | None


class ForgottenUserView(View):
    """How much is gone."""

    items: int
    documents: int


@router.get("", summary="List an agent's end users")
async def list_users(
    agent_id: str,
    services: ServicesDep,
    principal: PrincipalDep,
    microdao_id: TenantQuery = None,
    after: Cursor = None,
    limit: PageLimit = 100,
) -> UserPage:
    """Those for whom it was told something and who were not forgotten since, by id."""
    principal = within(principal, microdao_id)
    await permit(services, principal, "memory.read", "Agent", agent_id)
    rows = await services.memory.users.list_page(principal.microdao_id, agent_id, after or "", limit)
    views = [UserView.model_validate(row) for row in rows]
    return UserPage(users=views, next=views[-1].user_id if len(views) == limit else None)


# An id may hold slashes and lines.
@router.delete("/{user_id:anytext}", summary="Forget an end user")
async def forget_user(
    agent_id: str, user_id: UserId, services: ServicesDep, principal: PrincipalDep, microdao_id: TenantQuery = None
) -> ForgottenUserView:
    """All that the agent keeps for this user: items, postings, embeddings, documents, and that there is such a user.

    Nothing is gone twice: for a user that it does not know the answer is zero.
    """
    principal = within(principal, microdao_id)
    await permit(services, principal, "memory.write", "Agent", agent_id)
    forgotten = await services.memory.users.forget(principal.microdao_id, agent_id, user_id)
    return ForgottenUserView.model_validate(forgotten)
