"""Another embedding model for every microDAO's memory: start, watch, cancel. For operators."""

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter
from pydantic import Field

from functions.chat.bodies import JsonRoute
from functions.chat.dependencies import PrincipalDep, ServicesDep, permit
from functions.chat.schemas import ERRORS, Body, View

router = APIRouter(prefix="/admin/memory/reindex", route_class=JsonRoute, responses=ERRORS, tags=["Administration"])


class ReindexBody(Body):
    """``model``: a logical embedding model, or the local one by its name; the configured one, if left out."""

    model: Annotated[str, Field(min_length=1, max_length=200)] | None = None


class ReindexView(View):
    """How far it is. Counts are of items; ``progress`` goes from 0 to 1.

    ``space`` null: the model stays, only the words are indexed anew. ``failed``: items that the model does not take.
    """

    id: str
    model: str
    space: int | None
    state: Literal["running", "done", "cancelled"]
    total: int
    done: int
    failed: int
    progress: float
    started_at: datetime
    finished_at: datetime | None
    eta_s: float | None


@router.post("", status_code=202, summary="Embed all memory anew")
async def start_reindex(body: ReindexBody, services: ServicesDep, principal: PrincipalDep) -> ReindexView:
    """With another model, or with the same one again. Searches use the old vectors until the new ones are complete."""
    await permit(services, principal, "platform.write")
    progress = await services.memory.reindexing.start(body.model)
    return ReindexView.model_validate(progress, from_attributes=True)


@router.get("", summary="See how far the reindexing is")
async def show_reindex(services: ServicesDep, principal: PrincipalDep) -> ReindexView:
    """Of the run that goes on, or else the last one; 404 before the first."""
    await permit(services, principal, "platform.write")
    return ReindexView.model_validate(await services.memory.reindexing.progress(), from_attributes=True)


@router.delete("", summary="Cancel the reindexing")
async def cancel_reindex(services: ServicesDep, principal: PrincipalDep) -> ReindexView:
    """Searches go on with the old vectors; the new ones are dropped some minutes later."""
    await permit(services, principal, "platform.write")
    return ReindexView.model_validate(await services.memory.reindexing.cancel(), from_attributes=True)
