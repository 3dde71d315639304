"""Anthropic's Messages API as an upstream.

Source of the format: platform.claude.com/docs/en/api/messages, and the types of the ``anthropic`` client library.
"""

from typing import Any, Final

from shared.llm.providers.anthropic_answer import from_upstream
from shared.llm.providers.anthropic_errors import map_error
from shared.llm.providers.anthropic_messages import to_messages
from shared.llm.providers.anthropic_parameters import to_parameters
from shared.llm.providers.anthropic_stream import AnthropicStreamReader
from shared.llm.providers.anthropic_tools import to_tools
from shared.llm.providers.base import Dialect, Endpoint, Quirks, UpstreamCall
from shared.wire.chat import ChatRequest

API_VERSION: Final = "2023-06-01"
"""The later 2026-10-21 differs, for what we send, only in that it refuses ``temperature``, ``top_p`` and ``top_k`` even
for the models that have them (platform.claude.com/docs/en/api/versioning)."""


def to_upstream(request: ChatRequest, model: str, endpoint: Endpoint, quirks: Quirks) -> UpstreamCall:
    """The request as Anthropic takes it. Raises UnsupportedParameter for what it cannot express."""
    system, messages = to_messages(request.messages)
    body: dict[str, Any] = {"model": model, "messages": messages}
    body |= to_parameters(request, model, quirks.max_tokens)
    body |= to_tools(request)
    system += body.pop("system", [])
    if system:
        body["system"] = system
    if request.stream:
        body["stream"] = True
    headers = {
        "content-type": "application/json",
        "anthropic-version": API_VERSION,
        "x-api-key": endpoint.api_key,
    }
    base_url = endpoint.base_url.rstrip("/").removesuffix("/v1")
    return UpstreamCall(url=f"{base_url}/v1/messages", headers=headers, body=body)


DIALECT: Final = Dialect(
    to_upstream=to_upstream,
    from_upstream=from_upstream,
    stream_from_upstream=AnthropicStreamReader,
    map_error=map_error,
)
