"""/openapi.json: the same for all, made once, while others are served."""

import asyncio

import httpx

from functions.chat.app import create_app
from shared.bootstrap import Services


async def test_others_are_served_while_it_is_made(services: Services):
    app = create_app(services)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://chat", timeout=60) as client:
        await client.get("/internal/agents")  # brings all routes in
        asking = asyncio.gather(*(client.get("/openapi.json") for _ in range(3)))
        await asyncio.sleep(0)
        answered = 0
        while not asking.done():
            assert (await client.get("/healthz")).status_code == 200
            answered += 1
            await asyncio.sleep(0.001)
    first, *others = await asking
    assert first.status_code == 200
    assert "/v1/chat/completions" in first.json()["paths"]
    assert all(other.content == first.content for other in others)
    assert answered > 3


async def test_its_page_reads_it(services: Services):
    app = create_app(services)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://chat") as client:
        page = await client.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert "/openapi.json" in page.text
