"""One request to the outside, within all limits, and a clear word on how it ended."""

import asyncio
import logging
import math
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2

from shared.tools.model import ToolFailed, ToolUncertain
from shared.tools.web.addresses import Place, Reach
from shared.tools.web.answers import Answer, is_readable
from shared.tools.web.errors import AddressRefused, NothingSent, UnusableAnswer
from shared.tools.web.redirects import MOST_REDIRECTS, REDIRECTS, Leg, next_leg, parse_url
from shared.tools.web.slots import HostSlots
from shared.tools.web.transport import CONNECT_TIMEOUT_S, AnswerRefused, PinnedTransport, Resolver, resolve

_TIMEOUTS = {"connect": CONNECT_TIMEOUT_S, "read": None, "write": None, "pool": None}

# These write URLs, headers and bodies, where secrets are ("client" is the MCP SDK's).
for _name in ("httpx2", "httpcore2", "mcp", "client"):
    logging.getLogger(_name).setLevel(logging.CRITICAL + 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class WebRequest:
    """What to send, and for which microDAO. ``max_redirects`` is at most MOST_REDIRECTS."""

    microdao_id: str
    method: str
    url: str
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    max_redirects: int = 0


@dataclass(slots=True)
class Progress:
    """How far a request came; an httpcore2 trace."""

    is_sent: bool = False

    async def __call__(self, event: str, info: dict[str, Any]) -> None:
        """Note that the first byte of a request is about to leave."""
        self.is_sent = self.is_sent or event == "http11.send_request_headers.started"


class WebClient:
    """Sends requests to where ``reach`` lets it. It keeps no connection and no cookie between them."""

    def __init__(self, reach: Reach, resolver: Resolver = resolve) -> None:
        self.reach = reach
        self._resolver = resolver
        self._slots = HostSlots()

    async def send(self, request: WebRequest, deadline: float = math.inf) -> Answer:
        """The whole answer, of whatever status, by ``deadline`` (of the loop's clock).

        Raises AddressRefused, NothingSent, UnusableAnswer (a redirect to where tools may not go is one), and
        ToolUncertain when the request went out and no whole answer came.
        """
        first = Leg(request.method, parse_url(request.url), request.headers, request.body)
        progress = Progress()
        try:
            async with asyncio.timeout_at(None if math.isinf(deadline) else deadline):
                return await self._follow(request, first, progress)
        except AddressRefused as refused:
            if progress.is_sent:
                raise UnusableAnswer(f"the service redirects: {refused.message}", 302) from None
            raise
        except TimeoutError:
            raise lost(first.place, progress, "did not answer in time", "tool_timeout") from None
        except httpx2.TransportError as error:
            raise lost(first.place, progress, told(error)) from None

    @asynccontextmanager
    async def slot(self, microdao_id: str, place: Place, deadline: float) -> AsyncIterator[None]:
        """One of the place's slots, for requests one after another by way of ``transport``.

        Raises NothingSent when none is free by ``deadline`` (of the loop's clock).
        """
        async with AsyncExitStack() as stack:
            try:
                async with asyncio.timeout_at(deadline):
                    await stack.enter_async_context(self._slots.held(microdao_id, place))
            except TimeoutError:
                raise lost(place, Progress(), "was not free in time", "tool_timeout") from None
            yield

    def transport(self, *, max_bytes: int) -> PinnedTransport:
        """A transport with this client's reach for a protocol above HTTP, to be used while holding a slot."""
        return PinnedTransport(self.reach, self._resolver, max_bytes=max_bytes)

    async def _follow(self, request: WebRequest, leg: Leg, progress: Progress) -> Answer:
        left = min(request.max_redirects, MOST_REDIRECTS)
        while True:
            answer = await self._exchange(request.microdao_id, leg, progress)
            location = answer.headers.get("location")
            if answer.status not in REDIRECTS or not location or not left:
                return answer
            leg, left = next_leg(leg, answer.status, location), left - 1

    async def _exchange(self, microdao_id: str, leg: Leg, progress: Progress) -> Answer:
        request = httpx2.Request(
            leg.method,
            leg.url,
            headers={**leg.headers, "accept-encoding": "gzip"},
            content=leg.body or None,
            extensions={"timeout": _TIMEOUTS, "trace": progress},
        )
        async with (
            self._slots.held(microdao_id, leg.place),
            PinnedTransport(self.reach, self._resolver) as transport,
        ):
            response = await transport.handle_async_request(request)
            try:
                return Answer(response.status_code, dict(response.headers), await _body(response))
            finally:
                await response.aclose()


async def _body(response: httpx2.Response) -> bytes:
    """The whole body, never its beginning only: half a secret would not be known for one. Of a redirect nothing."""
    status, kind = response.status_code, response.headers.get("content-type", "")
    whole = bytearray()
    try:
        async with aclosing(response.aiter_raw()) as parts:
            async for part in parts:
                if 300 <= status < 400:
                    break
                if not is_readable(kind) and status < 300:
                    raise UnusableAnswer(f"the service answered with {_shown(kind)}, not with JSON or text", status)
                whole += part
    except AnswerRefused as error:
        if status >= 400:  # the status says enough
            return b""
        raise UnusableAnswer(str(error), status) from None
    return bytes(whole)


def lost(place: Place, progress: Progress, what: str, code: str = "tool_failed") -> ToolFailed:
    """The failure of a request without an answer: uncertain if it went out, harmless if it did not."""
    if progress.is_sent:
        return ToolUncertain(f"{place} {what} after the request was sent; it may have acted on it", code=code)
    return NothingSent(f"{place} {what}; nothing was sent", code=code)


def told(error: httpx2.TransportError) -> str:
    """What happened, in our own words: the library's may quote what was sent."""
    if isinstance(error, httpx2.ConnectTimeout):
        return "took too long to connect to"
    return "cannot be reached" if isinstance(error, httpx2.ConnectError) else "broke the connection off"


def _shown(kind: str) -> str:
    return kind.partition(";")[0].strip()[:100] or "no content type"
