"""The contract every queue function serves, as a bare ASGI app (no web framework in the cold start).

``POST /events`` takes an SQS-shaped batch or a direct payload (a Step Functions task, a schedule); ``GET /healthz``
says that the process is up and ``GET /readyz`` that what it needs is. On Lambda the Web Adapter posts events here,
elsewhere the poller does (`shared/cloud/poller.py`).
"""

from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import orjson

from shared.observability import Log, correlated

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Payload = dict[str, Any]

_log = Log("serve")


class Closable(Protocol):
    """What a function works with: opened on the first event, checked by /readyz, closed at shutdown."""

    async def missing(self) -> list[str]:
        """Names of what is down; empty when ready."""

    async def close(self) -> None:
        """Release connections and send what is left."""


S = TypeVar("S", bound=Closable)


@dataclass(frozen=True, slots=True)
class Message:
    """One queue message: the id the queue gave it, and its body."""

    id: str
    body: Payload


BatchHandler = Callable[[S, list[Message]], Awaitable[set[str]]]
"""Works on a batch and returns the ids of the messages to deliver again."""
DirectHandler = Callable[[S, Payload], Awaitable[Payload]]
"""Answers a direct payload; an exception reaches the caller as a function error."""


class QueueFunction(Generic[S]):
    """An ASGI app around two handlers."""

    def __init__(
        self,
        name: str,
        open_services: Callable[[], S],
        *,
        on_batch: BatchHandler[S],
        on_direct: DirectHandler[S],
        also_ready: Callable[[S], Awaitable[Payload]] | None = None,
    ) -> None:
        """``also_ready`` adds what /readyz shows beside the status, such as the sandbox in use."""
        self.name = name
        self._open_services = open_services
        self._services: S | None = None
        self._on_batch = on_batch
        self._on_direct = on_direct
        self._also_ready = also_ready

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI entry point."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            status, body = await self._route(scope["method"], scope["path"], receive)
            await _respond(send, status, body)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.shutdown" and self._services is not None:
                await self._services.close()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return

    async def _route(self, method: str, path: str, receive: Receive) -> tuple[int, Payload]:
        if (method, path) == ("GET", "/healthz"):
            return 200, {"status": "up", "function": self.name}
        if (method, path) == ("GET", "/readyz"):
            return await self._readiness(self._open())
        if (method, path) == ("POST", "/events"):
            return await self._event(await _read_body(receive))
        return 404, {"errorType": "not_found", "errorMessage": f"{method} {path} is not served here"}

    async def _readiness(self, services: S) -> tuple[int, Payload]:
        more = await self._also_ready(services) if self._also_ready else {}
        missing = await services.missing()
        return (
            (503, {"status": "unready", "missing": missing, **more}) if missing else (200, {"status": "ready", **more})
        )

    async def _event(self, body: bytes) -> tuple[int, Payload]:
        try:
            event = orjson.loads(body)
            if not isinstance(event, dict):
                raise ValueError("an event must be a JSON object")
        except ValueError as error:
            return 400, {"errorType": "invalid_request", "errorMessage": str(error)}
        try:
            if "Records" in event:
                return 200, await self._batch(event["Records"])
            with correlated(str(event.get("flow_id", ""))):
                return 200, await self._on_direct(self._open(), event)
        except Exception as error:
            _log.exception("event failed", function=self.name)
            return 500, {"errorType": type(error).__name__, "errorMessage": f"{self.name} failed; see its log"}

    async def _batch(self, records: list[Payload]) -> Payload:
        messages, failed = parse_records(records)
        if messages:
            failed |= await self._on_batch(self._open(), messages)
        return {"batchItemFailures": [{"itemIdentifier": message_id} for message_id in sorted(failed)]}

    def _open(self) -> S:
        if self._services is None:
            self._services = self._open_services()
        return self._services


def parse_records(records: list[Payload]) -> tuple[list[Message], set[str]]:
    """SQS records as messages, and the ids of those whose body is not a JSON object; they end as dead letters."""
    messages, unreadable = [], set()
    for record in records:
        try:
            body = orjson.loads(record["body"])
        except ValueError:
            body = None
        if isinstance(body, dict):
            messages.append(Message(record["messageId"], body))
        else:
            _log.warning("unreadable message", message_id=record["messageId"])
            unreadable.add(record["messageId"])
    return messages, unreadable


def each_message(handle: Callable[[S, Payload], Awaitable[None]]) -> BatchHandler[S]:
    """A batch handler that works on one message at a time; only those that raised are delivered again."""

    async def on_batch(services: S, messages: list[Message]) -> set[str]:
        failed = set()
        for message in messages:
            with correlated(str(message.body.get("flow_id") or message.body.get("job_id", ""))):
                try:
                    await handle(services, message.body)
                except Exception:
                    _log.exception("message will be delivered again", message_id=message.id)
                    failed.add(message.id)
        return failed

    return on_batch


async def _read_body(receive: Receive) -> bytes:
    parts = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


async def _respond(send: Send, status: int, body: Payload) -> None:
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": orjson.dumps(body)})
