"""A stream's bytes on their way out: what is said at one go leaves in one piece, and a slow client is waited for."""

import asyncio
from collections.abc import AsyncGenerator, MutableMapping
from typing import Any

import pytest

from functions.chat.event_stream import EventStream, Pacing
from shared.errors import UpstreamError

Message = MutableMapping[str, Any]
QUIET = Pacing(ping_s=0)


class Client:
    """Receives a response. It stays until it is told to leave, and reads only while ``reads`` is set."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.reads = asyncio.Event()
        self.reads.set()
        self.leaves = asyncio.Event()
        self.heard = asyncio.Event()

    async def send(self, message: Message) -> None:
        await self.reads.wait()
        self.messages.append(message)
        if message["type"] == "http.response.body":
            self.heard.set()

    async def receive(self) -> Message:
        await self.leaves.wait()
        return {"type": "http.disconnect"}

    @property
    def bodies(self) -> list[bytes]:
        return [message["body"] for message in self.messages if message["type"] == "http.response.body"]


async def said(*events: bytes) -> AsyncGenerator[bytes, None]:
    for event in events:
        yield event


async def test_what_is_said_at_one_go_leaves_in_one_piece():
    client, headers = Client(), {"x-made": "here"}
    await EventStream(said(b"a", b"b", b"c"), headers, QUIET)({}, client.receive, client.send)
    assert (client.messages[0]["status"], client.bodies) == (200, [b"abc", b""])
    assert (b"x-made", b"here") in client.messages[0]["headers"]


async def test_what_is_said_after_a_pause_does_not_wait_for_it():
    client, goes_on = Client(), asyncio.Event()

    async def events() -> AsyncGenerator[bytes, None]:
        yield b"a"
        await goes_on.wait()
        yield b"b"

    answering = asyncio.create_task(EventStream(events(), {}, QUIET)({}, client.receive, client.send))
    async with asyncio.timeout(5):
        await client.heard.wait()
        goes_on.set()
        await answering
    assert client.bodies == [b"a", b"b", b""]


async def test_a_slow_client_is_waited_for():
    client, given = Client(), []

    async def events() -> AsyncGenerator[bytes, None]:
        for number in range(1000):
            given.append(number)
            yield b"x" * 1000

    client.reads.clear()
    answering = asyncio.create_task(EventStream(events(), {}, QUIET)({}, client.receive, client.send))
    for _ in range(2000):
        await asyncio.sleep(0)
    assert 60 < len(given) < 140
    client.reads.set()
    await answering
    assert sum(map(len, client.bodies)) == 1_000_000


async def test_an_error_before_the_first_event_is_raised_and_one_after_it_is_an_event():
    async def events(*before: bytes) -> AsyncGenerator[bytes, None]:
        for event in before:
            yield event
        raise UpstreamError("the provider fell over")

    early, late = Client(), Client()
    with pytest.raises(UpstreamError):
        await EventStream(events(), {}, QUIET)({}, early.receive, early.send)
    assert early.messages == []
    await EventStream(events(b"a"), {}, QUIET)({}, late.receive, late.send)
    assert late.messages[0]["status"] == 200
    assert b"".join(late.bodies).startswith(b'adata: {"error":{"message":"the provider fell over"')


async def test_events_that_end_by_being_cancelled_end_the_stream():
    async def events() -> AsyncGenerator[bytes, None]:
        yield b"a"
        raise asyncio.CancelledError

    client = Client()
    with pytest.raises(asyncio.CancelledError):
        async with asyncio.timeout(5):
            await EventStream(events(), {}, QUIET)({}, client.receive, client.send)


async def test_a_client_that_leaves_ends_what_makes_the_events():
    client, ended = Client(), asyncio.Event()

    async def events() -> AsyncGenerator[bytes, None]:
        try:
            yield b"a"
            await asyncio.sleep(3600)
        finally:
            ended.set()

    answering = asyncio.create_task(EventStream(events(), {}, QUIET)({}, client.receive, client.send))
    async with asyncio.timeout(5):
        await client.heard.wait()
        client.leaves.set()
        await answering
    assert ended.is_set()


async def test_silence_is_filled_with_comments():
    client = Client()

    async def events() -> AsyncGenerator[bytes, None]:
        await asyncio.sleep(0.2)
        yield b"a"

    await EventStream(events(), {}, Pacing(hold_s=0.02, ping_s=0.03))({}, client.receive, client.send)
    whole = b"".join(client.bodies)
    assert whole.count(b": ping\n\n") >= 2
    assert whole.endswith(b"a")
