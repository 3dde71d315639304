"""Error bodies: OpenAI's four keys on ``/v1``, the same plus request id and details everywhere else."""

from typing import Any

from shared.errors import ApiError


def openai_error(error: ApiError) -> dict[str, Any]:
    """``{"error": {"message", "type", "param", "code"}}``: all four keys, always (openai-openapi, schema Error)."""
    return {"error": {"message": error.message, "type": error.type, "param": error.param, "code": error.code}}


def platform_error(error: ApiError, request_id: str) -> dict[str, Any]:
    """OpenAI's error with ``request_id`` beside it and, for a bad body, ``details``."""
    body = openai_error(error) | {"request_id": request_id}
    if error.details:
        body["details"] = [{"path": detail.path, "message": detail.message} for detail in error.details]
    return body
