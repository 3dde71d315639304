"""Somebody's server that takes webhooks: what came is kept, and the answers are as told."""

import asyncio
import hashlib
import hmac
import json
from dataclasses import dataclass
from typing import Any, Self

import aiohttp
from aiohttp import web

from shared.tools.model import ToolFailed, ToolUncertain


@dataclass(frozen=True)
class Received:
    """One request."""

    headers: dict[str, str]
    body: bytes

    @property
    def event(self) -> dict[str, Any]:
        """What it says."""
        return json.loads(self.body)

    def is_signed_with(self, secret: str) -> bool:
        """As the documentation tells receivers to check it."""
        parts = dict(part.split("=", 1) for part in self.headers["x-daarion-signature"].split(","))
        signed = f"{parts['t']}.".encode() + self.body
        return hmac.compare_digest(hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest(), parts["v1"])


class WebhookReceiver:
    """A real HTTP server. ``statuses`` are given one by one, then 200; it waits ``delay_s`` before each answer."""

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.statuses: list[int] = []
        self.delay_s = 0.0
        self.url = ""

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_post("/hook", self._take)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}/hook"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _take(self, request: web.Request) -> web.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.received.append(Received(headers, await request.read()))
        await asyncio.sleep(self.delay_s)
        return web.Response(status=self.statuses.pop(0) if self.statuses else 200)


class PlainPoster:
    """A way out that may reach this machine, where the platform's own may not."""

    async def post(self, microdao_id: str, url: str, headers: dict[str, str], body: bytes, deadline: float) -> int:
        """The status of the answer."""
        try:
            async with (
                asyncio.timeout_at(deadline),
                aiohttp.ClientSession() as client,
                client.post(url, data=body, headers=headers, allow_redirects=False) as answer,
            ):
                return answer.status
        except TimeoutError:
            raise ToolUncertain("did not answer in time") from None
        except aiohttp.ClientError:
            raise ToolFailed("cannot be reached", is_transient=True) from None
