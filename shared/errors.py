"""Every error the platform reports: one table of codes, one exception type per meaning.

The code decides the HTTP status, the OpenAI ``type`` and whether a client should try again;
``shared/wire/error_body.py`` turns an :class:`ApiError` into a response body.

    ApiError
    ├── InvalidRequest · InvalidArgs · LimitExceeded · ContextLengthExceeded       400
    │   UnsupportedParameter
    ├── InvalidApiKey                                                              401
    ├── Unauthorized · ConfidentialDenied                                          403
    ├── NotFound · ModelNotFound                                                   404
    ├── MethodNotAllowed                                                           405
    ├── Conflict · IdempotencyConflict · IdempotencyInProgress · IllegalState      409
    ├── TooLarge                                                                   413
    ├── UnsupportedMediaType                                                       415
    ├── RateLimitExceeded · InsufficientQuota · CostLimitExceeded · Overloaded     429
    └── Internal · UpstreamError · Unavailable · LlmTimeout · ToolTimeout          500–504
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class ErrorDetail:
    """One fault of a request body: where it is (``messages.0.role``) and what is wrong."""

    path: str
    message: str


class ApiError(Exception):
    """A failure that a caller may see. ``message`` is safe to show and says what to do next."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal"
    type: ClassVar[str] = "server_error"

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        details: Sequence[ErrorDetail] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.details = tuple(details)
        self.headers = dict(headers or {})


class InvalidRequest(ApiError):
    """The body, path or query does not fit the endpoint."""

    status, code, type = 400, "invalid_request", "invalid_request_error"


class InvalidArgs(InvalidRequest):
    """A tool's arguments do not fit its schema."""

    code = "invalid_args"


class LimitExceeded(InvalidRequest):
    """A stated limit of the platform (steps, branches, sizes) would be passed."""

    code = "limit_exceeded"


class ContextLengthExceeded(InvalidRequest):
    """The messages do not fit the model's context window."""

    code = "context_length_exceeded"


class UnsupportedParameter(InvalidRequest):
    """The model behind a route cannot honour a parameter (``param``); another route's model may."""

    code = "unsupported_parameter"


class InvalidApiKey(ApiError):
    """No key, an unknown key or a revoked key."""

    status, code, type = 401, "invalid_api_key", "invalid_request_error"


class Unauthorized(ApiError):
    """Policy said no; the message names the rule."""

    status, code, type = 403, "unauthorized", "permission_error"


class ConfidentialDenied(Unauthorized):
    """The call is not allowed in a confidential flow."""

    code = "confidential_denied"


class NotFound(ApiError):
    """No such thing, or it belongs to another microDAO."""

    status, code, type = 404, "not_found", "invalid_request_error"


class ModelNotFound(NotFound):
    """``model`` names no blueprint, session or logical model the caller may use."""

    code = "model_not_found"


class MethodNotAllowed(ApiError):
    """The path exists, the method does not."""

    status, code, type = 405, "method_not_allowed", "invalid_request_error"


class Conflict(ApiError):
    """The thing exists already, or changed meanwhile."""

    status, code, type = 409, "conflict", "invalid_request_error"


class IdempotencyConflict(Conflict):
    """The idempotency key was used before with other arguments."""

    code = "idempotency_conflict"


class IdempotencyInProgress(Conflict):
    """A request with this idempotency key is still being answered; ``retry-after`` says when to ask again."""

    code = "idempotency_in_progress"


class IllegalState(Conflict):
    """The session or flow is not in a state that allows this."""

    code = "illegal_state"


class TooLarge(ApiError):
    """The body is larger than the endpoint takes."""

    status, code, type = 413, "too_large", "invalid_request_error"


class UnsupportedMediaType(ApiError):
    """The body is not JSON."""

    status, code, type = 415, "unsupported_media_type", "invalid_request_error"


class RateLimitExceeded(ApiError):
    """Too many requests or tokens; ``retry-after`` says when there is room."""

    status, code, type = 429, "rate_limit_exceeded", "rate_limit_error"


class InsufficientQuota(ApiError):
    """A budget is spent; waiting a moment does not help."""

    status, code, type = 429, "insufficient_quota", "insufficient_quota"


class CostLimitExceeded(InsufficientQuota):
    """A flow would cost more than it may."""

    code = "cost_limit_exceeded"


class Overloaded(ApiError):
    """No capacity within the deadline."""

    status, code, type = 429, "overloaded", "rate_limit_error"


class Internal(ApiError):
    """Our fault. The log has the cause under the request id."""


class UpstreamError(ApiError):
    """A model provider or tool server answered with a failure or with garbage."""

    status, code, type = 502, "upstream_error", "upstream_error"


class Unavailable(ApiError):
    """Something the call needs is down."""

    status, code, type = 503, "unavailable", "server_error"


class LlmTimeout(ApiError):
    """The model did not answer in time."""

    status, code, type = 504, "llm_timeout", "upstream_error"


class ToolTimeout(ApiError):
    """The tool did not answer in time."""

    status, code, type = 504, "tool_timeout", "upstream_error"


class SettingError(Exception):
    """A setting is missing or wrong; the message names the variable. Start-up ends with exit code 2."""
