"""What Anthropic's failures mean to our caller (platform.claude.com/docs/en/api/errors).

=======================================  ===============================================================
upstream                                 our error
=======================================  ===============================================================
400 ``invalid_request_error``            InvalidRequest with its message and the field that the message
                                         begins with; ContextLengthExceeded
400 that speaks of the credit balance    Unavailable: the operator's account is empty
413 ``request_too_large``                TooLarge
504 ``timeout_error``                    LlmTimeout
529 ``overloaded_error``                 Unavailable
any other status                         as for OpenAI (``openai_errors``)
=======================================  ===============================================================
"""

import re
from collections.abc import Mapping
from typing import Any

from shared.errors import ApiError, LlmTimeout, RateLimitExceeded, TooLarge, Unavailable, UpstreamError
from shared.llm.providers import openai_errors
from shared.llm.providers.base import Endpoint, UpstreamFailure

_FIELD = re.compile(r"([a-z_]+(?:\.[a-z_0-9]+)*): ")
_NO_CREDIT = "credit balance is too low"


def map_error(failure: UpstreamFailure, endpoint: Endpoint) -> ApiError:
    """The error to raise for a failed HTTP call."""
    error = _named_field(openai_errors.error_object(failure.body))
    if failure.status == 413:
        return TooLarge(f"{endpoint.provider} takes no request of this size")
    if failure.status == 400 and _NO_CREDIT in openai_errors.message(error):
        return openai_errors.out_of_credit(endpoint)
    return openai_errors.map_status(failure, error, endpoint)


def map_event_error(error: Any, endpoint: Endpoint) -> ApiError:
    """The error to raise for an ``error`` event inside a stream."""
    fields = _named_field(error if isinstance(error, Mapping) else {"message": str(error)})
    kind, provider = fields.get("type"), endpoint.provider
    if kind == "overloaded_error":
        return Unavailable(f"{provider} is overloaded")
    if kind == "rate_limit_error":
        return RateLimitExceeded(f"{provider} has too many requests at the moment", headers={"retry-after": "1"})
    if kind == "timeout_error":
        return LlmTimeout(f"{provider} did not answer in time")
    if kind == "invalid_request_error":
        return openai_errors.refused(fields, provider)
    return UpstreamError(f"{provider} reported a failure in its stream: {openai_errors.message(fields)}")


def _named_field(error: Mapping[str, Any]) -> dict[str, Any]:
    """The error with the field that its message begins with, as in ``max_tokens: 9 > 8, which is…``, as ``param``."""
    found = _FIELD.match(str(error.get("message") or ""))
    return {**error, "param": found[1]} if found else dict(error)
