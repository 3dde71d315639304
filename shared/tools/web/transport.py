"""Connections to the address that was checked, and answers that cannot outgrow their cap.

One transport is made for each call and keeps no connection: a kept one may be closed by the server just when the next
request goes out, and then nobody knows whether it was done.
"""

import asyncio
import socket
import ssl
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Any, Protocol, cast

import httpcore2
import httpx2

from shared.tools.web.addresses import Place, Reach
from shared.tools.web.errors import AddressRefused

CONNECT_TIMEOUT_S = 3.0
MAX_ANSWER_BYTES = 1 << 20
_MAX_ADDRESSES = 4  # tried in turn within the connect timeout
_RESOLVER_THREADS = 16
_PIECE_BYTES = 1 << 16
_GZIP_WINDOW = 16 + zlib.MAX_WBITS

Resolver = Callable[[Place], Awaitable[list[str]]]
"""The textual addresses of a place's host. Raises OSError when there are none."""


class AnswerRefused(httpx2.StreamError):
    """The body of an answer is too large or is packed in a way that is not read."""


async def resolve(place: Place) -> list[str]:
    """Ask the system's resolver. Raises OSError."""
    ask = partial(socket.getaddrinfo, place.host, place.port, type=socket.SOCK_STREAM)
    found = await asyncio.get_running_loop().run_in_executor(_resolver_threads(), ask)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class PinnedBackend(httpcore2.AsyncNetworkBackend):
    """Resolves a name once, refuses it if any of its addresses is out of reach, and connects to the address itself.

    TLS and the Host header keep the name: they are made above from the URL.
    """

    def __init__(self, reach: Reach, resolver: Resolver) -> None:
        self._reach = reach
        self._resolve = resolver
        self._tcp = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the library's signature
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Connect within ``timeout`` seconds, resolving included.

        Raises AddressRefused, ConnectError, ConnectTimeout.
        """
        place = Place(host, port)
        try:
            async with asyncio.timeout(timeout):
                return await self._connect(await self._addresses(place), port, timeout)
        except TimeoutError:
            raise httpcore2.ConnectTimeout(f"{place} took too long to connect to") from None

    async def _addresses(self, place: Place) -> list[str]:
        if fault := self._reach.place_fault(place):
            raise _refused(place, fault)
        try:
            addresses = await self._resolve(place)
        except (OSError, UnicodeError):
            raise httpcore2.ConnectError(f"{place.host} has no address") from None
        for address in addresses:
            if fault := self._reach.address_fault(place, address):
                raise _refused(place, fault)
        return addresses

    async def _connect(
        self,
        addresses: list[str],
        port: int,
        timeout: float | None,  # noqa: ASYNC109 - shared out among the addresses
    ) -> httpcore2.AsyncNetworkStream:
        tried = addresses[:_MAX_ADDRESSES]
        for number, address in enumerate(tried, 1):
            share = None if timeout is None else timeout / len(tried)
            try:
                return await self._tcp.connect_tcp(address, port, timeout=share)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout):
                if number == len(tried):
                    raise
        raise httpcore2.ConnectError("the name has no address")


class PinnedTransport(httpx2.AsyncHTTPTransport):
    """An httpx2 transport over the pinned backend: no proxies, no kept connections, bodies unpacked and capped."""

    def __init__(self, reach: Reach, resolver: Resolver = resolve, *, max_bytes: int = MAX_ANSWER_BYTES) -> None:
        # Without the parent's constructor, which knows no network backend and reads proxies from the environment.
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=_tls_context(),
            max_connections=None,
            max_keepalive_connections=0,
            network_backend=PinnedBackend(reach, resolver),
        )
        self._max_bytes = max_bytes

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send one request. The answer's stream raises AnswerRefused when it passes the cap."""
        response = await super().handle_async_request(request)
        encoding = response.headers.pop("content-encoding", "").strip().lower()
        if encoding:
            response.headers.pop("content-length", None)
        response.stream = BoundedStream(cast(httpx2.AsyncByteStream, response.stream), encoding, self._max_bytes)
        return response


class BoundedStream(httpx2.AsyncByteStream):
    """The unpacked bytes of an answer, at most ``max_bytes`` of them, made in small pieces however well they packed."""

    def __init__(self, stream: httpx2.AsyncByteStream, encoding: str, max_bytes: int) -> None:
        self._stream = stream
        self._encoding = encoding
        self._max_bytes = max_bytes

    async def __aiter__(self) -> AsyncIterator[bytes]:
        unpacker = _unpacker(self._encoding)
        received = unpacked = 0
        async for part in self._stream:
            received += len(part)
            for piece in unpacker.feed(part):
                unpacked += len(piece)
                if max(received, unpacked) > self._max_bytes:
                    raise AnswerRefused(f"the answer is larger than {self._max_bytes} bytes")
                yield piece
        unpacker.finish()

    async def aclose(self) -> None:
        """Drop the connection."""
        await self._stream.aclose()


class _Unpacker(Protocol):
    def feed(self, part: bytes) -> Iterable[bytes]: ...

    def finish(self) -> None: ...


class _Plain:
    def feed(self, part: bytes) -> Iterable[bytes]:
        return (part,)

    def finish(self) -> None:
        """Nothing is held back."""


class _Gunzip:
    def __init__(self) -> None:
        self._stream = zlib.decompressobj(_GZIP_WINDOW)
        self._has_begun = False

    def feed(self, part: bytes) -> Iterator[bytes]:
        self._has_begun = True
        try:
            while piece := self._stream.decompress(part, _PIECE_BYTES):
                yield piece
                part = self._stream.unconsumed_tail
        except zlib.error:
            raise AnswerRefused("the answer is not the gzip that it claims to be") from None

    def finish(self) -> None:
        if self._has_begun and not self._stream.eof:
            raise AnswerRefused("the answer ends in the middle of its gzip")


def _unpacker(encoding: str) -> _Unpacker:
    if encoding in ("", "identity"):
        return _Plain()
    if encoding in ("gzip", "x-gzip"):
        return _Gunzip()
    raise AnswerRefused("the answer is packed in a way that was not asked for")


def _refused(place: Place, fault: str) -> AddressRefused:
    return AddressRefused(f"tools may not call {place}: {fault} (an operator opens places by DAARION_PRIVATE_HOSTS)")


@cache
def _resolver_threads() -> ThreadPoolExecutor:
    """Of their own, so that a slow name server keeps nothing else waiting that runs in threads."""
    return ThreadPoolExecutor(_RESOLVER_THREADS, thread_name_prefix="tool-dns")


@cache
def _tls_context() -> ssl.SSLContext:
    """Certificates of the system, read once; the environment cannot add to them."""
    return httpx2.create_ssl_context(trust_env=False)
