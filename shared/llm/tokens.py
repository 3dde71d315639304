"""Token estimates for calls whose provider reports none. No tokenizer: their files are a download of megabytes."""

from typing import Any

import orjson

from shared.wire.chat import ChatRequest

_BYTES_PER_TOKEN = 4
"""English text has about four characters a token; Cyrillic about two, and twice the bytes per character."""


def estimate_tokens(text: str) -> int:
    """About how many tokens a text is."""
    return -(-len(text.encode(errors="replace")) // _BYTES_PER_TOKEN)


def estimate_prompt_tokens(request: ChatRequest) -> int:
    """About how many tokens the messages and tools of a request are."""
    body: dict[str, Any] = request.model_dump(include={"messages", "tools"}, exclude_none=True)
    return -(-len(orjson.dumps(body)) // _BYTES_PER_TOKEN)
