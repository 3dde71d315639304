"""Which routes there are, one module an area.

A cold start answers one request, most often OpenAI's: the other areas are imported when they are first asked for, which
halves what our own code adds to it.
"""

from collections.abc import MutableMapping
from importlib import import_module
from typing import Any, Final

from fastapi import APIRouter, FastAPI

from functions.chat import routes_health, routes_openai
from functions.chat.model_route import ModelRoute

_FIRST: Final = (routes_openai, routes_health)
_FIRST_PATHS: Final = ("/v1/", "/healthz", "/readyz")
_LATER: Final = (
    "routes_llm",
    "routes_memory",
    "routes_documents",
    "routes_channels",
    "routes_sharing",
    "routes_retention",
    "routes_memory_items",
    "routes_snapshots",
    "routes_analytics",
    "routes_tools",
    "routes_tool_imports",  # before the next: it has paths that the next takes for ids
    "routes_tools_admin",
    "routes_secrets",
    "routes_notifications",
    "routes_webhooks",
    "routes_tool_search",
    "routes_policy",
    "routes_policies",
    "routes_agents",
    "routes_router",
    "routes_admin",
    "routes_limits",
    "routes_experiments",
    "routes_reindex",
    "routes_tool_usage",  # last: one of its paths takes any name
)


class Areas:
    """ASGI middleware that completes the API before the first request that is not for the first areas.

    What calls a model goes straight to its route.
    """

    def __init__(self, api: FastAPI) -> None:
        self._api = api
        self._is_complete = False
        self._model_routes: dict[str, ModelRoute] = {}
        for area in _FIRST:
            self._include(area.router)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        """The ASGI entry point."""
        if scope["type"] == "http" and not scope["path"].startswith(_FIRST_PATHS):
            self.complete()
        route = self._model_routes.get(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        if route is None:
            await self._api(scope, receive, send)
            return
        scope["app"], scope["route"] = self._api, route
        await route.answer(scope, receive, send)

    def complete(self) -> None:
        """Import and include the areas that are not yet there."""
        if not self._is_complete:
            self._is_complete = True
            for name in _LATER:
                self._include(import_module(f"functions.chat.{name}").router)

    def _include(self, router: APIRouter) -> None:
        self._api.include_router(router)
        found = [route for route in router.routes if isinstance(route, ModelRoute) and route.calls_model]
        self._model_routes |= {route.path: route for route in found}
