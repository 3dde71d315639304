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

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.fakes import server
from tests.fakes.server import FakeServer, Recorded, halves, words

__all__ = ["FakeOpenAI", "Recorded", "Reply"]


@dataclass(kw_only=True)
class Reply(server.Reply):
    """How the next request is answered, with what only OpenAI-compatible servers do."""

    extra_delta: dict[str, Any] = field(default_factory=dict)  # e.g. {"reasoning_content": "…"}
    without_call_ids: bool = False  # calls as some local servers send them: whole, no id, all with index 0


class FakeOpenAI(FakeServer):
    """The server."""

    reply_type = Reply
    base_path = "/v1"

    def __init__(self, *, models: tuple[str, ...] = ("gpt-4.1-mini", "gpt-4.1")) -> None:
        super().__init__()
        self.models = models

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Chat, embeddings, models."""
        router.add_post("/v1/chat/completions", self._chat)
        router.add_post("/v1/embeddings", self._embeddings)
        router.add_get("/v1/models", self._models)

    def whole(self, body: dict[str, Any], reply: Any) -> dict[str, Any]:
        """A chat completion, or a list of embeddings."""
        return _embedding_list(body, reply) if "input" in body else _completion(body, reply)

    def events(self, body: dict[str, Any], reply: Any) -> Iterator[tuple[bytes, bool]]:
        """The first chunk, of the role, is no content."""
        for number, chunk in enumerate(_chunks(body, reply)):
            yield _event(chunk), number > 0
        if not reply.omit_done:
            yield b"data: [DONE]\n\n", False

    def error_body(self, reply: Any) -> dict[str, Any]:
        """OpenAI's four keys."""
        default = {"message": f"fake failure {reply.status}", "type": "fake", "param": None, "code": None}
        return {"error": reply.body or default}

    def error_event(self, reply: Any) -> bytes:
        """As OpenAI and those like it send it."""
        return _event({"error": reply.body or {"message": "the model fell over", "code": 500}})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await self.record(request)
        return await self.answer(request, body, Reply(text=_last_user_text(body)))

    async def _embeddings(self, request: web.Request) -> web.StreamResponse:
        body = await self.record(request)
        return await self.answer(request, body, Reply())

    async def _models(self, request: web.Request) -> web.Response:
        data = [{"id": name, "object": "model", "created": 0, "owned_by": "fake"} for name in self.models]
        return web.json_response({"object": "list", "data": data})


def _last_user_text(body: dict[str, Any]) -> str:
    said = [message.get("content") for message in body["messages"] if message.get("role") == "user"]
    return f"You said: {said[-1]}" if said else "Nobody said anything."


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


def _embedding_list(body: dict[str, Any], reply: Reply) -> dict[str, Any]:
    """Two numbers per input: its length and its place."""
    asked = body["input"]
    inputs = asked if isinstance(asked, list) and not isinstance(asked[0], int) else [asked]
    data = [
        {"object": "embedding", "index": index, "embedding": [float(len(one)), float(index)]}
        for index, one in enumerate(inputs)
    ]
    tokens = sum(map(len, inputs))
    made = {"object": "list", "data": data, "model": body["model"]}
    return made if reply.omit_usage else made | {"usage": {"prompt_tokens": tokens, "total_tokens": tokens}}


def _chunks(body: dict[str, Any], reply: Reply) -> list[dict[str, Any]]:
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": "", "refusal": None}]
    deltas += [{name: value, "content": None} for name, value in reply.extra_delta.items()]
    deltas += [{"content": word} for word in words(reply.text)]
    deltas += _call_deltas(reply)
    chunks = [_chunk(body, [{"index": 0, "delta": delta, "finish_reason": None}]) for delta in deltas]
    chunks.append(_chunk(body, [{"index": 0, "delta": {}, "finish_reason": _finish_reason(reply)}]))
    if (body.get("stream_options") or {}).get("include_usage") and not reply.omit_usage:
        chunks = [chunk | {"usage": None} for chunk in chunks]
        chunks.append(_chunk(body, []) | {"usage": _usage(body, reply)})
    return chunks


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
            parts.append({"index": index, "function": {"arguments": halves(call["function"]["arguments"])[half]}})
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


if __name__ == "__main__":
    server.run(FakeOpenAI(), "A fake OpenAI-compatible server")
