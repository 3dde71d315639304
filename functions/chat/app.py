"""The chat function: one ASGI app with the whole HTTP API."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI

from functions.chat.areas import Areas
from functions.chat.error_responses import install_error_handlers
from functions.chat.front_door import FrontDoor
from functions.chat.metrics import Metrics
from functions.chat.openapi import install_openapi
from shared.bootstrap import Services, open_services


def create_app(services: Services) -> FrontDoor:
    """The API over these services, behind its front door."""
    api = create_api(services)
    return FrontDoor(
        api.state.areas,
        metrics=api.state.metrics,
        authenticate=lambda secret: services.keys.authenticate(secret),
        max_body_bytes=services.settings.max_body_bytes,
    )


def create_api(services: Services) -> FastAPI:
    """The routes alone."""
    api = FastAPI(
        title="DAARION",
        version="0.1.0",
        description="A serverless platform for AI agents. `/v1` speaks OpenAI's protocol.",
        lifespan=_lifespan,
        openapi_url=None,
    )
    api.state.services = services
    api.state.metrics = Metrics()
    install_error_handlers(api)
    api.state.areas = Areas(api)
    install_openapi(api, api.state.areas.complete)
    return api


@asynccontextmanager
async def _lifespan(api: FastAPI) -> AsyncIterator[None]:
    if not api.state.services.settings.inline_outbox:  # a server that stays does not make its first callers wait
        api.state.areas.complete()
    # The first start builds the embedding model; nobody should wait for that in the first conversation.
    preparing = asyncio.create_task(api.state.services.memory.prepare())
    yield
    preparing.cancel()
    await api.state.services.close()


def __getattr__(name: str) -> Any:
    """``app`` is made when a server asks for it, so that importing this module reads no settings."""
    if name == "app":
        globals()["app"] = create_app(open_services())
        return globals()["app"]
    raise AttributeError(name)
