"""OpenAI's surface: chat completions and models, for clients unchanged."""

from typing import Literal

from fastapi import APIRouter
from starlette.responses import Response

from functions.chat.completions import agent_completion, agent_events
from functions.chat.dependencies import PrincipalDep, ServicesDep, permit, within
from functions.chat.event_stream import EventStream, pacing
from functions.chat.model_answers import ClientHintsDep, answer_by_model, json_response
from functions.chat.model_route import ModelRoute
from functions.chat.schemas import OPENAI_ERRORS, View
from shared.bootstrap import Services
from shared.errors import ModelNotFound
from shared.llm.caller import Caller, CallReport, ClientHints
from shared.policy.principal import Principal
from shared.wire.chat import ChatMetadata, ChatRequest
from shared.wire.embeddings import EmbeddingRequest

router = APIRouter(prefix="/v1", route_class=ModelRoute, responses=OPENAI_ERRORS, tags=["OpenAI"])
SESSION_HEADER = "x-daarion-session"


class ModelView(View):
    """A model that ``POST /v1/chat/completions`` takes: a blueprint or a logical model."""

    id: str
    object: str = "model"
    created: int
    owned_by: str


class EmbeddingView(View):
    """The vector of one input: numbers, or 32-bit little-endian floats in base64."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingUsage(View):
    """Tokens of all inputs."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingList(View):
    """One vector per input, in order."""

    object: Literal["list"]
    data: list[EmbeddingView]
    model: str
    usage: EmbeddingUsage


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
async def create_completion(
    request: ChatRequest, services: ServicesDep, principal: PrincipalDep, hints: ClientHintsDep
) -> Response:
    """``model`` is a logical model, a blueprint code, ``auto``, or a session id."""
    principal = within(principal, (request.metadata or ChatMetadata()).microdao_id)
    session = await services.agents.open_session(principal, request)
    if session is None:
        return await _answer_by_model(services, principal, request, hints)
    headers = {SESSION_HEADER: session.id}
    turn = services.agents.run(principal, session, request)
    if request.stream:
        include_usage = bool(request.stream_options and request.stream_options.include_usage)
        events = agent_events(turn, session.id, include_usage=include_usage)
        return EventStream(events, headers, pacing(services.settings))
    return json_response(await agent_completion(turn), headers)


@router.post("/embeddings", summary="Turn texts into vectors", response_model=EmbeddingList)
async def create_embeddings(
    request: EmbeddingRequest, services: ServicesDep, principal: PrincipalDep, hints: ClientHintsDep
) -> Response:
    """``model`` is a logical model of kind ``embedding``."""
    metadata = request.metadata or ChatMetadata()
    principal = within(principal, metadata.microdao_id)
    if not services.gateway.knows(request.model, "embedding"):
        raise _unknown(request.model)
    await permit(services, principal, "llm.invoke", "Model", request.model)
    caller = Caller(microdao_id=principal.microdao_id, key_id=principal.key_id, agent_id=metadata.agent_id)
    report = CallReport()
    body = await services.gateway.embed(request, caller, hints=hints, report=report)
    return json_response(body, report.headers)


@router.get("/models", summary="List the models")
async def list_models(services: ServicesDep, principal: PrincipalDep) -> ModelList:
    """Blueprints that an agent of the key's microDAO is bound to, then logical models with a usable route."""
    return ModelList(data=await _models(services, principal))


@router.get("/models/{model_id:path}", summary="One model")
async def get_model(model_id: str, services: ServicesDep, principal: PrincipalDep) -> ModelView:
    """404 ``model_not_found`` when the key may not name it."""
    for model in await _models(services, principal):
        if model.id == model_id:
            return model
    raise _unknown(model_id)


async def _models(services: Services, principal: Principal) -> list[ModelView]:
    await permit(services, principal, "model.list")
    logical = [ModelView(id=model.id, created=0, owned_by="daarion") for model in services.gateway.models()]
    taken = {model.id for model in logical}
    blueprints = await services.agents.blueprints(principal.microdao_id)
    own = [
        ModelView(id=row["code"], created=int(row["created_at"].timestamp()), owned_by=principal.microdao_id)
        for row in blueprints
        if row["has_agent"] and row["code"] not in taken
    ]
    return [*own, *logical]


async def _answer_by_model(
    services: Services, principal: Principal, request: ChatRequest, hints: ClientHints
) -> Response:
    metadata = request.metadata or ChatMetadata()
    if not services.gateway.knows(request.model):
        raise _unknown(request.model, metadata.agent_id)
    await permit(services, principal, "llm.invoke", "Model", request.model)
    caller = Caller(microdao_id=principal.microdao_id, key_id=principal.key_id, agent_id=metadata.agent_id)
    return await answer_by_model(services, request, caller, hints)


def _unknown(model: str, agent_id: str | None = None) -> ModelNotFound:
    """In OpenAI's words; who meant an agent is told how to name it."""
    hint = ""
    if agent_id or model.startswith("agent:"):
        hint = f" To ask {agent_id or 'an agent by its id'}, use the model 'auto' with the id in metadata.agent_id."
    return ModelNotFound(f"The model '{model}' does not exist or you do not have access to it.{hint}", param="model")
