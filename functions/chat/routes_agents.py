"""Sessions, for whoever watches them; blueprints, to read."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query

from functions.chat.bodies import JsonRoute
from functions.chat.dependencies import Cursor, PageLimit, PrincipalDep, ServicesDep, permit
from functions.chat.schemas import ERRORS, Accepted, View

router = APIRouter(route_class=JsonRoute, responses=ERRORS, tags=["Agents"])


class SessionView(View):
    """A session in a list."""

    session_id: str
    agent_id: str
    user_id: str | None
    blueprint: str
    state: str
    created_at: datetime


class SessionPage(View):
    """Newest first; ``total`` counts all that there are. Pass ``next`` as ``before`` for the following page."""

    agents: list[SessionView]
    total: int
    next: str | None


class SessionState(View):
    """Everything about one session. ``user_id`` is the end user for whom it was opened."""

    session_id: str
    agent_id: str
    user_id: str | None
    state: str
    iteration: int
    searches_used: int
    clarifications_used: int
    questions: list[str]
    messages: list[dict[str, Any]]
    result: str | None
    cost_microusd: int


class BlueprintView(View):
    """A blueprint at its active version."""

    id: str
    code: str
    name: str
    version: int
    description: str
    tags: list[str]
    model: str
    instructions: str
    kind: str
    llm: dict[str, Any]
    limits: dict[str, Any]
    tools: list[str] | dict[str, Any]


class BlueprintPage(View):
    """Every blueprint of the microDAO."""

    blueprints: list[BlueprintView]


@router.get("/agents", summary="List sessions")
async def list_sessions(
    services: ServicesDep,
    principal: PrincipalDep,
    user_id: Annotated[str | None, Query(min_length=1, max_length=200, description="Whom the session is with.")] = None,
    before: Cursor = None,
    limit: PageLimit = 50,
) -> SessionPage:
    """Newest first; with ``user_id`` those of that end user."""
    await permit(services, principal, "session.read")
    rows, total = await services.agents.sessions.list(principal.microdao_id, user_id, before, limit)
    views = [SessionView.model_validate(row) for row in rows]
    return SessionPage(agents=views, total=total, next=views[-1].session_id if len(views) == limit else None)


@router.get("/agents/{session_id}/state", summary="One session")
async def get_session(session_id: str, services: ServicesDep, principal: PrincipalDep) -> SessionState:
    """Its messages in OpenAI's form, counters and result."""
    await permit(services, principal, "session.read", "Session", session_id)
    row, messages = await services.agents.sessions.state(principal.microdao_id, session_id)
    return SessionState.model_validate({**row, "session_id": row["id"], "messages": messages})


@router.delete("/agents/{session_id}", summary="Delete a session")
async def delete_session(session_id: str, services: ServicesDep, principal: PrincipalDep) -> Accepted:
    """With all that was said in it; a turn under way loses it. What the agent remembers of it is memory's, and stays:
    `POST /internal/agent-memory/forget` with `filters.session_id` deletes that."""
    await permit(services, principal, "session.write", "Session", session_id)
    await services.agents.sessions.delete(principal.microdao_id, session_id)
    return Accepted()


@router.get("/internal/agents/blueprints", summary="List blueprints")
async def list_blueprints(services: ServicesDep, principal: PrincipalDep) -> BlueprintPage:
    """Each at its active version."""
    await permit(services, principal, "blueprint.read")
    rows = await services.agents.blueprints(principal.microdao_id)
    views = [{**row["definition"], "id": row["id"], "version": row["version"]} for row in rows]
    return BlueprintPage(blueprints=[BlueprintView.model_validate(view) for view in views])
