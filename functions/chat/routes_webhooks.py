"""The microDAO's webhook, and what was delivered to it."""

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import Field

from functions.chat.bodies import JsonRoute
from functions.chat.dependencies import Cursor, PageLimit, PrincipalDep, ServicesDep, permit, within
from functions.chat.schemas import ERRORS, Accepted, Body, View
from shared.bootstrap import Services
from shared.policy.principal import Principal
from shared.tools.builtin.webhooks import ALL_EVENTS

router = APIRouter(prefix="/admin/webhooks", route_class=JsonRoute, responses=ERRORS, tags=["Webhooks"])
Event = Literal["notification.sent", "followup.due"]
TenantQuery = Annotated[str | None, Query(max_length=200)]


class WebhookBody(Body):
    """Where to, and what of. Without ``secret`` the one there is stays, or a new one is made."""

    url: Annotated[str, Field(min_length=1, max_length=2000)]
    events: Annotated[list[Event], Field(min_length=1, max_length=10)] | None = None
    secret: Annotated[str, Field(min_length=16, max_length=200, pattern=r"^[!-~]+$")] | None = None
    microdao_id: Annotated[str, Field(min_length=1, max_length=200)] | None = None


class WebhookView(View):
    """The webhook. Its secret is not told again."""

    url: str
    events: list[Event]
    created_at: datetime
    updated_at: datetime


class NewWebhookView(WebhookView):
    """The webhook as it was set; ``secret`` is told this once, if it is new."""

    secret: str | None


class DeliveryView(View):
    """A notification on its way. ``status`` and ``failure`` tell how the latest attempt ended."""

    id: str
    event: Event
    notification_id: str
    state: Literal["waiting", "delivered", "dead"]
    attempts: int
    status: int | None
    failure: str | None
    created_at: datetime
    ended_at: datetime | None


class DeliveryPage(View):
    """Newest first; pass ``next`` as ``before`` for the following page."""

    deliveries: list[DeliveryView]
    next: str | None


@router.get("", summary="The webhook")
async def get_webhook(services: ServicesDep, principal: PrincipalDep, microdao_id: TenantQuery = None) -> WebhookView:
    """A microDAO has one or none."""
    tenant = await _permitted(services, principal, "webhook.read", microdao_id)
    return WebhookView.model_validate(await services.webhooks.get(tenant))


@router.put("", summary="Set the webhook")
async def put_webhook(body: WebhookBody, services: ServicesDep, principal: PrincipalDep) -> NewWebhookView:
    """It is told what happens from now on."""
    tenant = await _permitted(services, principal, "webhook.write", body.microdao_id)
    row, secret = await services.webhooks.put(tenant, body.url, body.events or ALL_EVENTS, body.secret)
    return NewWebhookView(**row, secret=secret)


@router.delete("", summary="Remove the webhook")
async def delete_webhook(services: ServicesDep, principal: PrincipalDep, microdao_id: TenantQuery = None) -> Accepted:
    """What waits for it is given up."""
    await services.webhooks.delete(await _permitted(services, principal, "webhook.write", microdao_id))
    return Accepted()


@router.get("/deliveries", summary="What was delivered")
async def list_deliveries(
    services: ServicesDep,
    principal: PrincipalDep,
    state: Literal["waiting", "delivered", "dead"] | None = None,
    microdao_id: TenantQuery = None,
    before: Cursor = None,
    limit: PageLimit = 50,
) -> DeliveryPage:
    """Newest first."""
    tenant = await _permitted(services, principal, "webhook.read", microdao_id)
    rows = await services.webhooks.deliveries(tenant, state=state, before=before, limit=limit)
    views = [DeliveryView.model_validate(row) for row in rows]
    return DeliveryPage(deliveries=views, next=views[-1].id if len(views) == limit else None)


@router.post("/deliveries/{delivery_id}/retry", summary="Deliver again")
async def retry_delivery(
    delivery_id: str, services: ServicesDep, principal: PrincipalDep, microdao_id: TenantQuery = None
) -> Accepted:
    """One that is dead, with all its attempts."""
    tenant = await _permitted(services, principal, "webhook.write", microdao_id)
    await services.webhooks.deliver_again(tenant, delivery_id)
    return Accepted()


async def _permitted(
    services: Services, principal: Principal, action: Literal["webhook.read", "webhook.write"], microdao_id: str | None
) -> str:
    """The microDAO to work in."""
    principal = within(principal, microdao_id)
    await permit(services, principal, action)
    return principal.microdao_id
