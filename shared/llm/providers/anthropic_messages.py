"""OpenAI's messages as Anthropic's: one system prompt, then turns of user and assistant made of content blocks."""

import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

import orjson

from shared.errors import InvalidRequest, UnsupportedParameter
from shared.llm.providers.anthropic_media import media_block
from shared.wire.chat import ChatMessage, ContentPart, ToolCall

Block = dict[str, Any]
Turn = dict[str, Any]

_OPENING: Final[Turn] = {"role": "user", "content": [{"type": "text", "text": "(The conversation begins.)"}]}
"""The first turn must be a user's; a conversation that an assistant opens gets this one before it."""

_NOT_IN_AN_ID = re.compile(r"[^a-zA-Z0-9_-]")


def to_messages(messages: Sequence[ChatMessage]) -> tuple[list[Block], list[Turn]]:
    """The system blocks and the turns. Raises InvalidRequest or UnsupportedParameter that name the message at fault.

    System and developer messages become the system prompt wherever they stand. Neighbours of one role become one turn,
    so that the results of parallel calls stand together, as they must.
    """
    system: list[Block] = []
    turns: list[Turn] = []
    for index, message in enumerate(messages):
        where = f"messages.{index}"
        if message.role in ("system", "developer"):
            system += _content_blocks(message, where)
        elif message.role == "function":
            raise UnsupportedParameter("messages of role 'function' are not supported by this model", param=where)
        else:
            _append(turns, "assistant" if message.role == "assistant" else "user", _blocks(message, where))
    return system, _sound(turns)


def tool_use_id(call_id: str) -> str:
    """A call's id as Anthropic takes it (letters, digits, ``_`` and ``-``): other providers' ids hold more."""
    return _NOT_IN_AN_ID.sub("_", call_id) or "_"


def _append(turns: list[Turn], role: str, blocks: list[Block]) -> None:
    if not blocks:
        return
    if turns and turns[-1]["role"] == role:
        turns[-1]["content"] += blocks
    else:
        turns.append({"role": role, "content": blocks})


def _sound(turns: list[Turn]) -> list[Turn]:
    """What Anthropic demands of turns: a user first, tool results before all else, no space after the last prefill."""
    for turn in turns:
        if turn["role"] == "user":
            turn["content"].sort(key=lambda block: block["type"] != "tool_result")
    if not turns or turns[0]["role"] == "assistant":
        turns.insert(0, _OPENING)
    last = turns[-1]
    if last["role"] == "assistant" and last["content"][-1]["type"] == "text":
        last["content"][-1]["text"] = last["content"][-1]["text"].rstrip() or "…"
    return turns


def _blocks(message: ChatMessage, where: str) -> list[Block]:
    if message.role == "tool":
        return [_tool_result(message, where)]
    blocks = _content_blocks(message, where)
    if message.role == "assistant":
        return _thinking(message) + blocks + [_tool_use(call) for call in message.tool_calls or []]
    return blocks


def _thinking(message: ChatMessage) -> list[Block]:
    """The signed thinking of an earlier answer, which Anthropic wants back as it was given."""
    blocks = (message.model_extra or {}).get("thinking_blocks")
    if not isinstance(blocks, list):
        return []
    kinds = ("thinking", "redacted_thinking")
    return [block for block in blocks if isinstance(block, dict) and block.get("type") in kinds]


def _tool_use(call: ToolCall) -> Block:
    return {
        "type": "tool_use",
        "id": tool_use_id(call.id),
        "name": call.function.name,
        "input": _arguments(call.function.arguments),
    }


def _arguments(text: str) -> dict[str, Any]:
    """The arguments as an object. What some model wrote that is none is kept as text under a name of its own."""
    if not text.strip():
        return {}
    try:
        parsed = orjson.loads(text)
    except orjson.JSONDecodeError:
        parsed = None
    return parsed if isinstance(parsed, dict) else {"arguments": text}


def _tool_result(message: ChatMessage, where: str) -> Block:
    if not message.tool_call_id:
        raise InvalidRequest("a message of role 'tool' needs tool_call_id", param=f"{where}.tool_call_id")
    block: Block = {"type": "tool_result", "tool_use_id": tool_use_id(message.tool_call_id)}
    if content := _content_blocks(message, where):
        block["content"] = content
    if (message.model_extra or {}).get("is_error") is True:
        block["is_error"] = True
    return block


def _content_blocks(message: ChatMessage, where: str) -> list[Block]:
    if isinstance(message.content, str):
        return [{"type": "text", "text": message.content}] if message.content else []
    parts = enumerate(message.content or [])
    return [block for index, part in parts for block in _part_blocks(part, f"{where}.content.{index}")]


def _part_blocks(part: ContentPart, where: str) -> Iterator[Block]:
    """No block for an empty text, which Anthropic refuses. ``cache_control`` goes along where a caller sets it."""
    extra = part.model_extra or {}
    if part.type in ("text", "refusal"):
        text = part.text if part.type == "text" else extra.get("refusal")
        block: Block | None = {"type": "text", "text": text} if text else None
    else:
        block = media_block(part.type, extra, where)
    if block:
        yield block | ({"cache_control": extra["cache_control"]} if extra.get("cache_control") else {})
