"""What an OpenAI-compatible provider's failure means to our caller.

=================================  =====================================================================
upstream                           our error
=================================  =====================================================================
400, 413, 422 (and similar)        InvalidRequest with the provider's message; ContextLengthExceeded
401, 403                           UpstreamError: the operator's key was refused, which no caller can mend
402, 429 ``insufficient_quota``    Unavailable: the operator's account is empty
404                                UpstreamError: the route names a model that the provider does not have
408, 504                           LlmTimeout
429                                RateLimitExceeded with ``retry-after``
503, 529                           Unavailable
other                              UpstreamError
=================================  =====================================================================
"""

from collections.abc import Mapping
from typing import Any

import orjson

from shared.errors import (
    ApiError,
    ContextLengthExceeded,
    InvalidRequest,
    LlmTimeout,
    RateLimitExceeded,
    Unavailable,
    UpstreamError,
)
from shared.llm.providers.base import Endpoint, UpstreamFailure

_MESSAGE_LENGTH = 1000
_CONTEXT_WORDS = ("context_length_exceeded", "maximum context length", "context window", "context size")


def map_error(failure: UpstreamFailure, endpoint: Endpoint) -> ApiError:
    """The error to raise for a failed HTTP call."""
    error = _error_object(failure.body)
    status, provider = failure.status, endpoint.provider
    if status in (401, 403):
        return UpstreamError(f"{provider} refused the key it was given; check {endpoint.key_variable or 'its key'}")
    if status == 402 or (status == 429 and error.get("code") == "insufficient_quota"):
        return Unavailable(f"the {provider} account has no credit left", headers={"x-should-retry": "false"})
    if status == 429:
        wait = {"retry-after": _retry_after(failure.headers)}
        return RateLimitExceeded(f"{provider} has too many requests at the moment", headers=wait)
    if status == 404:
        return UpstreamError(f"{provider} does not know the model or the path that the route names")
    if status in (408, 504):
        return LlmTimeout(f"{provider} did not answer in time")
    if status in (503, 529):
        return Unavailable(f"{provider} is overloaded or down (status {status})")
    if 400 <= status < 500:
        return _refused(error, provider)
    return UpstreamError(f"{provider} failed with status {status}")


def map_event_error(error: Any, endpoint: Endpoint) -> ApiError:
    """The error to raise for ``data: {"error": …}`` inside a stream."""
    fields = error if isinstance(error, Mapping) else {"message": str(error)}
    if _is_about_context(fields):
        return _refused(fields, endpoint.provider)
    if fields.get("code") in ("rate_limit_exceeded", 429, "429"):
        return RateLimitExceeded(
            f"{endpoint.provider} has too many requests at the moment", headers={"retry-after": "1"}
        )
    return UpstreamError(f"{endpoint.provider} reported a failure in its stream: {_message(fields)}")


def _refused(error: Mapping[str, Any], provider: str) -> ApiError:
    kind = ContextLengthExceeded if _is_about_context(error) else InvalidRequest
    param = error.get("param")
    return kind(f"{provider} refused the request: {_message(error)}", param=param if isinstance(param, str) else None)


def _error_object(body: bytes) -> Mapping[str, Any]:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    error = document.get("error", document) if isinstance(document, dict) else {}
    return error if isinstance(error, dict) else {"message": str(error)}


def _message(error: Mapping[str, Any]) -> str:
    return str(error.get("message") or "no reason given")[:_MESSAGE_LENGTH]


def _is_about_context(error: Mapping[str, Any]) -> bool:
    text = f"{error.get('code')} {error.get('message')}".lower()
    return any(word in text for word in _CONTEXT_WORDS)


def _retry_after(headers: Mapping[str, str]) -> str:
    """Whole seconds, at least 1; an HTTP date or nonsense counts as 1."""
    try:
        return str(max(1, min(3600, round(float(headers.get("retry-after", "1"))))))
    except (ValueError, OverflowError):
        return "1"
