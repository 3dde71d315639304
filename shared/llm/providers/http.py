"""The way out to providers: one aiohttp session per gateway, faults as our errors.

It repeats nothing, with one exception: a kept connection may turn out to have been closed by the provider at the very
moment it was used again. When not a byte of an answer came, the request goes out once more on another connection.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import cache, partial
from types import SimpleNamespace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import orjson

from shared.errors import LlmTimeout, Unavailable, UpstreamError
from shared.llm.providers.base import Endpoint, UpstreamCall, UpstreamFailure

if TYPE_CHECKING:
    import aiohttp

_CONNECT_TIMEOUT_S = 10.0
_MAX_ANSWER_BYTES = 32_000_000


class UpstreamRefused(Exception):
    """The provider answered with a status that is not a success; the dialect says what it means."""

    def __init__(self, failure: UpstreamFailure) -> None:
        super().__init__(failure.status)
        self.failure = failure


class HttpTransport:
    """Posts JSON. ``timeout_s`` bounds a whole answer, and in a stream the silence before each piece.

    Both are the last line of defence; what a call may take is up to whoever makes it.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._session: aiohttp.ClientSession | None = None

    async def post(self, call: UpstreamCall, endpoint: Endpoint) -> bytes:
        """The body of a successful answer.

        Raises UpstreamRefused, LlmTimeout, Unavailable (nobody is there) or UpstreamError (broken off, too large).
        """
        with _translated(endpoint):
            async with self._open(call, total_s=self._timeout_s) as response:
                return await _read(response, endpoint)

    async def stream(self, call: UpstreamCall, endpoint: Endpoint) -> AsyncGenerator[bytes, None]:
        """The pieces of a successful answer as they come. Raises as ``post`` does; closing it closes the connection."""
        with _translated(endpoint):
            async with self._open(call, total_s=None) as response:
                async for piece in response.content.iter_any():
                    yield piece

    async def close(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    @asynccontextmanager
    async def _open(self, call: UpstreamCall, *, total_s: float | None) -> "AsyncIterator[aiohttp.ClientResponse]":
        response = await self._post(call, total_s)
        try:
            if response.status >= 300:
                headers = {name.lower(): value for name, value in response.headers.items()}
                raise UpstreamRefused(
                    UpstreamFailure(status=response.status, headers=headers, body=await response.content.read(65536))
                )
            yield response
        finally:
            if response.content.at_eof():
                response.release()
            else:
                response.close()

    async def _post(self, call: UpstreamCall, total_s: float | None) -> "aiohttp.ClientResponse":
        import aiohttp

        if self._session is None:
            self._session = _open_session()
        used = _Connection()
        send = partial(
            self._session.post,
            call.url,
            data=orjson.dumps(call.body),
            headers=call.headers,
            timeout=aiohttp.ClientTimeout(total=total_s, sock_connect=_CONNECT_TIMEOUT_S, sock_read=self._timeout_s),
            proxy=_proxy_for(call.url),
            allow_redirects=False,
            trace_request_ctx=used,
        )
        try:
            return await send()
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
            if not used.is_kept:
                raise
        return await send()


@dataclass(slots=True)
class _Connection:
    """Whether the connection of a request had served another before."""

    is_kept: bool = False


def _open_session() -> "aiohttp.ClientSession":
    import aiohttp

    async def note_kept(_session: aiohttp.ClientSession, context: SimpleNamespace, _params: object) -> None:
        context.trace_request_ctx.is_kept = True

    trace = aiohttp.TraceConfig()
    trace.on_connection_reuseconn.append(note_kept)
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), trace_configs=[trace])


@cache
def _proxy_for(url: str) -> str | None:
    """The environment's proxy for a provider's URL; a server on this machine is always reached directly."""
    from urllib.request import getproxies, proxy_bypass

    parts = urlsplit(url)
    host = parts.hostname or ""
    if host == "localhost" or host == "::1" or host.startswith("127.") or proxy_bypass(host):
        return None
    return getproxies().get(parts.scheme)


async def _read(response: "aiohttp.ClientResponse", endpoint: Endpoint) -> bytes:
    pieces = bytearray()
    async for piece in response.content.iter_any():
        pieces += piece
        if len(pieces) > _MAX_ANSWER_BYTES:
            raise UpstreamError(f"{endpoint.provider} sent an answer larger than {_MAX_ANSWER_BYTES} bytes")
    return bytes(pieces)


@contextmanager
def _translated(endpoint: Endpoint) -> Iterator[None]:
    import aiohttp

    try:
        yield
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
        raise Unavailable(f"{endpoint.provider} cannot be reached") from error
    except TimeoutError as error:  # aiohttp's other time-outs are subclasses
        raise LlmTimeout(f"{endpoint.provider} did not answer in time") from error
    except (aiohttp.ClientError, ConnectionError) as error:
        raise UpstreamError(f"{endpoint.provider} broke off its answer") from error
