"""Answers that several areas share, as they appear in /openapi.json."""

import warnings
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict
from pydantic.warnings import UnsupportedFieldAttributeWarning

# Schemas are built when a route is first used, not at import: a cold start serves one route. FastAPI gives bodies
# metadata that pydantic calls unsupported and silences that at import, so it must be silenced when they are built, too.
warnings.filterwarnings("ignore", category=UnsupportedFieldAttributeWarning)


class Body(BaseModel):
    """A request body. Unknown fields are refused: a misspelt one must not pass in silence."""

    model_config = ConfigDict(extra="forbid", defer_build=True)


class View(BaseModel):
    """An answer."""

    model_config = ConfigDict(defer_build=True)


class ErrorFields(View):
    """What went wrong; ``code`` is stable, ``message`` is for people."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorDetailBody(View):
    """One fault of a body."""

    path: str
    message: str


class OpenAiErrorBody(View):
    """An error on ``/v1``."""

    error: ErrorFields


class ErrorBody(OpenAiErrorBody):
    """An error anywhere else."""

    request_id: str
    details: list[ErrorDetailBody] | None = None


_MEANINGS = {
    400: "The request is not valid",
    401: "No key, or one that is unknown or revoked",
    403: "Policy refused",
    404: "No such thing in this microDAO",
    409: "It exists already, or is in another state",
    413: "The body is too large",
    415: "The body is not JSON",
    429: "A rate limit or budget is spent",
    500: "A fault of ours",
    502: "A model provider failed",
    503: "Something the call needs is down",
    504: "No answer in time",
}


def _responses(model: type[View]) -> dict[int | str, dict[str, Any]]:
    """By reference: with ``model`` FastAPI would build a validator per status and route, a tenth of the cold start."""
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{model.__name__}"}}}
    return {status: {"description": meaning, "content": content} for status, meaning in _MEANINGS.items()}


OPENAI_ERRORS = _responses(OpenAiErrorBody)
ERRORS = _responses(ErrorBody)


class Accepted(View):
    """The change was made."""

    ok: bool = True


class AgentView(View):
    """An agent."""

    agent_id: str
    microdao_id: str
    name: str
    blueprint: str
    created_at: datetime
