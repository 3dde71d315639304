"""Search in the tools that an agent may use."""

from typing import Annotated, Literal

from fastapi import APIRouter
from pydantic import Field

from functions.chat.bodies import JsonRoute
from functions.chat.dependencies import PrincipalDep, ServicesDep, permit, within
from functions.chat.schemas import ERRORS, Body, View
from shared.tools.search.model import DEFAULT_K, MOST_K, ToolQuery

router = APIRouter(prefix="/internal", route_class=JsonRoute, responses=ERRORS, tags=["Tools"])
Identifier = Annotated[str, Field(min_length=1, max_length=200)]
Names = Annotated[list[Identifier], Field(default_factory=list, max_length=500)]
Executor = Literal["builtin", "http", "python", "mcp", "agent", "chain"]


class ToolSearchBody(Body):
    """What is to be done next, and which tools come into question.

    An empty ``allow`` or ``executors`` leaves all of them. ``required`` tools come first and do not count into ``k``.
    """

    query: str = Field(max_length=20_000)
    agent_id: Identifier
    microdao_id: Identifier | None = None
    k: int = Field(default=DEFAULT_K, ge=1, le=MOST_K)
    risk_max: Literal["A", "B", "C", "D"] = "D"
    executors: list[Executor] = Field(default_factory=list, max_length=6)
    allow: Names
    deny: Names
    required: Names
    confidential: bool = False


class FoundToolView(View):
    """A tool. ``score`` is about 0 for one that has nothing to do with the query and about 1 for one that fits.

    ``why`` is ``allowed`` where nothing was found and the tools that may be used stand in.
    """

    id: str
    name: str
    score: float
    why: Literal["required", "found", "allowed"]


class FoundToolsView(View):
    """Best first, after the required ones; ``permitted`` is how many tools they were chosen from."""

    tools: list[FoundToolView]
    permitted: int


@router.post("/tools/search", summary="Find the tools for a task")
async def search_tools(body: ToolSearchBody, services: ServicesDep, principal: PrincipalDep) -> FoundToolsView:
    """The ``k`` best of the tools that the agent was granted, by the meaning and the words of the query."""
    principal = within(principal, body.microdao_id)
    await permit(services, principal, "tool.list")
    asked = body.model_dump(exclude={"query", "microdao_id"})
    if await services.policy.governs(principal.microdao_id, "tool.invoke"):
        permissions = await services.toolbox.permissions(principal.microdao_id, body.agent_id)
        asked["deny"] = {*body.deny, *(one.name for one in permissions if not one.granted)}
    found = await services.tool_search.search(ToolQuery(microdao_id=principal.microdao_id, text=body.query, **asked))
    views = [FoundToolView.model_validate(tool, from_attributes=True) for tool in found.tools]
    return FoundToolsView(tools=views, permitted=found.permitted)
