"""/openapi.json as it really is: FastAPI's automatic 422, which never occurs here, is taken out."""

import asyncio
from collections.abc import Callable
from typing import Any, Final

import orjson
from fastapi import FastAPI, Response
from fastapi.responses import HTMLResponse

from functions.chat.schemas import ErrorBody, OpenAiErrorBody

_PATH: Final = "/openapi.json"


def install_openapi(api: FastAPI, complete: Callable[[], None]) -> None:
    """Serve the document and its page in place of FastAPI's; ``complete`` brings all routes in.

    Made once, in a thread: it takes seconds of processor time, in which others want to be served.
    """
    making = asyncio.Lock()
    made: list[bytes] = []

    async def document() -> Response:
        async with making:
            if not made:
                made.append(orjson.dumps(await asyncio.to_thread(api.openapi)))
        return Response(made[0], media_type="application/json")

    async def page() -> HTMLResponse:
        from fastapi.openapi.docs import get_swagger_ui_html

        return get_swagger_ui_html(openapi_url=_PATH, title=api.title)

    def described() -> dict[str, Any]:
        if api.openapi_schema is None:
            complete()
            api.openapi_schema = _document(api)
        return api.openapi_schema

    api.openapi = described  # type: ignore[method-assign]
    api.add_api_route(_PATH, document, include_in_schema=False)
    api.add_api_route("/docs", page, include_in_schema=False)


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
