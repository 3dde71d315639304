"""What is said in channels, as agents' short-term memory."""

from typing import Annotated, Any

from fastapi import APIRouter, Path
from pydantic import AwareDatetime, Field

from functions.chat.bodies import JsonRoute
from functions.chat.dependencies import PrincipalDep, ServicesDep
from functions.chat.memory_bodies import Identifier, ScopeBody, acting, scope_ref
from functions.chat.schemas import ERRORS, Body, View
from shared.memory.channels import Message

router = APIRouter(prefix="/internal/channels", route_class=JsonRoute, responses=ERRORS, tags=["Channels"])


ChannelId = Annotated[str, Path(min_length=1, max_length=200)]


class MessageBody(Body):
    """Something said. ``id`` is the channel's own: the same message sent twice is kept once."""

    text: Annotated[str, Field(min_length=1, max_length=100_000, pattern=r"\S")]
    author: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    id: Identifier | None = None
    occurred_at: AwareDatetime | None = None
    context: dict[str, Any] | None = None


class MessagesBody(ScopeBody):
    """A batch of messages for one memory, in the order they were said."""

    messages: Annotated[list[MessageBody], Field(min_length=1, max_length=500)]


class PostedView(View):
    """The memories that the messages became, in order."""

    ids: list[str]


@router.post("/{channel_id}/messages", status_code=201, summary="Tell what was said in a channel")
async def post_messages(
    channel_id: ChannelId, body: MessagesBody, services: ServicesDep, principal: PrincipalDep
) -> PostedView:
    """All of them or none. Found by their words at once, by meaning when the indexer has seen them."""
    principal = await acting(services, principal, body, "memory.write")
    messages = [Message(**message.model_dump()) for message in body.messages]
    ids = await services.memory.channels.post(
        principal.microdao_id,
        body.agent_id,
        channel_id,
        messages,
        await scope_ref(services, principal, body),
        by_admin=body.for_all,
    )
    return PostedView(ids=ids)
