"""Anthropic's whole answer as OpenAI's, and the parts that a streamed one shares with it."""

from collections.abc import Mapping
from typing import Any, Final

import orjson

from shared.errors import UpstreamError
from shared.llm.providers.base import Answer, Endpoint
from shared.wire.chat import Usage, new_usage

_FINISH_REASONS: Final = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",  # of Anthropic's own server tools, which are never offered
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
_COUNTS: Final = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")


def from_upstream(body: bytes, endpoint: Endpoint) -> Answer:
    """The answer. Raises UpstreamError when it is not a message."""
    document = parse(body, endpoint)
    blocks = document.get("content")
    if document.get("type") != "message" or not isinstance(blocks, list):
        raise UpstreamError(f"{endpoint.provider} sent an answer that is not a message")
    try:
        message = _message(blocks)
    except (KeyError, TypeError, AttributeError):
        raise UpstreamError(f"{endpoint.provider} sent an answer that cannot be read") from None
    if refusal := refusal_text(document):
        message["refusal"] = refusal
    return Answer(
        message=message,
        finish_reason=finish_reason(document.get("stop_reason")),
        usage=usage(merged_counts({}, document.get("usage"))),
    )


def parse(body: bytes, endpoint: Endpoint) -> dict[str, Any]:
    """A JSON object. Raises UpstreamError."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        document = None
    if not isinstance(document, dict):
        raise UpstreamError(f"{endpoint.provider} sent an answer that is not JSON")
    return document


def finish_reason(stop_reason: Any) -> str:
    """OpenAI's word for why it ended; ``stop`` for a reason that is not known yet."""
    return _FINISH_REASONS.get(stop_reason, "stop") if isinstance(stop_reason, str) else "stop"


def refusal_text(ending: Mapping[str, Any]) -> str | None:
    """What the provider says of its refusal, in a message or in the delta that ends one."""
    details = ending.get("stop_details")
    text = details.get("explanation") if isinstance(details, dict) else None
    return text if isinstance(text, str) and ending.get("stop_reason") == "refusal" else None


def merged_counts(known: Mapping[str, int], reported: Any) -> dict[str, int]:
    """The counts known so far with those of one more report: counts are cumulative, so a later explicit one wins.

    An explicit 0 is a count; a missing field or null is not.
    """
    if not isinstance(reported, Mapping):
        return dict(known)
    found = {name: reported.get(name) for name in _COUNTS}
    found["thinking_tokens"] = _inside(reported, "output_tokens_details", "thinking_tokens")
    found["cache_creation_1h"] = _inside(reported, "cache_creation", "ephemeral_1h_input_tokens")
    return {**known, **{name: max(0, count) for name, count in found.items() if isinstance(count, int)}}


def usage(counts: Mapping[str, int]) -> Usage | None:
    """OpenAI's usage. Anthropic's ``input_tokens`` leaves cached tokens out; ``prompt_tokens`` holds them all."""
    if "input_tokens" not in counts and "output_tokens" not in counts:
        return None
    plain, completion = counts.get("input_tokens", 0), counts.get("output_tokens", 0)
    read, created = counts.get("cache_read_input_tokens", 0), counts.get("cache_creation_input_tokens", 0)
    return new_usage(
        plain + read + created,
        completion,
        cached=read,
        reasoning=min(counts.get("thinking_tokens", 0), completion),
        cache_creation=created,
        cache_creation_1h=min(counts.get("cache_creation_1h", 0), created),
    )


def _inside(reported: Mapping[str, Any], group: str, name: str) -> Any:
    details = reported.get(group)
    return details.get(name) if isinstance(details, Mapping) else None


def _message(blocks: list[dict[str, Any]]) -> dict[str, Any]:
    text = "".join(block["text"] for block in blocks if block["type"] == "text")
    message: dict[str, Any] = {"content": text or None}
    thoughts = [block for block in blocks if block["type"] in ("thinking", "redacted_thinking")]
    if reasoning := "".join(block.get("thinking", "") for block in thoughts):
        message["reasoning_content"] = reasoning
    if thoughts:
        message["thinking_blocks"] = thoughts
    if calls := [_call(block) for block in blocks if block["type"] == "tool_use"]:
        message["tool_calls"] = calls
    return message


def _call(block: dict[str, Any]) -> dict[str, Any]:
    arguments = orjson.dumps(block.get("input") or {}).decode()
    return {"id": block["id"], "type": "function", "function": {"name": block["name"], "arguments": arguments}}
