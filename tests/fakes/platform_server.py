"""The platform's services (GreenFood, energy, water): a real server that keeps orders and misbehaves as told."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Self

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

PRICES = {"soup": 120, "salad": 95, "bread": 30}


class PlatformServer:
    """An async context manager. Orders are kept by idempotency key, so that the same twice is one."""

    def __init__(self, token: str = "") -> None:
        self.orders: dict[str, dict[str, Any]] = {}
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.base_url = ""
        self._token = token
        self._faults: deque[str] = deque()
        self._runner: web.AppRunner | None = None

    def will(self, *faults: str) -> None:
        """Misbehave with the next requests, in order.

        ``drop``: do it, then cut the connection; ``slow``: do it, then answer after a minute; ``garbage``: do it and
        answer with what is no JSON; ``busy``: 503 with Retry-After; a number: that status; ``ok``: behave.
        """
        self._faults.extend(faults)

    async def __aenter__(self) -> Self:
        application = web.Application(middlewares=[self._misbehave])
        application.router.add_post("/greenfood/orders", self._order)
        application.router.add_get("/{kind:energy|water}/readings", self._readings)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.5)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.base_url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    @web.middleware
    async def _misbehave(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        self.requests.append((request.path_qs, {name.lower(): value for name, value in request.headers.items()}))
        fault = self._faults.popleft() if self._faults else "ok"
        if self._token and request.headers.get("authorization") != f"Bearer {self._token}":
            return web.json_response({"error": "who are you?"}, status=401)
        if fault == "busy":
            return web.json_response({"error": "busy"}, status=503, headers={"Retry-After": "1"})
        if fault.isdigit():
            return web.json_response({"error": f"told to answer {fault}"}, status=int(fault))
        answer = await handler(request)
        if fault == "drop":
            assert request.transport is not None
            request.transport.abort()
        elif fault == "slow":
            await asyncio.sleep(60)
        elif fault == "garbage":
            return web.Response(text="<html>", content_type="application/json")
        return answer

    async def _order(self, request: web.Request) -> web.Response:
        body = await request.json()
        unknown = [item["product"] for item in body["items"] if item["product"] not in PRICES]
        if unknown:
            return web.json_response({"error": f"no product {unknown[0]}"}, status=422)
        key = request.headers["idempotency-key"]
        total = sum(PRICES[item["product"]] * item["quantity"] for item in body["items"])
        owner = request.headers["x-daarion-microdao"]
        order = {"order_id": f"order-{len(self.orders) + 1}", "status": "accepted", "total": total, "microdao": owner}
        return web.json_response(self.orders.setdefault(key, order), status=201)

    async def _readings(self, request: web.Request) -> web.Response:
        unit = "kWh" if request.match_info["kind"] == "energy" else "m3"
        reading = {"meter_id": request.query.get("meter_id", "all"), "value": 12.5}
        period = {"from": request.query.get("from"), "to": request.query.get("to")}
        return web.json_response({"unit": unit, "readings": [reading], "total": 12.5, **period})
