"""What OpenAI's chat completions and embeddings have in common on the wire."""

from collections.abc import Mapping
from typing import Any

import orjson

from shared.errors import UpstreamError
from shared.llm.providers.base import Endpoint, UpstreamCall
from shared.wire.chat import Usage, new_usage


def upstream_call(path: str, body: dict[str, Any], endpoint: Endpoint) -> UpstreamCall:
    """The call of a path below the base URL."""
    headers = {"content-type": "application/json"}
    if endpoint.api_key:
        headers["authorization"] = f"Bearer {endpoint.api_key}"
    return UpstreamCall(url=f"{endpoint.base_url.rstrip('/')}/{path}", headers=headers, body=body)


def parse(body: bytes, endpoint: Endpoint) -> dict[str, Any]:
    """A JSON object. Raises UpstreamError."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        document = None
    if not isinstance(document, dict):
        raise UpstreamError(f"{endpoint.provider} sent an answer that is not JSON")
    return document


def read_usage(document: Any) -> Usage | None:
    """The usage record; ``prompt_cache_hit_tokens`` is DeepSeek's name for cached tokens."""
    if not isinstance(document, Mapping) or not isinstance(document.get("prompt_tokens"), int):
        return None
    prompt = _count(document, "prompt_tokens")
    completion = _count(document, "completion_tokens")
    cached = _count(document.get("prompt_tokens_details"), "cached_tokens")
    cached = cached or _count(document, "prompt_cache_hit_tokens")
    reasoning = _count(document.get("completion_tokens_details"), "reasoning_tokens")
    return new_usage(prompt, completion, cached=min(cached, prompt), reasoning=min(reasoning, completion))


def _count(document: Any, name: str) -> int:
    value = document.get(name) if isinstance(document, Mapping) else None
    return max(0, value) if isinstance(value, int) else 0
