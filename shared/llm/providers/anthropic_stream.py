"""Anthropic's streamed events as OpenAI's deltas.

Source: platform.claude.com/docs/en/build-with-claude/streaming. Events of kinds not known here are passed over, as that
page asks of clients.
"""

from dataclasses import dataclass, field
from typing import Any

import orjson

from shared.errors import UpstreamError
from shared.llm.providers.anthropic_answer import finish_reason, merged_counts, parse, refusal_text, usage
from shared.llm.providers.anthropic_errors import map_event_error
from shared.llm.providers.base import Delta, End, Endpoint
from shared.wire.chat import Usage


@dataclass(slots=True)
class _Block:
    """A content block under way. ``content`` is its start, to which its deltas add."""

    content: dict[str, Any]
    call: int | None = None
    fragments: list[str] = field(default_factory=list)


class AnthropicStreamReader:
    """Reads the events of one message."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.done = False
        self._endpoint = endpoint
        self._blocks: dict[int, _Block] = {}
        self._calls = 0
        self._stop_reason: str | None = None
        self._counts: dict[str, int] = {}
        self._has_news = False
        self._handlers = {
            "message_start": self._on_message_start,
            "content_block_start": self._on_block_start,
            "content_block_delta": self._on_block_delta,
            "content_block_stop": self._on_block_stop,
            "message_delta": self._on_message_delta,
            "message_stop": self._on_message_stop,
            "error": self._on_error,
        }

    def feed(self, event: bytes) -> list[Delta]:
        """The deltas in one event."""
        document = parse(event, self._endpoint)
        handle = self._handlers.get(str(document.get("type")))
        if handle is None:
            return []
        try:
            deltas = handle(document)
        except (KeyError, TypeError, AttributeError):
            raise UpstreamError(f"{self._endpoint.provider} sent an event that cannot be read") from None
        return [Delta(delta, usage=self._news()) for delta in deltas]

    def end(self) -> End:
        """How it ended; a stream without a stop reason broke off."""
        if self._stop_reason is None:
            raise UpstreamError(f"{self._endpoint.provider} broke off its answer")
        return End(finish_reason(self._stop_reason), usage(self._counts))

    def _news(self) -> Usage | None:
        """The usage so far, once after each report of it."""
        has_news, self._has_news = self._has_news, False
        return usage(self._counts) if has_news else None

    def _report(self, reported: Any) -> None:
        self._counts = merged_counts(self._counts, reported)
        self._has_news = True

    def _on_message_start(self, event: dict[str, Any]) -> list[dict[str, Any]]:
        self._report(event["message"].get("usage"))
        return []

    def _on_block_start(self, event: dict[str, Any]) -> list[dict[str, Any]]:
        content = event["content_block"]
        block = self._blocks[event["index"]] = _Block(dict(content))
        if content["type"] != "tool_use":
            return [{"content": content["text"]}] if content.get("text") else []
        block.call = self._calls
        self._calls += 1
        head = {"name": content["name"], "arguments": ""}
        return [{"tool_calls": [{"index": block.call, "id": content["id"], "type": "function", "function": head}]}]

    def _on_block_delta(self, event: dict[str, Any]) -> list[dict[str, Any]]:
        block, delta = self._blocks[event["index"]], event["delta"]
        if delta["type"] == "text_delta":
            return [{"content": delta["text"]}] if delta["text"] else []
        if delta["type"] == "input_json_delta":
            return self._arguments(block, delta["partial_json"])
        if delta["type"] == "thinking_delta":
            block.fragments.append(delta["thinking"])
            return [{"reasoning_content": delta["thinking"]}] if delta["thinking"] else []
        if delta["type"] == "signature_delta":
            block.content["signature"] = delta["signature"]
        return []

    def _on_block_stop(self, event: dict[str, Any]) -> list[dict[str, Any]]:
        block = self._blocks.pop(event["index"])
        kind = block.content["type"]
        if kind == "tool_use" and not block.fragments:
            return self._arguments(block, orjson.dumps(block.content.get("input") or {}).decode())
        if kind == "thinking":
            whole = block.content.get("thinking", "") + "".join(block.fragments)
            return [{"thinking_blocks": [block.content | {"thinking": whole}]}]
        return [{"thinking_blocks": [block.content]}] if kind == "redacted_thinking" else []

    def _arguments(self, block: _Block, piece: str) -> list[dict[str, Any]]:
        if not piece or block.call is None:
            return []
        block.fragments.append(piece)
        return [{"tool_calls": [{"index": block.call, "function": {"arguments": piece}}]}]

    def _on_message_delta(self, event: dict[str, Any]) -> list[dict[str, Any]]:
        self._report(event.get("usage"))
        self._stop_reason = event["delta"].get("stop_reason") or self._stop_reason
        refusal = refusal_text(event["delta"])
        return [{"refusal": refusal}] if refusal else []

    def _on_message_stop(self, event: dict[str, Any]) -> list[dict[str, Any]]:
        self.done = True
        return []

    def _on_error(self, event: dict[str, Any]) -> list[dict[str, Any]]:
        raise map_event_error(event.get("error"), self._endpoint)
