"""Is it up, is it ready, how is it doing."""

import asyncio
from typing import Literal

from fastapi import APIRouter, Request
from starlette.responses import Response

from functions.chat.dependencies import PrincipalDep, ServicesDep, permit
from functions.chat.metrics import Metrics
from functions.chat.schemas import ERRORS, View

router = APIRouter(responses=ERRORS, tags=["Health"])


class SandboxView(View):
    """Which sandbox runs Python tools: ``none`` means that they fail. ``refused``: stronger ones, and why not those."""

    backend: str
    landlock_abi: int
    refused: dict[str, str]


class ReadinessView(View):
    """``missing`` names what is down: database, migrations, engine, workers. A missing sandbox is none of them."""

    status: Literal["ready", "unready"]
    missing: list[str]
    sandbox: SandboxView


@router.get("/healthz", summary="The process is up")
async def healthz() -> dict[str, str]:
    """Needs nothing but the process."""
    return {"status": "up"}


@router.get(
    "/readyz",
    summary="What it needs is up",
    responses={503: {"model": ReadinessView, "description": "Something is missing"}},
)
async def readyz(services: ServicesDep, response: Response) -> ReadinessView:
    """200 when database, migrations, engine and workers are up; 503 names what is missing."""
    own, neighbours, sandbox = await asyncio.gather(
        services.missing(), services.missing_neighbours(), services.sandbox.describe()
    )
    missing = [*own, *neighbours]
    if missing:
        response.status_code = 503
    return ReadinessView(status="unready" if missing else "ready", missing=missing, sandbox=SandboxView(**sandbox))


@router.get("/metrics", summary="Prometheus metrics", response_class=Response)
async def metrics(request: Request, services: ServicesDep, principal: PrincipalDep) -> Response:
    """Text format; takes an operator's key: the figures are of every tenant."""
    await permit(services, principal, "metrics.read")
    registry: Metrics = request.app.state.metrics
    return Response(registry.render(), media_type="text/plain; version=0.0.4")
