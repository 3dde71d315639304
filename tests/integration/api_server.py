"""The HTTP API in the test's own process and event loop, on a real port, over the session's database."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import uvicorn

from functions.chat.app import create_app
from shared.bootstrap import Services
from shared.settings import Settings


@dataclass(frozen=True)
class Api:
    """A running API and a key to it."""

    url: str
    services: Services
    key: str = ""

    async def for_member(self, microdao: str) -> "Api":
        """The same with a member's key of this tenant."""
        return replace(self, key=(await self.services.keys.create(microdao, ["member"], "test")).secret)


@asynccontextmanager
async def running_api(settings: Settings) -> AsyncIterator[Api]:
    """Serve until the end of the block."""
    services = Services(settings)
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(create_app(services), log_config=None, lifespan="off", timeout_graceful_shutdown=2)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server._serve([listener]))
    try:
        yield Api(f"http://127.0.0.1:{listener.getsockname()[1]}", services)
    finally:
        server.should_exit = True
        await serving
        await services.close()


@asynccontextmanager
async def running_agents(settings: Settings, openai_url: str, microdao: str) -> AsyncIterator[Api]:
    """Serve one microDAO whose agents ask the OpenAI-compatible server at ``openai_url``; with a member's key."""
    async with running_api(replace(settings, openai_api_key="sk-fake", openai_base_url=openai_url)) as running:
        await running.services.agents.seed(microdao)
        async with running.services.database.tenant(microdao) as connection:
            await connection.execute(
                'UPDATE blueprint_version SET definition = definition || \'{"model": "gpt-4.1-mini"}\''
            )
        yield await running.for_member(microdao)
