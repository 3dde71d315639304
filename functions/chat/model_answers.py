"""Answers of raw models as responses: the body or the stream, with the headers that tell how it came about."""

from collections.abc import Mapping
from typing import Annotated, Any

import orjson
from fastapi import Depends, Request
from starlette.responses import Response

from functions.chat.completions import model_events
from functions.chat.event_stream import EventStream, pacing
from shared.bootstrap import Services
from shared.llm.caller import Caller, CallReport, ClientHints
from shared.wire.chat import ChatRequest


def client_hints(headers: Mapping[str, str]) -> ClientHints:
    """From the headers that OpenAI's clients send (openai-python, ``_base_client.py``); nonsense counts as silence."""
    return ClientHints(
        patience_s=_number(headers.get("x-stainless-read-timeout")),
        is_retry=bool(_number(headers.get("x-stainless-retry-count"))),
    )


async def _client_hints(request: Request) -> ClientHints:
    return client_hints(request.headers)


ClientHintsDep = Annotated[ClientHints, Depends(_client_hints)]


async def answer_by_model(services: Services, request: ChatRequest, caller: Caller, hints: ClientHints) -> Response:
    """Call the logical model that the request names. Raises as the gateway does."""
    report = CallReport()
    if request.stream:
        include_usage = bool(request.stream_options and request.stream_options.include_usage)
        chunks = services.gateway.stream(request, caller, hints=hints, report=report)
        events = model_events(chunks, include_usage=include_usage)
        return EventStream(events, report.headers, pacing(services.settings))
    body = await services.gateway.complete(request, caller, hints=hints, report=report)
    return json_response(body, report.headers)


def json_response(body: dict[str, Any], headers: Mapping[str, str]) -> Response:
    """A successful answer."""
    return Response(orjson.dumps(body), headers=headers, media_type="application/json")


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if 0 < value < float("inf") else None
