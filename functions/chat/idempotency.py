"""The ``Idempotency-Key`` header for routes whose router has ``route_class=IdempotentRoute``.

The same key and body get the same bytes again, at no cost, for a day, with header ``idempotent-replayed: true``. Of a
stream all bytes are stored and sent at once. Only complete successes are stored: an error, a stream that broke off or a
client that left leaves the key free for another try.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Final

import orjson
from fastapi import Request, Response
from starlette.types import Message, Receive, Scope, Send

from functions.chat.bodies import JsonRoute
from shared.errors import ApiError, InvalidRequest
from shared.llm.answers.idempotency import LEASE_S, IdempotentRequests, StoredAnswer
from shared.llm.answers.request_key import RequestKey
from shared.observability import Log
from shared.policy.principal import Principal
from shared.wire import sse

HEADER: Final = "idempotency-key"
REPLAYED: Final = {"idempotent-replayed": "true"}
_MAX_KEY: Final = 255
_KEPT_HEADERS: Final = ("content-type", "cache-control", "x-accel-buffering")
_KEPT_PREFIX: Final = "x-daarion-"
_PARAMETER: Final = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "A repetition with the same key and body within a day gets the first answer again.",
    "schema": {"type": "string", "minLength": 1, "maxLength": _MAX_KEY},
}
_log = Log("api")
Handle = Callable[[Request], Coroutine[Any, Any, Response]]


class IdempotentRoute(JsonRoute):
    """A route whose POSTs honour the header."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        if "POST" in (options.get("methods") or ()):
            extra = options.get("openapi_extra") or {}
            options["openapi_extra"] = {**extra, "parameters": [*extra.get("parameters", []), _PARAMETER]}
        super().__init__(path, endpoint, **options)

    def handler(self) -> Handle:
        """What answers a request that has no such header."""
        return super().get_route_handler()

    def get_route_handler(self) -> Handle:
        """FastAPI's hook."""
        handle = self.handler()

        async def once(request: Request) -> Response:
            given = request.headers.get(HEADER)
            if given is None or request.method != "POST":
                return await handle(request)
            requests: IdempotentRequests = request.app.state.services.idempotency
            return await _answer_once(handle, request, requests, _request_key(request, given))

        return once


async def _answer_once(handle: Handle, request: Request, requests: IdempotentRequests, key: RequestKey) -> Response:
    begun = await requests.begin(key)
    if isinstance(begun, StoredAnswer):
        return Response(begun.body, begun.status, {**begun.headers, **REPLAYED})
    claim = _Claim(requests, key, begun)
    try:
        async with claim.held():
            response = await handle(request)
    except BaseException:
        await claim.release()
        raise
    return _RecordedResponse(response, claim)


class _Claim:
    """The right to answer a request, until the answer is stored or the key is given back."""

    def __init__(self, requests: IdempotentRequests, key: RequestKey, owner: str) -> None:
        self._requests = requests
        self._key = key
        self._owner = owner

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Renew the lease meanwhile."""
        renewing = asyncio.create_task(self._renew())
        try:
            yield
        finally:
            renewing.cancel()

    async def store(self, answer: StoredAnswer) -> None:
        """Store the answer. A client that leaves now, or a fault of the table, does not take it from its client."""
        await self._finish(self._requests.finish(self._key, self._owner, answer))

    async def release(self) -> None:
        """Give the key back."""
        await self._finish(self._requests.release(self._key, self._owner))

    async def _finish(self, last_word: Coroutine[Any, Any, None]) -> None:
        try:
            await last_word
        except ApiError as error:
            _log.warning("the idempotency key stays taken until its lease ends", code=error.code)

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(LEASE_S / 3)
            try:
                await self._requests.renew(self._key, self._owner)
            except ApiError as error:
                _log.warning("an idempotency key's lease could not be renewed", code=error.code)


class _RecordedResponse(Response):
    """Sends a response on and stores it just before its last byte goes out: who has it all can ask for it again."""

    def __init__(self, response: Response, claim: _Claim) -> None:
        super().__init__()
        self._response = response
        self._claim = claim

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI entry point."""
        recorder = _Recorder(send, self._claim)
        try:
            async with self._claim.held():
                await self._response(scope, receive, recorder.send)
        finally:
            if not recorder.is_stored:
                await self._claim.release()


class _Recorder:
    """Listens in on a response."""

    def __init__(self, send: Send, claim: _Claim) -> None:
        self._send = send
        self._claim = claim
        self._status = 0
        self._headers: dict[str, str] = {}
        self._body = bytearray()
        self.is_stored = False

    async def send(self, message: Message) -> None:
        """Pass a message on."""
        if message["type"] == "http.response.start":
            self._status = message["status"]
            self._headers = _kept_headers(message.get("headers", []))
        elif message["type"] == "http.response.body":
            self._body += message.get("body", b"")
            if not self.is_stored and self._is_complete(message):
                self.is_stored = True
                answer = StoredAnswer(status=self._status, headers=self._headers, body=bytes(self._body))
                await self._claim.store(answer)
        await self._send(message)

    def _is_complete(self, message: Message) -> bool:
        """A stream is complete with its terminator, which clients take as the end; an error event ends one without."""
        if self._status >= 400:
            return False
        if self._headers.get("content-type", "").startswith("text/event-stream"):
            return self._body.endswith(sse.DONE)
        return not message.get("more_body")


def _request_key(request: Request, given: str) -> RequestKey:
    if not 0 < len(given) <= _MAX_KEY or not given.isprintable():
        raise InvalidRequest(f"Idempotency-Key must be 1 to {_MAX_KEY} printable characters", param="Idempotency-Key")
    context = request.scope["daarion"]
    principal: Principal = context["principal"]
    asked = [request.method, request.url.path, request.url.query, context["json"]]
    return RequestKey(
        microdao_id=principal.microdao_id,
        key_id=principal.key_id,
        idempotency_key=given,
        fingerprint=hashlib.sha256(orjson.dumps(asked, option=orjson.OPT_SORT_KEYS)).digest(),
    )


def _kept_headers(raw: list[tuple[bytes, bytes]]) -> dict[str, str]:
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in raw}
    return {name: value for name, value in headers.items() if name in _KEPT_HEADERS or name.startswith(_KEPT_PREFIX)}
