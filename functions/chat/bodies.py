"""Request bodies: JSON that Postgres and every model can hold, parsed once."""

import re
from collections.abc import Callable, Coroutine
from typing import Any, Final

import orjson
from fastapi import Request, Response
from fastapi.routing import APIRoute

from shared.errors import InvalidRequest, UnsupportedMediaType
from shared.wire.depth import MAX_DEPTH, is_deeper

RAW_TYPES: Final = {"/internal/agent-memory/snapshots/import": "application/x-ndjson"}
"""Paths whose bodies are files of a type of their own; they are read as they come, and may be larger."""
MAX_RAW_BYTES: Final = 32_000_000
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")


def is_raw(path: str, content_type: str | None) -> bool:
    """Whether a body is a file that is not to be parsed."""
    return path in RAW_TYPES and _media_type(content_type) == RAW_TYPES[path]


def parse_body(body: bytes, content_type: str | None) -> Any:
    """The body as JSON; None when it is empty. Raises UnsupportedMediaType or InvalidRequest."""
    if not body:
        return None
    media_type = _media_type(content_type)
    if media_type != "application/json" and not media_type.endswith("+json"):
        raise UnsupportedMediaType(f"The body must be JSON (content-type: application/json), not {media_type!r}.")
    if _NUL.search(body):
        raise InvalidRequest("The body holds a NUL character (\\u0000), which text cannot contain.")
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"The body is not valid JSON: {error.msg} at character {error.pos}.") from None
    if body.count(b"[") + body.count(b"{") > MAX_DEPTH and is_deeper(parsed):
        raise InvalidRequest(f"The body is nested deeper than {MAX_DEPTH} levels.")
    return parsed


def _media_type(content_type: str | None) -> str:
    return (content_type or "application/json").partition(";")[0].strip().lower()


class _ParsedRequest(Request):
    """A request whose JSON the front door has parsed."""

    async def json(self) -> Any:
        return self.scope["daarion"]["json"]


class JsonRoute(APIRoute):
    """A route that takes the parsed body instead of parsing it again with the slower standard library."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's hook."""
        handle = super().get_route_handler()

        async def with_parsed_body(request: Request) -> Response:
            headers = request.scope["headers"]
            if not any(name == b"content-type" for name, _ in headers):
                request.scope["headers"] = [*headers, (b"content-type", b"application/json")]
            return await handle(_ParsedRequest(request.scope, request.receive))

        return with_parsed_body
