"""What the fake providers share: a real HTTP server that answers as told, misbehaves on command and remembers."""

import argparse
import asyncio
import json
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Self

from aiohttp import web

_MAX_WAIT_S = 20.0


@dataclass(kw_only=True)
class Reply:
    """How the next request is answered."""

    text: str = ""
    tool_calls: list[dict[str, Any]] = field(default_factory=list)  # {"name": …, "arguments": {…}, "id"?: …}
    finish_reason: str | None = None  # in the provider's own words
    usage: dict[str, Any] | None = None  # None: counted from the texts
    omit_usage: bool = False

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: Any = None  # the error object of a failure; a string is sent as it is
    raw: str | None = None  # recorded traffic: sent as it is, as an answer or as an event stream
    content_type: str | None = None  # of ``raw``, when it is to be a wrong one

    delay_s: float = 0.0  # before the first byte
    drop: bool = False  # cut the connection before any byte of an answer
    chunk_delay_s: float = 0.0
    close_after: int | None = None  # cut the connection after so many content chunks
    hang_after: int | None = None  # send nothing more after so many content chunks, until the client goes away
    malformed_after: int | None = None  # an event that is not JSON after so many content chunks
    error_after: int | None = None  # an error event after so many content chunks
    garbage: bool = False  # 200, and not JSON
    omit_done: bool = False


@dataclass
class Recorded:
    """One request that came in."""

    path: str
    headers: dict[str, str]
    body: Any


class FakeServer(ABC):
    """The server. An async context manager in a test's event loop. Replies are used up in order."""

    reply_type: ClassVar[type[Reply]] = Reply
    base_path: ClassVar[str] = ""

    def __init__(self) -> None:
        self.requests: list[Recorded] = []
        self.disconnects = 0
        self.base_url = ""
        self._replies: deque[Any] = deque()
        self._runner: web.AppRunner | None = None

    @abstractmethod
    def add_routes(self, router: web.UrlDispatcher) -> None:
        """The provider's own paths."""

    @abstractmethod
    def whole(self, body: dict[str, Any], reply: Any) -> dict[str, Any]:
        """An answer that is not streamed."""

    @abstractmethod
    def events(self, body: dict[str, Any], reply: Any) -> Iterator[tuple[bytes, bool]]:
        """The events of a streamed answer, each with whether it is content, which faults are counted by."""

    @abstractmethod
    def error_body(self, reply: Any) -> dict[str, Any]:
        """The body of a failure."""

    @abstractmethod
    def error_event(self, reply: Any) -> bytes:
        """A failure inside a stream."""

    def will(self, *replies: Reply) -> None:
        """Answer the next requests so."""
        self._replies.extend(replies)

    def reset(self) -> None:
        """Forget replies and requests."""
        self._replies.clear()
        self.requests.clear()
        self.disconnects = 0

    def hang_up(self) -> None:
        """Close the connections that clients keep for their next request."""
        assert self._runner is not None
        assert self._runner.server is not None
        for connection in self._runner.server.connections:
            connection.force_close()

    async def until_disconnected(self, count: int = 1) -> None:
        """Wait until so many clients went away in the middle of a stream."""
        async with asyncio.timeout(_MAX_WAIT_S):
            while self.disconnects < count:  # noqa: ASYNC110 - polled with a deadline
                await asyncio.sleep(0.01)

    async def start(self, port: int = 0) -> None:
        """Listen on 127.0.0.1."""
        self._runner = web.AppRunner(self.application(), access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", port)
        await site.start()
        self.base_url = f"http://127.0.0.1:{self._runner.addresses[0][1]}{self.base_path}"

    async def stop(self) -> None:
        """Close every connection."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def application(self) -> web.Application:
        """The routes."""
        application = web.Application(client_max_size=64_000_000)
        self.add_routes(application.router)
        application.router.add_post("/control", self._control)
        application.router.add_get("/control", self._told)
        return application

    async def record(self, request: web.Request) -> Any:
        """Remember a request; its body."""
        body = json.loads(await request.text())
        self.requests.append(Recorded(request.path, {k.lower(): v for k, v in request.headers.items()}, body))
        return body

    async def answer(self, request: web.Request, body: dict[str, Any], default: Reply) -> web.StreamResponse:
        """Answer as told, by default with ``default``."""
        reply = self._replies.popleft() if self._replies else default
        if reply.delay_s:
            await self._wait_or_notice(request, reply.delay_s)
        if reply.drop and request.transport is not None:
            request.transport.abort()
        if reply.status >= 300:
            return self._failure(reply)
        if reply.garbage:
            return web.Response(text="<html>a proxy's page</html>", content_type="application/json")
        if reply.raw is not None:
            kind = reply.content_type or ("text/event-stream" if body.get("stream") else "application/json")
            return web.Response(text=reply.raw, content_type=kind, headers=reply.headers)
        if body.get("stream"):
            return await self._stream(request, body, reply)
        return web.json_response(self.whole(body, reply), headers=reply.headers)

    def _failure(self, reply: Reply) -> web.Response:
        if isinstance(reply.body, str):
            return web.Response(status=reply.status, text=reply.body, headers=reply.headers)
        return web.json_response(self.error_body(reply), status=reply.status, headers=reply.headers)

    async def _wait_or_notice(self, request: web.Request, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while loop.time() < end:
            if request.transport is None or request.transport.is_closing():
                self.disconnects += 1
                raise ConnectionResetError
            await asyncio.sleep(0.01)

    async def _stream(self, request: web.Request, body: dict[str, Any], reply: Reply) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream", **reply.headers})
        await response.prepare(request)
        sent = 0
        for event, is_content in self.events(body, reply):
            if is_content and await self._misbehave(request, response, reply, sent):
                return response
            sent += is_content
            await response.write(event)
            if reply.chunk_delay_s:
                await asyncio.sleep(reply.chunk_delay_s)
        return response

    async def _misbehave(self, request: web.Request, response: web.StreamResponse, reply: Reply, sent: int) -> bool:
        """Whether the stream ends here, after ``sent`` content chunks."""
        if sent == reply.close_after and request.transport is not None:
            request.transport.abort()
            return True
        if sent == reply.hang_after:
            await self._wait_or_notice(request, _MAX_WAIT_S)
        if sent == reply.malformed_after:
            await response.write(b"data: {this is not json\n\n")
        if sent == reply.error_after:
            await response.write(self.error_event(reply))
            return True
        return False

    async def _control(self, request: web.Request) -> web.Response:
        command = await request.json()
        if command.get("reset"):
            self.reset()
        known = {one.name for one in fields(self.reply_type)}
        for reply in command.get("replies", []):
            if unknown := sorted(set(reply) - known):
                return web.json_response({"error": f"unknown fields: {', '.join(unknown)}"}, status=400)
            self.will(self.reply_type(**reply))
        return web.json_response({"waiting": len(self._replies)})

    async def _told(self, request: web.Request) -> web.Response:
        seen = [{"path": one.path, "headers": one.headers, "body": one.body} for one in self.requests]
        return web.json_response({"requests": seen, "disconnects": self.disconnects, "waiting": len(self._replies)})


def words(text: str) -> list[str]:
    """The text in pieces of one word."""
    parts = text.split(" ")
    return [word + (" " if index < len(parts) - 1 else "") for index, word in enumerate(parts)] if text else []


def halves(text: str) -> tuple[str, str]:
    """The text in two pieces."""
    middle = len(text) // 2
    return text[:middle], text[middle:]


async def _serve(fake: FakeServer, port: int) -> None:
    await fake.start(port)
    print(fake.base_url, flush=True)  # noqa: T201 - the parent process reads it
    try:
        await asyncio.Event().wait()
    finally:
        await fake.stop()


def run(fake: FakeServer, description: str) -> None:
    """Run as a process until interrupted."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--port", type=int, default=0, help="0 takes a free port; the base URL is printed")
    try:
        asyncio.run(_serve(fake, parser.parse_args().port))
    except KeyboardInterrupt:
        return
