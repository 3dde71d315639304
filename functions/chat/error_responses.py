"""Every failure as a response: OpenAI's shape under ``/v1``, ours elsewhere. Nothing answers in FastAPI's own."""

import re
from typing import Any, Final

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from shared.errors import ApiError, ErrorDetail, Internal, InvalidRequest, MethodNotAllowed, NotFound
from shared.wire.error_body import openai_error, platform_error

_PLACES: Final = {("body",), ("query",), ("path",)}
_UNION_KIND: Final = re.compile(r"(?:list|dict|literal|function-[a-z]+)\[.*\]|constrained-[a-z]+")


def error_response(error: ApiError, path: str, request_id: str) -> Response:
    """The response for an error on this path."""
    body = openai_error(error) if path.startswith("/v1/") else platform_error(error, request_id)
    return Response(orjson.dumps(body), error.status, error.headers, media_type="application/json")


def install_error_handlers(app: FastAPI) -> None:
    """Route each kind of exception through :func:`error_response`."""

    async def on_api_error(request: Request, error: Any) -> Response:
        return _respond(request, error)

    async def on_validation_error(request: Request, error: Any) -> Response:
        return _respond(request, from_validation(error.errors()))

    async def on_http_error(request: Request, error: Any) -> Response:
        return _respond(request, from_status(error, request))

    async def on_fault(request: Request, error: Any) -> Response:
        return _respond(request, Internal("Something went wrong on our side; the request id names it."))

    app.add_exception_handler(Exception, on_fault)  # Starlette raises it again after this, and the front door logs it
    app.add_exception_handler(ApiError, on_api_error)
    app.add_exception_handler(RequestValidationError, on_validation_error)
    app.add_exception_handler(HTTPException, on_http_error)


def from_validation(faults: Any) -> InvalidRequest:
    """One error that names the first fault and lists all (at most 20)."""
    details = [ErrorDetail(_path(fault["loc"]), fault["msg"]) for fault in faults][:20]
    first = details[0]
    if faults[0]["type"] == "missing" and not first.path:
        return no_body()
    return InvalidRequest(
        f"{first.path}: {first.message}" if first.path else first.message, param=first.path or None, details=details
    )


def no_body() -> InvalidRequest:
    """What a request without the body that it needs is answered with."""
    return InvalidRequest("The request needs a body, in JSON.")


def from_status(error: HTTPException, request: Request) -> ApiError:
    """Starlette's own refusals (no such route, wrong method) as ours."""
    if error.status_code == 404:
        return NotFound(f"There is nothing at {request.url.path}.")
    if error.status_code == 405:
        return MethodNotAllowed(f"{request.url.path} does not take {request.method}.", headers=error.headers)
    return InvalidRequest(str(error.detail))


def _path(location: tuple[Any, ...]) -> str:
    """``("body", "messages", 0, "role")`` → ``messages.0.role``; pydantic's names of a union's kinds are left out."""
    parts = [str(part) for part in (location[1:] if location[:1] in _PLACES else location)]
    return ".".join(part for part in parts if not _UNION_KIND.fullmatch(part))


def _respond(request: Request, error: ApiError) -> Response:
    return error_response(error, request.url.path, request.scope["daarion"]["request_id"])
