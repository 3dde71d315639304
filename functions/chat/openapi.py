"""/openapi.json as it really is: FastAPI's automatic 422, which never occurs here, is taken out."""

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI

from functions.chat.schemas import ErrorBody, OpenAiErrorBody


def install_openapi(api: FastAPI, complete: Callable[[], None]) -> None:
    """Replace FastAPI's generator with one that tells the truth about errors; ``complete`` brings all routes in."""

    def document() -> dict[str, Any]:
        if api.openapi_schema is None:
            complete()
            api.openapi_schema = _document(api)
        return api.openapi_schema

    api.openapi = document  # type: ignore[method-assign]


def _document(api: FastAPI) -> dict[str, Any]:
    from fastapi.openapi.utils import get_openapi

    schema = get_openapi(title=api.title, version=api.version, description=api.description, routes=api.routes)
    for operations in schema["paths"].values():
        for operation in operations.values():
            operation["responses"].pop("422", None)
    components = schema["components"]["schemas"]
    for name in ("HTTPValidationError", "ValidationError"):
        components.pop(name, None)
    components.update(_error_components())
    return schema


def _error_components() -> dict[str, Any]:
    """The error bodies that responses refer to by name."""
    from pydantic.json_schema import models_json_schema

    models: Any = [(ErrorBody, "serialization"), (OpenAiErrorBody, "serialization")]
    _, document = models_json_schema(models, ref_template="#/components/schemas/{model}")
    components: dict[str, Any] = document["$defs"]
    return components
