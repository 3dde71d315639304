"""What every request passes before a route sees it: a request id, the key, a sound body. It also catches faults."""

import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from functions.chat.bodies import MAX_RAW_BYTES, is_raw, parse_body
from functions.chat.error_responses import error_response
from functions.chat.metrics import Metrics
from shared.errors import ApiError, Internal, InvalidApiKey, InvalidRequest, TooLarge
from shared.ids import new_id
from shared.observability import Log, correlated
from shared.policy.principal import Principal

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]
Authenticate = Callable[[str], Awaitable[Principal]]

PUBLIC_PATHS: Final = frozenset({"/healthz", "/readyz", "/openapi.json", "/docs"})
_log = Log("api")


class FrontDoor:
    """ASGI middleware around the whole API. It sets ``scope["daarion"]`` = {request_id, principal, json}."""

    def __init__(self, app: Application, *, metrics: Metrics, authenticate: Authenticate, max_body_bytes: int) -> None:
        self._app = app
        self._metrics = metrics
        self._authenticate = authenticate
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI entry point."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = _Answer(send, new_id("req"))
        scope["daarion"] = {"request_id": answer.request_id}
        with correlated(answer.request_id):
            try:
                await self._admit(scope, receive, answer)
            except ApiError as error:
                await answer.fail(scope, receive, error)
            except Exception:
                _log.exception("request failed", path=scope["path"], method=scope["method"])
                await answer.fail(
                    scope, receive, Internal("Something went wrong on our side; the request id names it.")
                )
            finally:
                self._observe(scope, answer)

    def _observe(self, scope: Scope, answer: "_Answer") -> None:
        route = getattr(scope.get("route"), "path", "unmatched")
        self._metrics.observe(scope["method"], route, answer.status, time.perf_counter() - answer.started_at)

    async def _admit(self, scope: Scope, receive: Receive, answer: "_Answer") -> None:
        _check_target(scope)
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        if scope["path"] not in PUBLIC_PATHS:
            scope["daarion"]["principal"] = await self._authenticate(_bearer(headers))
        raw = is_raw(scope["path"], headers.get("content-type"))
        body = await _read_body(receive, headers, MAX_RAW_BYTES if raw else self._max_body_bytes)
        scope["daarion"]["json"] = None if raw else parse_body(body, headers.get("content-type"))
        await self._app(scope, _replay(body, receive), answer.send)


class _Answer:
    """Adds our headers to the response and knows whether it has begun."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self.started_at = time.perf_counter()
        self.status = 499  # the client left before there was an answer
        self._begun = False
        self.request_id = request_id

    async def send(self, message: Message) -> None:
        """Pass a message on."""
        if message["type"] == "http.response.start":
            self._begun = True
            self.status = message["status"]
            spent_ms = (time.perf_counter() - self.started_at) * 1000
            message["headers"] = [
                *message.get("headers", []),
                (b"x-request-id", self.request_id.encode()),
                (b"openai-processing-ms", str(int(spent_ms)).encode()),
            ]
        await self._send(message)

    async def fail(self, scope: Scope, receive: Receive, error: ApiError) -> None:
        """Answer with the error, unless an answer is under way already."""
        if not self._begun:
            await error_response(error, scope["path"], self.request_id)(scope, receive, self.send)


def _check_target(scope: Scope) -> None:
    if "\x00" in scope["path"] or b"%00" in scope.get("query_string", b""):
        raise InvalidRequest("the address holds a NUL character")


def _bearer(headers: dict[str, str]) -> str:
    scheme, _, secret = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not secret.strip():
        raise InvalidApiKey(
            "You didn't provide an API key. Send it in an Authorization header: 'Authorization: Bearer YOUR_KEY'."
        )
    return secret.strip()


async def _read_body(receive: Receive, headers: dict[str, str], limit: int) -> bytes:
    refusal = TooLarge(f"The body is larger than {limit} bytes, the most that is taken.")
    if int(headers.get("content-length", "0") or 0) > limit:
        raise refusal
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise InvalidRequest("The body ended before it was whole.")  # where a body may be left out, it was not
        part = message.get("body", b"")
        size += len(part)
        if size > limit:
            raise refusal
        parts.append(part)
        if not message.get("more_body"):
            return b"".join(parts)


def _replay(body: bytes, receive: Receive) -> Receive:
    """A ``receive`` that gives the body once and then waits for what comes next (a disconnect)."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
