"""A server-sent event response that waits for the first event before it says 200, and notices a client that leaves.

Until the first event an error is an ordinary response with its own status. A first event that is long in coming is not
waited for in silence: the stream is then opened with a comment, and from there on an error is an error event.
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from fastapi import Response
from starlette.types import Receive, Scope, Send

from shared.errors import ApiError, Internal
from shared.observability import Log
from shared.settings import Settings
from shared.wire import sse
from shared.wire.error_body import openai_error

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
    """Sends encoded events. ``headers`` is read when the response starts: what makes the events may fill it in."""

    def __init__(
        self, events: AsyncGenerator[bytes, None], headers: Mapping[str, str], pacing: Pacing | None = None
    ) -> None:
        super().__init__(media_type=None)
        self._events = events
        self._extra_headers = headers
        self._pacing = pacing or Pacing()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the events end or the client is gone; either way the generator is closed."""
        speaker = asyncio.create_task(self._speak(_Line(send, self._extra_headers)))
        listener = asyncio.create_task(_until_gone(receive))
        try:
            await asyncio.wait({speaker, listener}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            listener.cancel()
            finished = speaker.done()
            speaker.cancel()
            outcome = (await asyncio.gather(speaker, listener, return_exceptions=True))[0]
        if finished and isinstance(outcome, Exception):
            raise outcome

    async def _speak(self, line: "_Line") -> None:
        pinger = asyncio.create_task(_ping(line, self._pacing))
        try:
            async with aclosing(self._events) as events:
                async for event in events:
                    await line.say(event)
        except ApiError as error:
            if not line.is_open:
                raise
            await line.say(sse.encode(openai_error(error)))
        except Exception:
            if not line.is_open:
                raise
            _log.exception("stream failed")
            await line.say(sse.encode(openai_error(Internal("The answer broke off on our side."))))
        finally:
            pinger.cancel()
        await line.close()


class _Line:
    """The response as it goes out. It opens with the first thing that is said."""

    def __init__(self, send: Send, headers: Mapping[str, str]) -> None:
        self._send = send
        self._headers = headers
        self._one_at_a_time = asyncio.Lock()
        self.is_open = False
        self.spoke_at = asyncio.get_running_loop().time()

    async def say(self, body: bytes) -> None:
        """Send bytes."""
        async with self._one_at_a_time:
            if not self.is_open:
                self.is_open = True
                headers = {**sse.HEADERS, **self._headers}
                raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
                await self._send({"type": "http.response.start", "status": 200, "headers": raw})
            self.spoke_at = asyncio.get_running_loop().time()
            await _send_body(self._send, body)

    async def close(self) -> None:
        """End the response."""
        if not self.is_open:
            await self.say(b"")
        await self._send({"type": "http.response.body", "body": b""})


async def _ping(line: _Line, pacing: Pacing) -> None:
    """A comment after each silence that lasts too long. Without pings an idle stream is not opened early either."""
    if not pacing.ping_s:
        return
    loop = asyncio.get_running_loop()
    while True:
        wait_s = line.spoke_at + (pacing.ping_s if line.is_open else pacing.hold_s) - loop.time()
        if wait_s <= 0:
            await line.say(sse.PING)
        else:
            await asyncio.sleep(wait_s)


async def _send_body(send: Any, body: bytes) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": True})


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
