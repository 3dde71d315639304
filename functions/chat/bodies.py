"""Request bodies: JSON that Postgres and every model can hold, parsed once."""

import re
from collections.abc import Callable, Coroutine
from typing import Any, Final

import orjson
from fastapi import Request, Response
from fastapi.routing import APIRoute

from shared.errors import InvalidRequest, UnsupportedMediaType

_MAX_DEPTH: Final = 64
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")


def parse_body(body: bytes, content_type: str | None) -> Any:
    """The body as JSON; None when it is empty. Raises UnsupportedMediaType or InvalidRequest."""
    if not body:
        return None
    media_type = (content_type or "application/json").partition(";")[0].strip().lower()
    if media_type != "application/json" and not media_type.endswith("+json"):
        raise UnsupportedMediaType(f"The body must be JSON (content-type: application/json), not {media_type!r}.")
    if _NUL.search(body):
        raise InvalidRequest("The body holds a NUL character (\\u0000), which text cannot contain.")
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"The body is not valid JSON: {error.msg} at character {error.pos}.") from None
    if body.count(b"[") + body.count(b"{") > _MAX_DEPTH and _is_deeper(parsed, _MAX_DEPTH):
        raise InvalidRequest(f"The body is nested deeper than {_MAX_DEPTH} levels.")
    return parsed


def _is_deeper(value: Any, levels: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    children = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_is_deeper(child, levels - 1) for child in children)


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
