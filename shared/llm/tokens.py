"""Token estimates, for calls whose provider reports none, and upper bounds, for what a call may come to.

No tokenizer: their files are a download of megabytes.
"""

from typing import Any

import orjson

from shared.wire.chat import ChatMessage, ChatRequest, ContentPart

_BYTES_PER_TOKEN = 4
"""English text has about four characters a token; Cyrillic about two, and twice the bytes per character."""

_LEAST_BYTES_PER_TOKEN = 2
_MOST_MESSAGE_FRAME_TOKENS = 16
"""For the role and the marks around a message."""
_MOST_IMAGE_TOKENS = 6_000
"""More than any provider counts for one image at its highest detail."""


def estimate_tokens(text: str) -> int:
    """About how many tokens a text is."""
    return -(-len(text.encode(errors="replace")) // _BYTES_PER_TOKEN)


def estimate_prompt_tokens(request: ChatRequest) -> int:
    """About how many tokens the messages and tools of a request are."""
    body: dict[str, Any] = request.model_dump(include={"messages", "tools"}, exclude_none=True)
    return -(-len(orjson.dumps(body)) // _BYTES_PER_TOKEN)


def most_prompt_tokens(request: ChatRequest) -> int:
    """An upper bound of the prompt's tokens: two bytes a token, an image at the most that one counts."""
    most = sum(_most_message_tokens(message) for message in request.messages)
    if request.tools:
        most += _most_tokens(orjson.dumps(request.model_dump(include={"tools"}, exclude_none=True)))
    if request.model_extra:
        most += _most_tokens(orjson.dumps(request.model_extra))
    return most


def most_text_tokens(texts: list[str] | list[list[int]]) -> int:
    """An upper bound of the tokens of texts; token ids are their own count."""
    return sum(_most_tokens(text.encode(errors="replace")) if isinstance(text, str) else len(text) for text in texts)


def _most_message_tokens(message: ChatMessage) -> int:
    most = _MOST_MESSAGE_FRAME_TOKENS
    if isinstance(message.content, str):
        most += _most_tokens(message.content.encode(errors="replace"))
    elif message.content:
        most += sum(_most_part_tokens(part) for part in message.content)
    if message.tool_calls or message.model_extra:
        most += _most_tokens(orjson.dumps(message.model_dump(exclude={"content"}, exclude_none=True)))
    return most


def _most_part_tokens(part: ContentPart) -> int:
    if part.type == "image_url":
        return _MOST_IMAGE_TOKENS
    return _most_tokens(orjson.dumps(part.model_dump(exclude_none=True)))


def _most_tokens(text: bytes) -> int:
    return -(-len(text) // _LEAST_BYTES_PER_TOKEN)
