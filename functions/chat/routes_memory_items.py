"""One memory of an agent: look at it, change it."""

from typing import Annotated

from fastapi import APIRouter, Query

from functions.chat.bodies import JsonRoute
from functions.chat.dependencies import PrincipalDep, ServicesDep, permit, within
from functions.chat.memory_bodies import ForAll, UserQuery
from functions.chat.memory_item_bodies import ChangeBody, ItemView, placed
from functions.chat.schemas import ERRORS
from shared.memory.model import MemoryChange

router = APIRouter(
    prefix="/internal/agent-memory/agents/{agent_id}/items",
    route_class=JsonRoute,
    responses=ERRORS,
    tags=["Memory"],
)


@router.get("/{item_id}", summary="Look at a memory")
async def get(
    agent_id: str,
    item_id: str,
    services: ServicesDep,
    principal: PrincipalDep,
    microdao_id: Annotated[str | None, Query(max_length=200)] = None,
    user_id: UserQuery = None,
) -> ItemView:
    """Of what the agent may read."""
    principal = within(principal, microdao_id)
    await permit(services, principal, "memory.read", "Agent", agent_id)
    row = await services.memory.items.get(principal.microdao_id, agent_id, item_id, user_id)
    return ItemView.model_validate(placed(row))


@router.patch("/{item_id}", summary="Change a memory")
async def change(
    agent_id: str,
    item_id: str,
    body: ChangeBody,
    services: ServicesDep,
    principal: PrincipalDep,
    microdao_id: Annotated[str | None, Query(max_length=200)] = None,
    user_id: UserQuery = None,
    scope: ForAll = None,
) -> ItemView:
    """In place: it keeps its id. Another content is found by its words at once and by meaning when it is `ready`, the
    former one by neither; a summary that was made of it goes. The content of a summary, or of a document's passage,
    cannot be changed (409)."""
    principal = within(principal, microdao_id)
    await permit(services, principal, "memory.share" if scope else "memory.write", "Agent", agent_id)
    row = await services.memory.items.change(
        MemoryChange(
            microdao_id=principal.microdao_id,
            agent_id=agent_id,
            item_id=item_id,
            user_id=user_id,
            by_admin=scope is not None,
            content=None if body.content is None else body.content.model_dump(exclude_none=True),
            importance=body.importance,
            sets_expiry="expires_at" in body.model_fields_set,
            expires_at=body.expires_at,
        )
    )
    return ItemView.model_validate(placed(row))
