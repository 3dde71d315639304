"""Flows: start one, look at it."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from pydantic import ConfigDict

from functions.chat.bodies import JsonRoute
from functions.chat.dependencies import Cursor, PageLimit, PrincipalDep, ServicesDep, permit, within
from functions.chat.schemas import ERRORS, View
from shared.router.flow import FlowRequest

router = APIRouter(prefix="/internal/router/flows", route_class=JsonRoute, responses=ERRORS, tags=["Router"])


class StepView(View):
    """A step of a flow, in order."""

    model_config = ConfigDict(extra="allow")
    id: str
    type: str
    state: str
    attempts: int
    ms: int | None = None
    cost_microusd: int
    output: Any = None
    error: Any = None


class FlowView(View):
    """A flow with its steps and the states it went through."""

    model_config = ConfigDict(extra="allow")
    flow_id: str
    state: str
    mode: str
    steps: list[StepView]
    result: Any = None
    error: Any = None
    estimated_microusd: int
    cost_microusd: int
    transitions: list[str]


class FlowPage(View):
    """Newest first; pass ``next`` as ``before`` for the following page."""

    flows: list[FlowView]
    next: str | None


@router.post(
    "", status_code=202, summary="Start a flow", responses={200: {"model": FlowView, "description": "Waited for"}}
)
async def start_flow(
    body: FlowRequest,
    response: Response,
    services: ServicesDep,
    principal: PrincipalDep,
    wait: Annotated[float, Query(ge=0, le=60, description="Seconds to wait for the end")] = 0,
) -> FlowView:
    """Refused before it starts when a step names an unknown type, tool or model."""
    principal = within(principal, body.context.team_id or body.context.microdao_id)
    await permit(services, principal, "flow.run")
    view = await services.flows.start(principal, body)
    if wait:
        view = await services.flows.wait(principal.microdao_id, view["flow_id"], wait)
        response.status_code = 200
    return FlowView.model_validate(view)


@router.get("", summary="List flows")
async def list_flows(
    services: ServicesDep, principal: PrincipalDep, before: Cursor = None, limit: PageLimit = 50
) -> FlowPage:
    """Newest first."""
    await permit(services, principal, "flow.read")
    flows = [FlowView.model_validate(one) for one in await services.flows.list(principal.microdao_id, before, limit)]
    return FlowPage(flows=flows, next=flows[-1].flow_id if len(flows) == limit else None)


@router.get("/{flow_id}", summary="One flow")
async def get_flow(flow_id: str, services: ServicesDep, principal: PrincipalDep) -> FlowView:
    """Its state, steps, timings and costs."""
    await permit(services, principal, "flow.read", "Flow", flow_id)
    return FlowView.model_validate(await services.flows.get(principal.microdao_id, flow_id))
