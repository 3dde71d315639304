"""Clients of MCP servers on this machine, and calls in them."""

import asyncio
from collections.abc import Callable
from contextlib import asynccontextmanager

from shared.tools.web.addresses import Place, Reach
from shared.tools.web.client import WebClient
from shared.tools.web.mcp.client import McpClient
from shared.tools.web.mcp.kept import Bounds
from shared.tools.web.mcp.session import RemoteServer


@asynccontextmanager
async def client_of(*ports: int, bounds: Bounds | None = None):
    reach = Reach(private=frozenset(Place("127.0.0.1", port) for port in ports))
    client = McpClient(WebClient(reach), bounds)
    try:
        yield client
    finally:
        await client.close()


async def call(
    client: McpClient, url: str, tool: str = "add", *, tenant: str = "m:1", token: str = "", within_s=5.0, **args
):
    server = RemoteServer(tenant, url, {"authorization": f"Bearer {token}"} if token else {})
    deadline = asyncio.get_running_loop().time() + within_s
    args = args or ({"a": 1, "b": 2} if tool == "add" else {})
    return await client.call_tool(server, tool, args, idempotency_key=f"key-{tool}", deadline=deadline)


async def until(is_so: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not is_so():  # noqa: ASYNC110 - what is waited for lies with a server
            await asyncio.sleep(0.005)
