"""``send_notification``, and the inboxes that notifications lie in."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from shared.cloud.outbox import claim
from shared.db.database import Connection, Database, Row
from shared.errors import ApiError, NotFound, Unavailable
from shared.observability import Log
from shared.tools.arguments import check_text
from shared.tools.builtin import store_notifications
from shared.tools.builtin.notifying import NewNotification, notify
from shared.tools.builtin.recipients import find_recipient
from shared.tools.model import Invocation

if TYPE_CHECKING:
    from shared.memory.memory import Memory

_log = Log("notifications")


async def send_notification(connection: Connection, args: dict[str, Any], invocation: Invocation) -> object:
    """Put a notification into somebody's inbox; a channel's is also said in the channel. Raises ToolFailed."""
    recipient = await find_recipient(connection, args["to"])
    notification_id = await notify(
        connection,
        NewNotification(
            microdao_id=invocation.microdao_id,
            kind="message",
            recipient_kind=recipient.kind,
            recipient=recipient.id,
            title=args.get("title", "").strip(),
            text=args["text"].strip(),
            sent_by=invocation.agent_id,
            channel_id=recipient.channel_id,
            confidential=invocation.confidential,
        ),
    )
    return {"id": notification_id, "to": recipient.id}


class Notifications:
    """The inboxes of every microDAO; each call works in one."""

    def __init__(self, database: Database, memory: "Callable[[], Memory]") -> None:
        self._database = database
        self._memory = memory

    async def list(
        self, microdao_id: str, *, to: str | None, unread: bool | None, before: str | None, limit: int
    ) -> list[Row]:
        """Newest first, before notification ``before``; of one recipient, read or unread ones if asked."""
        for field, value in (("to", to), ("before", before)):
            check_text(value or "", field)
        async with self._database.tenant(microdao_id) as connection:
            return await store_notifications.list_notifications(
                connection, recipient=to, unread=unread, before=before, limit=limit
            )

    async def mark_read(self, microdao_id: str, notification_id: str) -> Row:
        """The notification, read now or before. Raises NotFound."""
        check_text(notification_id, "notification_id")
        async with self._database.tenant(microdao_id) as connection:
            row = await store_notifications.mark_read(connection, notification_id)
        if row is None:
            raise _missing(notification_id)
        return row

    async def mark_all_read(self, microdao_id: str, to: str, up_to: str | None) -> int:
        """Mark a recipient's as read, up to the one that was seen last if told; how many were unread."""
        for field, value in (("to", to), ("up_to", up_to)):
            check_text(value or "", field)
        async with self._database.tenant(microdao_id) as connection:
            return await store_notifications.mark_all_read(connection, to, up_to)

    async def say_in_channel(self, microdao_id: str, notification_id: str, job_id: str | None) -> None:
        """Say a notification in its channel, as the agent that sent it; a second delivery says nothing new.

        Raises NotFound for a notification that the microDAO does not have.
        """
        from shared.memory.channels import Message

        async with self._database.tenant(microdao_id) as connection:
            note = await store_notifications.find_notification(connection, notification_id)
        if note is None:
            raise _missing(notification_id)
        message = Message(
            text="\n".join(part for part in (note["title"], note["text"]) if part),
            author=note["sent_by"],
            id=note["id"],
            occurred_at=note["created_at"],
            context={"notification": note["kind"]},
        )
        try:
            await self._memory().channels.post(microdao_id, note["sent_by"], note["channel_id"], [message])
        except ApiError as error:
            if isinstance(error, Unavailable):
                raise
            # The agent is gone, say, and with it the memory that would hold the message: no later time is better.
            _log.warning("a notification was not said", notification_id=notification_id, code=error.code)
        if job_id is not None:
            async with self._database.tenant(microdao_id) as connection:
                await claim(connection, job_id)


def _missing(notification_id: str) -> NotFound:
    return NotFound(f"no notification {notification_id!r} in this microDAO", param="notification_id")
