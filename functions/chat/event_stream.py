"""A server-sent event response that waits for the first event before it says 200, and notices a client that leaves."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from fastapi import Response
from starlette.types import Receive, Scope, Send

from shared.errors import ApiError, Internal
from shared.observability import Log
from shared.wire import sse
from shared.wire.error_body import openai_error

PING_INTERVAL_S = 15.0
_log = Log("api")


class EventStream(Response):
    """Sends encoded events. An error before the first is an ordinary error response, a later one an error event."""

    def __init__(self, events: AsyncGenerator[bytes, None], headers: dict[str, str]) -> None:
        super().__init__(media_type=None)
        self._events = events
        self._extra_headers = headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the events end or the client is gone; either way the generator is closed."""
        speaker = asyncio.create_task(self._speak(send))
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

    async def _speak(self, send: Send) -> None:
        async with aclosing(self._events) as events:
            first = await anext(events)
            await self._start(send)
            await _send_body(send, first)
            pinger = asyncio.create_task(_ping(send))
            try:
                async for event in events:
                    await _send_body(send, event)
            except ApiError as error:
                await _send_body(send, sse.encode(openai_error(error)))
            except Exception:
                _log.exception("stream failed")
                await _send_body(send, sse.encode(openai_error(Internal("The answer broke off on our side."))))
            finally:
                pinger.cancel()
        await send({"type": "http.response.body", "body": b""})

    async def _start(self, send: Send) -> None:
        headers = {**sse.HEADERS, **self._extra_headers}
        raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": 200, "headers": raw})


async def _ping(send: Send) -> None:
    """Keeps load balancers, which cut an idle connection after a minute, from cutting a slow answer."""
    while True:
        await asyncio.sleep(PING_INTERVAL_S)
        await _send_body(send, sse.PING)


async def _send_body(send: Any, body: bytes) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": True})


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
