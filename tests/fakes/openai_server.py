"""A model provider for tests: a real HTTP server that speaks OpenAI's wire format and fails on command.

In a test::

    async with FakeOpenAI() as fake:
        fake.will(Reply(text="hello"), Reply(status=500))
        ... Settings(openai_base_url=fake.base_url, openai_api_key="sk-fake") ...
        assert fake.requests[0].body["model"] == "gpt-4.1-mini"

As a process: ``python -m tests.fakes.openai_server --port 9100``. ``POST /control`` takes
``{"replies": [{"text": "hello"}, …], "reset": true}`` with the fields of :class:`Reply`; ``GET /control`` tells what
came in.

Replies are used up in order; when none is left the server repeats what the user said last.
"""

import argparse
import asyncio
import json
from collections import deque
from dataclasses import dataclass, field, fields
from typing import Any

from aiohttp import web

_MAX_WAIT_S = 20.0


@dataclass(kw_only=True)
class Reply:
    """How the next request is answered."""

    text: str = ""
    tool_calls: list[dict[str, Any]] = field(default_factory=list)  # {"name": …, "arguments": {…}, "id"?: …}
    finish_reason: str | None = None
    usage: dict[str, Any] | None = None  # None: counted from the texts
    omit_usage: bool = False
    extra_delta: dict[str, Any] = field(default_factory=dict)  # e.g. {"reasoning_content": "…"}

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: Any = None  # of an error; a string is sent as it is

    delay_s: float = 0.0  # before the first byte
    chunk_delay_s: float = 0.0
    close_after: int | None = None  # cut the connection after so many content chunks
    hang_after: int | None = None  # send nothing more after so many content chunks, until the client goes away
    malformed_after: int | None = None  # an event that is not JSON after so many content chunks
    error_after: int | None = None  # an error event after so many content chunks
    garbage: bool = False  # 200, and not JSON
    omit_done: bool = False
    without_call_ids: bool = False  # calls as some local servers send them: whole, no id, all with index 0


@dataclass
class Recorded:
    """One request that came in."""

    path: str
    headers: dict[str, str]
    body: Any


class FakeOpenAI:
    """The server. An async context manager in a test's event loop."""

    def __init__(self, *, models: tuple[str, ...] = ("gpt-4.1-mini", "gpt-4.1")) -> None:
        self.requests: list[Recorded] = []
        self.disconnects = 0
        self.models = models
        self.base_url = ""
        self._replies: deque[Reply] = deque()
        self._runner: web.AppRunner | None = None

    def will(self, *replies: Reply) -> None:
        """Answer the next requests so."""
        self._replies.extend(replies)

    def reset(self) -> None:
        """Forget replies and requests."""
        self._replies.clear()
        self.requests.clear()
        self.disconnects = 0

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
        self.base_url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1"

    async def stop(self) -> None:
        """Close every connection."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def __aenter__(self) -> "FakeOpenAI":
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def application(self) -> web.Application:
        """The routes."""
        application = web.Application(client_max_size=64_000_000)
        application.router.add_post("/v1/chat/completions", self._chat)
        application.router.add_post("/v1/embeddings", self._embeddings)
        application.router.add_get("/v1/models", self._models)
        application.router.add_post("/control", self._control)
        application.router.add_get("/control", self._told)
        return application

    async def _record(self, request: web.Request) -> Any:
        body = json.loads(await request.text())
        self.requests.append(Recorded(request.path, {k.lower(): v for k, v in request.headers.items()}, body))
        return body

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await self._record(request)
        reply = self._replies.popleft() if self._replies else Reply(text=_last_user_text(body))
        if reply.delay_s:
            await self._wait_or_notice(request, reply.delay_s)
        if reply.status >= 300:
            return _failure(reply)
        if reply.garbage:
            return web.Response(text="<html>a proxy's page</html>", content_type="application/json")
        if body.get("stream"):
            return await self._stream(request, body, reply)
        return web.json_response(_completion(body, reply), headers=reply.headers)

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
        for number, chunk in enumerate(_chunks(body, reply)):
            if await self._misbehave(request, response, reply, number):
                return response
            await response.write(_event(chunk))
            if reply.chunk_delay_s:
                await asyncio.sleep(reply.chunk_delay_s)
        if not reply.omit_done:
            await response.write(b"data: [DONE]\n\n")
        return response

    async def _misbehave(self, request: web.Request, response: web.StreamResponse, reply: Reply, number: int) -> bool:
        """Whether the stream ends here. Chunk 0 is the role, so content chunk n has number n."""
        if number - 1 == reply.close_after and request.transport is not None:
            request.transport.abort()
            return True
        if number - 1 == reply.hang_after:
            await self._wait_or_notice(request, _MAX_WAIT_S)
        if number - 1 == reply.malformed_after:
            await response.write(b"data: {this is not json\n\n")
        if number - 1 == reply.error_after:
            await response.write(_event({"error": reply.body or {"message": "the model fell over", "code": 500}}))
            return True
        return False

    async def _embeddings(self, request: web.Request) -> web.Response:
        body = await self._record(request)
        texts = body["input"] if isinstance(body["input"], list) else [body["input"]]
        data = [
            {"object": "embedding", "index": index, "embedding": [float(len(text)), float(index)]}
            for index, text in enumerate(texts)
        ]
        usage = {"prompt_tokens": sum(map(len, texts)), "total_tokens": sum(map(len, texts))}
        return web.json_response({"object": "list", "data": data, "model": body["model"], "usage": usage})

    async def _models(self, request: web.Request) -> web.Response:
        data = [{"id": name, "object": "model", "created": 0, "owned_by": "fake"} for name in self.models]
        return web.json_response({"object": "list", "data": data})

    async def _control(self, request: web.Request) -> web.Response:
        command = await request.json()
        if command.get("reset"):
            self.reset()
        known = {one.name for one in fields(Reply)}
        for reply in command.get("replies", []):
            if unknown := sorted(set(reply) - known):
                return web.json_response({"error": f"unknown fields: {', '.join(unknown)}"}, status=400)
            self.will(Reply(**reply))
        return web.json_response({"waiting": len(self._replies)})

    async def _told(self, request: web.Request) -> web.Response:
        seen = [{"path": one.path, "headers": one.headers, "body": one.body} for one in self.requests]
        return web.json_response({"requests": seen, "disconnects": self.disconnects, "waiting": len(self._replies)})


def _last_user_text(body: dict[str, Any]) -> str:
    said = [message.get("content") for message in body["messages"] if message.get("role") == "user"]
    return f"You said: {said[-1]}" if said else "Nobody said anything."


def _failure(reply: Reply) -> web.Response:
    if isinstance(reply.body, str):
        return web.Response(status=reply.status, text=reply.body, headers=reply.headers)
    error = reply.body or {"message": f"fake failure {reply.status}", "type": "fake", "param": None, "code": None}
    return web.json_response({"error": error}, status=reply.status, headers=reply.headers)


def _calls(reply: Reply) -> list[dict[str, Any]]:
    return [
        {
            "id": call.get("id", f"call_fake_{index}"),
            "type": "function",
            "function": {"name": call["name"], "arguments": json.dumps(call.get("arguments", {}))},
        }
        for index, call in enumerate(reply.tool_calls)
    ]


def _finish_reason(reply: Reply) -> str:
    return reply.finish_reason or ("tool_calls" if reply.tool_calls else "stop")


def _usage(body: dict[str, Any], reply: Reply) -> dict[str, Any]:
    if reply.usage is not None:
        return reply.usage
    prompt = sum(len(str(message.get("content") or "").split()) for message in body["messages"])
    completion = len(reply.text.split()) + 5 * len(reply.tool_calls)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _completion(body: dict[str, Any], reply: Reply) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": reply.text or None, "refusal": None, **reply.extra_delta}
    if reply.tool_calls:
        message["tool_calls"] = _calls(reply)
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _finish_reason(reply)}
    made = {
        "id": "chatcmpl-fake",
        "object": "chat.completion",
        "created": 1,
        "model": body["model"],
        "choices": [choice],
    }
    return made if reply.omit_usage else made | {"usage": _usage(body, reply)}


def _chunks(body: dict[str, Any], reply: Reply) -> list[dict[str, Any]]:
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": "", "refusal": None}]
    deltas += [{name: value, "content": None} for name, value in reply.extra_delta.items()]
    deltas += [{"content": word} for word in _words(reply.text)]
    deltas += _call_deltas(reply)
    chunks = [_chunk(body, [{"index": 0, "delta": delta, "finish_reason": None}]) for delta in deltas]
    chunks.append(_chunk(body, [{"index": 0, "delta": {}, "finish_reason": _finish_reason(reply)}]))
    if (body.get("stream_options") or {}).get("include_usage") and not reply.omit_usage:
        chunks = [chunk | {"usage": None} for chunk in chunks]
        chunks.append(_chunk(body, []) | {"usage": _usage(body, reply)})
    return chunks


def _words(text: str) -> list[str]:
    words = text.split(" ")
    return [word + (" " if index < len(words) - 1 else "") for index, word in enumerate(words)] if text else []


def _call_deltas(reply: Reply) -> list[dict[str, Any]]:
    """Heads of all calls first, then their arguments by turns, as OpenAI sends parallel calls."""
    calls = _calls(reply)
    if reply.without_call_ids:
        return [{"tool_calls": [{"index": 0, "function": call["function"]}]} for call in calls]
    parts = [
        call | {"index": index, "function": {"name": call["function"]["name"], "arguments": ""}}
        for index, call in enumerate(calls)
    ]
    for half in (0, 1):
        for index, call in enumerate(calls):
            arguments = call["function"]["arguments"]
            middle = len(arguments) // 2
            piece = arguments[middle:] if half else arguments[:middle]
            parts.append({"index": index, "function": {"arguments": piece}})
    return [{"tool_calls": [part]} for part in parts]


def _chunk(body: dict[str, Any], choices: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "id": "chatcmpl-fake",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": body["model"],
        "choices": choices,
    }


def _event(data: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(data).encode() + b"\n\n"


async def _serve(port: int) -> None:
    fake = FakeOpenAI()
    await fake.start(port)
    print(fake.base_url, flush=True)  # noqa: T201 - the parent process reads it
    try:
        await asyncio.Event().wait()
    finally:
        await fake.stop()


def main() -> None:
    """Run until interrupted."""
    parser = argparse.ArgumentParser(description="A fake OpenAI-compatible server")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free port; the base URL is printed")
    try:
        asyncio.run(_serve(parser.parse_args().port))
    except KeyboardInterrupt:
        return


if __name__ == "__main__":
    main()
