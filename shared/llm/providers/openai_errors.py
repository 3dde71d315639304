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
from shared.llm.routing.retry import waiting_headers

_MESSAGE_LENGTH = 1000
_NO_RETRY = {"x-should-retry": "false"}
"""What is wrong is for the operator to mend: trying again, here or by the client, does not help."""

_CONTEXT_WORDS = (
    "context_length_exceeded",
    "maximum context length",
    "context window",
    "context size",
    "context limit",
    "prompt is too long",
)


def map_error(failure: UpstreamFailure, endpoint: Endpoint) -> ApiError:
    """The error to raise for a failed HTTP call."""
    return map_status(failure, error_object(failure.body), endpoint)


def map_status(failure: UpstreamFailure, error: Mapping[str, Any], endpoint: Endpoint) -> ApiError:
    """The same, with the error object in the body read already."""
    status, provider = failure.status, endpoint.provider
    if status in (401, 403):
        fault = f"{provider} refused the key it was given; check {endpoint.key_variable or 'its key'}"
        return UpstreamError(fault, headers=_NO_RETRY)
    if status == 402 or (status == 429 and error.get("code") == "insufficient_quota"):
        return out_of_credit(endpoint)
    if status == 429:
        wait = waiting_headers(failure.headers) or {"retry-after": "1"}
        return RateLimitExceeded(f"{provider} has too many requests at the moment", headers=wait)
    if status == 404:
        fault = f"{provider} does not know the model or the path that the route names"
        return UpstreamError(fault, headers=_NO_RETRY)
    if status in (408, 504):
        return LlmTimeout(f"{provider} did not answer in time")
    if status in (503, 529):
        wait = waiting_headers(failure.headers)
        return Unavailable(f"{provider} is overloaded or down (status {status})", headers=wait)
    if 400 <= status < 500:
        return refused(error, provider)
    return UpstreamError(f"{provider} failed with status {status}")


def map_event_error(error: Any, endpoint: Endpoint) -> ApiError:
    """The error to raise for ``data: {"error": …}`` inside a stream."""
    fields = error if isinstance(error, Mapping) else {"message": str(error)}
    if _is_about_context(fields):
        return refused(fields, endpoint.provider)
    if fields.get("code") in ("rate_limit_exceeded", 429, "429"):
        return RateLimitExceeded(
            f"{endpoint.provider} has too many requests at the moment", headers={"retry-after": "1"}
        )
    return UpstreamError(f"{endpoint.provider} reported a failure in its stream: {message(fields)}")


def out_of_credit(endpoint: Endpoint) -> Unavailable:
    """The operator's account is empty: no caller can mend it, and waiting does not help."""
    return Unavailable(f"the {endpoint.provider} account has no credit left", headers=_NO_RETRY)


def refused(error: Mapping[str, Any], provider: str) -> ApiError:
    """The provider found the request at fault, so ours is the caller's as well."""
    kind = ContextLengthExceeded if _is_about_context(error) else InvalidRequest
    param = error.get("param")
    return kind(f"{provider} refused the request: {message(error)}", param=param if isinstance(param, str) else None)


def error_object(body: bytes) -> Mapping[str, Any]:
    """The error in a body; empty when there is none."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    error = document.get("error", document) if isinstance(document, dict) else {}
    return error if isinstance(error, dict) else {"message": str(error)}


def message(error: Mapping[str, Any]) -> str:
    """The provider's own words, cut to a length."""
    return str(error.get("message") or "no reason given")[:_MESSAGE_LENGTH]


def _is_about_context(error: Mapping[str, Any]) -> bool:
    text = f"{error.get('code')} {error.get('message')}".lower()
    return any(word in text for word in _CONTEXT_WORDS)
