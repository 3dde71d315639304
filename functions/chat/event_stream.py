"""A server-sent event response that waits for the first event before it says 200, and notices a client that leaves.

Until the first event an error is an ordinary response with its own status. A first event that is long in coming is not
waited for in silence: the stream is then opened with a comment, and from there on an error is an error event.
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from fastapi import Response
from starlette.types import Receive, Scope, Send

from shared.errors import ApiError, Internal
from shared.observability import Log
from shared.settings import Settings
from shared.wire import sse
from shared.wire.error_body import openai_error

_MOST_WAITING_BYTES: Final = 65_536
_log = Log("api")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pacing:
    """Seconds: ``hold_s`` before a stream is opened without an event, ``ping_s`` of silence between comments (0: none).

    Load balancers cut a connection that is idle for a minute.
    """

    hold_s: float = 10.0
    ping_s: float = 15.0


def pacing(settings: Settings) -> Pacing:
    """As configured."""
    return Pacing(hold_s=settings.stream_hold_s, ping_s=settings.stream_ping_s)


class EventStream(Response):
    """Sends encoded events. ``headers`` is read at the first event: what makes the events may fill it in until then."""

    def __init__(
        self, events: AsyncGenerator[bytes, None], headers: Mapping[str, str], pacing: Pacing | None = None
    ) -> None:
        super().__init__(media_type=None)
        self._events = events
        self._extra_headers = headers
        self._pacing = pacing or Pacing()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the events end or the client is gone; either way the generator is closed."""
        line = _Line(send, self._extra_headers, self._pacing)
        speaker = asyncio.create_task(self._speak(line))
        carrier = asyncio.create_task(line.carry())
        listener = asyncio.create_task(_until_gone(receive))
        everyone = (speaker, carrier, listener)
        try:
            await asyncio.wait({carrier, listener}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            finished = [task for task in (speaker, carrier) if task.done()]
            for task in everyone:
                task.cancel()
            await asyncio.gather(*everyone, return_exceptions=True)
        for task in finished:
            task.result()

    async def _speak(self, line: "_Line") -> None:
        try:
            async with aclosing(self._events) as events:
                async for event in events:
                    await line.say(event)
        except BaseException as error:
            if not line.is_open or not isinstance(error, Exception):
                line.drop()
                raise
            await line.say(sse.encode(openai_error(_told(error))))
        line.close()


class _Line:
    """The response as it goes out. It opens with the first thing that is said.

    What is said at one go leaves in one piece: sending each event alone was a quarter of a stream's CPU time.
    """

    def __init__(self, send: Send, headers: Mapping[str, str], pacing: Pacing) -> None:
        self._send = send
        self._headers = headers
        self._pacing = pacing
        self._waiting = bytearray()
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._raw_headers: list[tuple[bytes, bytes]] = []
        self._is_closed = self._is_dropped = self._has_begun = False

    @property
    def is_open(self) -> bool:
        """Whether anything was said."""
        return bool(self._raw_headers)

    async def say(self, body: bytes) -> None:
        """Send bytes soon; waits while too many have not left."""
        self._add(body)
        while len(self._waiting) > _MOST_WAITING_BYTES:
            self._room.clear()
            await self._room.wait()

    def close(self) -> None:
        """All was said."""
        if not self.is_open:
            self._open()
        self._is_closed = True
        self._news.set()

    def drop(self) -> None:
        """Nothing more will be said, not even that it is the end."""
        self._is_dropped = True
        self._news.set()

    async def carry(self) -> None:
        """Send what is said until the line is closed, and a comment after each silence that lasts too long."""
        while not self._is_closed or self._waiting:
            if not await self._hear():
                self._add(sse.PING)
            if self._is_dropped:
                return
            await self._pass_on()
        await self._begin()
        await self._send({"type": "http.response.body", "body": b""})

    async def _hear(self) -> bool:
        """Wait for news; False after too long a silence. Without pings an idle stream is not opened early either."""
        patience_s = self._pacing.ping_s if self.is_open else self._pacing.hold_s
        try:
            async with asyncio.timeout(patience_s if self._pacing.ping_s else None):
                await self._news.wait()
        except TimeoutError:
            return False
        return True

    async def _pass_on(self) -> None:
        self._news.clear()
        body, self._waiting = bytes(self._waiting), bytearray()
        self._room.set()
        if body:
            await self._begin()
            await self._send({"type": "http.response.body", "body": body, "more_body": True})

    async def _begin(self) -> None:
        if not self._has_begun:
            self._has_begun = True
            await self._send({"type": "http.response.start", "status": 200, "headers": self._raw_headers})

    def _add(self, body: bytes) -> None:
        if not self.is_open:
            self._open()
        self._waiting += body
        self._news.set()

    def _open(self) -> None:
        headers = {**sse.HEADERS, **self._headers}
        self._raw_headers = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]


def _told(error: Exception) -> ApiError:
    """What a client is told of an error in mid-stream; a fault of ours is logged."""
    if isinstance(error, ApiError):
        return error
    _log.exception("stream failed")
    return Internal("The answer broke off on our side.")


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
