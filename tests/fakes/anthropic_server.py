"""Anthropic for tests: a real HTTP server that speaks the Messages wire format and fails on command.

As :mod:`tests.fakes.openai_server`, in a test or as a process: ``python -m tests.fakes.anthropic_server --port 9101``.
It refuses what Anthropic refuses, as far as a request's shape is concerned: see ``fault_of``.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from aiohttp import web

from tests.fakes import server
from tests.fakes.server import FakeServer, halves, words

__all__ = ["FakeAnthropic", "Reply"]

_ERROR_TYPES: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_FIELDS: Final = frozenset(
    {
        "cache_control",
        "max_tokens",
        "messages",
        "metadata",
        "model",
        "output_config",
        "service_tier",
        "stop_sequences",
        "stream",
        "system",
        "temperature",
        "thinking",
        "tool_choice",
        "tools",
        "top_k",
        "top_p",
    }
)
_ID = re.compile(r"^[a-zA-Z0-9_-]+$")


@dataclass(kw_only=True)
class Reply(server.Reply):
    """How the next request is answered, with what only Anthropic does."""

    thinking: str = ""
    signature: str = "c2lnbmF0dXJl"
    redacted: str = ""  # the data of a redacted_thinking block
    stop_details: dict[str, Any] | None = None  # of a refusal
    delta_usage: dict[str, Any] = field(default_factory=dict)  # what message_delta says beside output_tokens
    error_type: str | None = None


class FakeAnthropic(FakeServer):
    """The server."""

    reply_type = Reply

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Messages."""
        router.add_post("/v1/messages", self._messages)

    def whole(self, body: dict[str, Any], reply: Any) -> dict[str, Any]:
        """A message."""
        ending = {"stop_reason": _stop_reason(reply), "stop_sequence": None, "stop_details": reply.stop_details}
        return _message(body, _content(reply), _usage(body, reply)) | ending

    def events(self, body: dict[str, Any], reply: Any) -> Iterator[tuple[bytes, bool]]:
        """Text and fragments of arguments are content."""
        usage = _usage(body, reply)
        begun = _message(body, [], usage and usage | {"output_tokens": 1}) | {
            "stop_reason": None,
            "stop_sequence": None,
        }
        yield _event("message_start", message=begun), False
        yield _event("ping"), False
        for index, block in enumerate(_content(reply)):
            start, deltas = _pieces(block)
            yield _event("content_block_start", index=index, content_block=start), False
            for delta in deltas:
                yield _event("content_block_delta", index=index, delta=delta), True
            yield _event("content_block_stop", index=index), False
        ending = {"stop_reason": _stop_reason(reply), "stop_sequence": None, "stop_details": reply.stop_details}
        spent = {"output_tokens": usage["output_tokens"], **reply.delta_usage} if usage else {}
        yield _event("message_delta", delta=ending, usage=spent), True
        if not reply.omit_done:
            yield _event("message_stop"), False

    def error_body(self, reply: Any) -> dict[str, Any]:
        """Anthropic's envelope."""
        kind = reply.error_type or _ERROR_TYPES.get(reply.status, "api_error")
        error = {"type": kind, "message": f"fake failure {reply.status}", **(reply.body or {})}
        return {"type": "error", "error": error, "request_id": "req_fake"}

    def error_event(self, reply: Any) -> bytes:
        """As an overloaded server sends it."""
        error = {"type": reply.error_type or "overloaded_error", "message": "Overloaded", **(reply.body or {})}
        return _event("error", error=error)

    async def _messages(self, request: web.Request) -> web.StreamResponse:
        body = await self.record(request)
        headers = self.requests[-1].headers
        if not headers.get("x-api-key") and not headers.get("authorization", "").startswith("Bearer "):
            return web.json_response(self.error_body(Reply(status=401)), status=401)
        fault = "anthropic-version: header is required" if "anthropic-version" not in headers else fault_of(body)
        if fault:
            return web.json_response(self.error_body(Reply(status=400, body={"message": fault})), status=400)
        return await self.answer(request, body, Reply(text=_last_user_text(body)))


def fault_of(body: dict[str, Any]) -> str | None:
    """What Anthropic would say is wrong with the shape of a request."""
    if unknown := sorted(set(body) - _FIELDS):
        return f"{unknown[0]}: Extra inputs are not permitted"
    if missing := [name for name in ("model", "max_tokens", "messages") if name not in body]:
        return f"{missing[0]}: Field required"
    if not body["messages"] or body["messages"][0]["role"] != "user":
        return "messages: first message must use the user role"
    if not 0 <= body.get("temperature", 1) <= 1:
        return "temperature: range: 0..1"
    return next(filter(None, (_turn_fault(body, index) for index in range(len(body["messages"])))), None)


def _turn_fault(body: dict[str, Any], index: int) -> str | None:
    turn, where = body["messages"][index], f"messages.{index}"
    blocks = _blocks(turn)
    if turn["role"] not in ("user", "assistant"):
        return f"{where}.role: Input should be 'user' or 'assistant'"
    if not blocks or any(block["type"] == "text" and not block["text"] for block in blocks):
        return f"{where}: text content blocks must be non-empty"
    results = [block for block in blocks if block["type"] == "tool_result"]
    asked = [b["id"] for b in _blocks(body["messages"][index - 1]) if b["type"] == "tool_use"] if index else []
    if sorted(result["tool_use_id"] for result in results) != sorted(asked) or blocks[: len(results)] != results:
        return f"{where}: `tool_use` ids were found without `tool_result` blocks immediately after"
    if any(not _ID.match(block["id"]) for block in blocks if block["type"] == "tool_use"):
        return f"{where}: tool_use.id: String should match pattern '^[a-zA-Z0-9_-]+$'"
    if any(block["type"] == "tool_use" for block in blocks) and not body.get("tools"):
        return "tools: Field required when tool_use blocks are present"
    return None


def _blocks(turn: dict[str, Any]) -> list[dict[str, Any]]:
    content = turn["content"]
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _last_user_text(body: dict[str, Any]) -> str:
    said = [block["text"] for turn in body["messages"] for block in _blocks(turn) if block["type"] == "text"]
    return f"You said: {said[-1]}" if said else "Nobody said anything."


def _content(reply: Reply) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = []
    if reply.thinking:
        blocks.append({"type": "thinking", "thinking": reply.thinking, "signature": reply.signature})
    if reply.redacted:
        blocks.append({"type": "redacted_thinking", "data": reply.redacted})
    if reply.text:
        blocks.append({"type": "text", "text": reply.text})
    for index, call in enumerate(reply.tool_calls):
        call_id = call.get("id", f"toolu_fake_{index}")
        blocks.append({"type": "tool_use", "id": call_id, "name": call["name"], "input": call.get("arguments", {})})
    return blocks


def _pieces(block: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The block as it starts, and its deltas. A call without arguments comes as one empty fragment."""
    if block["type"] == "text":
        return block | {"text": ""}, [{"type": "text_delta", "text": word} for word in words(block["text"])]
    if block["type"] == "tool_use":
        text = json.dumps(block["input"]) if block["input"] else ""
        fragments = ["", *halves(text)] if text else [""]
        return block | {"input": {}}, [{"type": "input_json_delta", "partial_json": one} for one in fragments]
    if block["type"] == "thinking":
        deltas = [{"type": "thinking_delta", "thinking": word} for word in words(block["thinking"])]
        deltas.append({"type": "signature_delta", "signature": block["signature"]})
        return block | {"thinking": "", "signature": ""}, deltas
    return block, []


def _stop_reason(reply: Reply) -> str:
    return reply.finish_reason or ("tool_use" if reply.tool_calls else "end_turn")


def _usage(body: dict[str, Any], reply: Reply) -> dict[str, Any]:
    if reply.omit_usage:
        return {}
    if reply.usage is not None:
        return {"input_tokens": 0, "output_tokens": 0, **reply.usage}
    prompt = sum(len(str(turn["content"]).split()) for turn in body["messages"])
    completion = len(reply.text.split()) + 5 * len(reply.tool_calls)
    return {
        "input_tokens": prompt,
        "output_tokens": completion,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "service_tier": "standard",
    }


def _message(body: dict[str, Any], content: list[dict[str, Any]], usage: dict[str, Any]) -> dict[str, Any]:
    made = {"id": "msg_fake", "type": "message", "role": "assistant", "model": body["model"], "content": content}
    return made | ({"usage": usage} if usage else {})


def _event(kind: str, **fields: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()


if __name__ == "__main__":
    server.run(FakeAnthropic(), "A fake Anthropic server")
