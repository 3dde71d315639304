"""Inboxes: what agents, people and channels were notified of."""

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import Field

from functions.chat.bodies import JsonRoute
from functions.chat.dependencies import Cursor, PageLimit, PrincipalDep, ServicesDep, permit, within
from functions.chat.schemas import ERRORS, Body, View

router = APIRouter(prefix="/internal/notifications", route_class=JsonRoute, responses=ERRORS, tags=["Notifications"])
Identifier = Annotated[str, Field(min_length=1, max_length=200)]
TenantQuery = Annotated[str | None, Query(max_length=200)]


class NotificationView(View):
    """What somebody is told. ``to`` is an agent's id, ``user:…`` or ``channel:…``; ``read_at`` null is unread."""

    id: str
    kind: Literal["message", "followup"]
    to: str = Field(validation_alias="recipient")
    title: str
    text: str
    sent_by: str
    followup_id: str | None
    channel_id: str | None
    confidential: bool
    created_at: datetime
    read_at: datetime | None


class NotificationPage(View):
    """Newest first; pass ``next`` as ``before`` for the following page."""

    notifications: list[NotificationView]
    next: str | None


class ReadBody(Body):
    """Whose; ``up_to`` is the newest one that was seen, so that what has come since stays unread."""

    to: Identifier
    up_to: Identifier | None = None
    microdao_id: Identifier | None = None


class ReadView(View):
    """How many were unread."""

    read: int


@router.get("", summary="List notifications")
async def list_notifications(
    services: ServicesDep,
    principal: PrincipalDep,
    to: Cursor = None,
    unread: bool | None = None,
    microdao_id: TenantQuery = None,
    before: Cursor = None,
    limit: PageLimit = 50,
) -> NotificationPage:
    """Of one recipient, or of all; ``unread`` true or false keeps to those."""
    principal = within(principal, microdao_id)
    await permit(services, principal, "notification.read")
    rows = await services.notifications.list(principal.microdao_id, to=to, unread=unread, before=before, limit=limit)
    views = [NotificationView.model_validate(row) for row in rows]
    return NotificationPage(notifications=views, next=views[-1].id if len(views) == limit else None)


@router.post("/read_all", summary="Mark a recipient's notifications as read")
async def read_all(body: ReadBody, services: ServicesDep, principal: PrincipalDep) -> ReadView:
    """All of them, or those up to one."""
    principal = within(principal, body.microdao_id)
    await permit(services, principal, "notification.write")
    return ReadView(read=await services.notifications.mark_all_read(principal.microdao_id, body.to, body.up_to))


@router.post("/{notification_id}/read", summary="Mark a notification as read")
async def read_one(
    notification_id: str, services: ServicesDep, principal: PrincipalDep, microdao_id: TenantQuery = None
) -> NotificationView:
    """Again is harmless: the first time stays."""
    principal = within(principal, microdao_id)
    await permit(services, principal, "notification.write")
    row = await services.notifications.mark_read(principal.microdao_id, notification_id)
    return NotificationView.model_validate(row)
