"""Writing a notification: its row, and the jobs that carry it to a channel and to the microDAO's webhook."""

from dataclasses import asdict, dataclass
from typing import Literal

from shared.cloud.outbox import enqueue
from shared.db.database import Connection
from shared.ids import new_id
from shared.tools.builtin import store_notifications
from shared.tools.builtin.recipients import RecipientKind

QUEUE = "tool"
EVENTS = {"message": "notification.sent", "followup": "followup.due"}
"""What webhooks are told, by the notification's kind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewNotification:
    """What to tell whom. With ``channel_id`` it is also said there; of a ``confidential`` one no word leaves."""

    microdao_id: str
    kind: Literal["message", "followup"]
    recipient_kind: RecipientKind
    recipient: str
    title: str
    text: str
    sent_by: str
    followup_id: str | None = None
    channel_id: str | None = None
    confidential: bool = False


async def notify(connection: Connection, note: NewNotification) -> str:
    """Write it in the caller's transaction; its id. The jobs leave when the outbox hears of the commit."""
    row = {**asdict(note), "id": new_id("note")}
    delivery_id = new_id("whd")
    if await store_notifications.insert_notification(connection, row, delivery_id, EVENTS[note.kind]):
        await enqueue(connection, note.microdao_id, QUEUE, {"delivery_id": delivery_id})
    if note.channel_id is not None:
        await enqueue(connection, note.microdao_id, QUEUE, {"notification_id": row["id"]})
    return str(row["id"])
