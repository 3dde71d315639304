"""OpenAI's surface: chat completions and models, for clients unchanged."""

from fastapi import APIRouter
from starlette.responses import JSONResponse, Response

from functions.chat.bodies import JsonRoute
from functions.chat.completions import agent_completion, agent_events, model_events
from functions.chat.dependencies import PrincipalDep, ServicesDep, permit, within
from functions.chat.event_stream import EventStream
from functions.chat.schemas import OPENAI_ERRORS, View
from shared.bootstrap import Services
from shared.errors import ModelNotFound
from shared.llm.caller import Caller
from shared.policy.principal import Principal
from shared.wire.chat import ChatMetadata, ChatRequest

router = APIRouter(prefix="/v1", route_class=JsonRoute, responses=OPENAI_ERRORS, tags=["OpenAI"])
SESSION_HEADER = "x-daarion-session"


class ModelView(View):
    """A model that ``POST /v1/chat/completions`` takes: a blueprint or a logical model."""

    id: str
    object: str = "model"
    created: int
    owned_by: str


class ModelList(View):
    """Every model the key may name."""

    object: str = "list"
    data: list[ModelView]


@router.post(
    "/chat/completions",
    summary="Answer a conversation",
    response_model=None,
    responses={200: {"content": {"application/json": {"schema": {"type": "object"}}, "text/event-stream": {}}}},
)
async def create_completion(request: ChatRequest, services: ServicesDep, principal: PrincipalDep) -> Response:
    """``model`` is a blueprint code, ``auto``, a session id, or a logical model."""
    principal = within(principal, (request.metadata or ChatMetadata()).microdao_id)
    session = await services.agents.open_session(principal, request)
    include_usage = bool(request.stream_options and request.stream_options.include_usage)
    if session is None:
        return await _answer_by_model(services, principal, request, include_usage)
    headers = {SESSION_HEADER: session.id}
    turn = services.agents.run(principal, session, request)
    if request.stream:
        return EventStream(agent_events(turn, session.id, include_usage=include_usage), headers)
    return JSONResponse(await agent_completion(turn), headers=headers)


@router.get("/models", summary="List the models")
async def list_models(services: ServicesDep, principal: PrincipalDep) -> ModelList:
    """Blueprints of the key's microDAO first, then logical models with a usable route."""
    return ModelList(data=await _models(services, principal))


@router.get("/models/{model_id:path}", summary="One model")
async def get_model(model_id: str, services: ServicesDep, principal: PrincipalDep) -> ModelView:
    """404 ``model_not_found`` when the key may not name it."""
    for model in await _models(services, principal):
        if model.id == model_id:
            return model
    raise _unknown(model_id)


async def _models(services: Services, principal: Principal) -> list[ModelView]:
    permit(principal, "model.list")
    blueprints = await services.agents.blueprints(principal.microdao_id)
    own = [
        ModelView(id=row["code"], created=int(row["created_at"].timestamp()), owned_by=principal.microdao_id)
        for row in blueprints
    ]
    logical = [ModelView(id=model.id, created=0, owned_by="daarion") for model in services.gateway.models()]
    return [*own, *logical]


async def _answer_by_model(
    services: Services, principal: Principal, request: ChatRequest, include_usage: bool
) -> Response:
    if not services.gateway.knows(request.model):
        raise _unknown(request.model)
    permit(principal, "llm.invoke", "Model", request.model)
    metadata = request.metadata or ChatMetadata()
    caller = Caller(microdao_id=principal.microdao_id, key_id=principal.key_id, agent_id=metadata.agent_id)
    if request.stream:
        chunks = services.gateway.stream(request, caller)
        return EventStream(model_events(chunks, include_usage=include_usage), {})
    return JSONResponse(await services.gateway.complete(request, caller))


def _unknown(model: str) -> ModelNotFound:
    return ModelNotFound(f"The model '{model}' does not exist or you do not have access to it.", param="model")
