"""The floor: Starlette and aiohttp passing bytes on, with no auth, limits, budget or ledger.

Run it as ``UPSTREAM=http://… uvicorn bench.gateway.passthrough:app``.
"""

import os
from collections.abc import AsyncIterator

import aiohttp
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

_sessions: list[aiohttp.ClientSession] = []


async def forward(request: Request) -> Response:
    """Post the body on and give the answer back."""
    if not _sessions:
        _sessions.append(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
    body = await request.body()
    headers = {"content-type": "application/json"}
    upstream = await _sessions[0].post(f"{os.environ['UPSTREAM']}/chat/completions", data=body, headers=headers)
    if upstream.content_type == "text/event-stream":
        return StreamingResponse(_pieces(upstream), media_type="text/event-stream")
    async with upstream:
        return Response(await upstream.read(), upstream.status, media_type=upstream.content_type)


async def _pieces(upstream: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    async with upstream:
        async for piece in upstream.content.iter_any():
            yield piece


app = Starlette(routes=[Route("/v1/chat/completions", forward, methods=["POST"])])
