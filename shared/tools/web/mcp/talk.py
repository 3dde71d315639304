"""One conversation with a server: what goes over the wire in it is watched, and named by session and call."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2
import orjson
from mcp.shared.inbound import mcp_param_headers

from shared.tools.model import ToolFailed
from shared.tools.web.answers import BUSY
from shared.tools.web.client import Progress, WebClient
from shared.tools.web.mcp.refusals import refuses_session
from shared.tools.web.mcp.session import RemoteServer, Session
from shared.tools.web.transport import CONNECT_TIMEOUT_S, AnswerRefused

SESSION_HEADER = "mcp-session-id"


@dataclass(slots=True)
class Greeting:
    """The message that ends a handshake, for which the SDK does not wait."""

    is_over: asyncio.Event = field(default_factory=asyncio.Event)
    fault: Exception | None = None

    async def delivered(self) -> None:
        """Wait until the server has it. Raises what kept it from that."""
        await self.is_over.wait()
        if self.fault is not None:
            raise self.fault


@dataclass(slots=True)
class Talk:
    """In which session (none while one is negotiated), how far the call came, how the last request was answered."""

    session: Session | None = None
    idempotency_key: str = ""
    progress: Progress = field(default_factory=Progress)
    status: int = 200
    retry_after: str = ""
    new_session_id: str = ""
    is_session_over: bool = False
    greeting: Greeting = field(default_factory=Greeting)

    @property
    def is_refused(self) -> bool:
        """Whether the last request was answered with a status that speaks against the session or the call."""
        return self.status >= 400 and self.status not in BUSY


@asynccontextmanager
async def talking(
    client: WebClient, server: RemoteServer, talk: Talk, *, max_bytes: int, deadline: float
) -> AsyncIterator[httpx2.AsyncClient]:
    """What the SDK sends its messages with, until ``deadline`` (of the loop's clock); to be used holding a slot.

    Raises TimeoutError and what the SDK raises, in groups.
    """
    async with (
        asyncio.timeout_at(deadline),
        httpx2.AsyncClient(
            transport=_Watched(client.transport(max_bytes=max_bytes), talk),
            headers={**server.headers, "accept-encoding": "gzip", "user-agent": "daarion"},
            timeout=httpx2.Timeout(None, connect=CONNECT_TIMEOUT_S),
            trust_env=False,
        ) as http,
    ):
        yield http


class _Watched(httpx2.AsyncBaseTransport):
    """Notes how a conversation goes, and puts in the headers that name the session and the call."""

    def __init__(self, inner: httpx2.AsyncBaseTransport, talk: Talk) -> None:
        self._inner = inner
        self._talk = talk

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if request.method == "GET" and "last-event-id" not in request.headers:
            return httpx2.Response(405, request=request)  # nobody here listens to what a server says unasked
        if self._talk.session and self._talk.session.id:
            request.headers[SESSION_HEADER] = self._talk.session.id
        if request.method != "POST":
            return await self._inner.handle_async_request(request)
        message = orjson.loads(await request.aread())
        if message.get("method") == "tools/call":
            self._name_call(request, message["params"])
        if message.get("method") == "notifications/initialized":
            return await self._greet(request)
        response = await self._inner.handle_async_request(request)
        # Only how requests are answered tells of the call; what follows it, such as our answer to a server's question,
        # may be refused after the call was done.
        return await self._noted(response, request, message) if {"id", "method"} <= message.keys() else response

    async def aclose(self) -> None:
        await self._inner.aclose()

    def _name_call(self, request: httpx2.Request, params: dict[str, Any]) -> None:
        request.headers["idempotency-key"] = self._talk.idempotency_key
        request.extensions = {**request.extensions, "trace": self._talk.progress}
        if self._talk.session and (header_map := self._talk.session.header_maps.get(params["name"])):
            request.headers.update(mcp_param_headers(header_map, params.get("arguments") or {}))

    async def _greet(self, request: httpx2.Request) -> httpx2.Response:
        try:
            return await self._inner.handle_async_request(request)
        except (httpx2.TransportError, ToolFailed) as error:
            self._talk.greeting.fault = error
            raise
        finally:
            self._talk.greeting.is_over.set()

    async def _noted(
        self, response: httpx2.Response, request: httpx2.Request, message: dict[str, Any]
    ) -> httpx2.Response:
        self._talk.status = response.status_code
        self._talk.retry_after = response.headers.get("retry-after", "")
        if message.get("method") == "initialize":
            self._talk.new_session_id = response.headers.get(SESSION_HEADER, "")
        if self._talk.session is None or response.status_code not in (400, 404):
            return response
        body = await _body(response)
        self._talk.is_session_over = refuses_session(response.status_code, body, message.get("id"))
        return httpx2.Response(response.status_code, headers=response.headers, content=body, request=request)


async def _body(response: httpx2.Response) -> bytes:
    """The whole body, or nothing if it is larger than what is read."""
    try:
        return await response.aread()
    except AnswerRefused:
        return b""
    finally:
        await response.aclose()
