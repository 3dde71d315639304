"""SQL of notifications."""

from typing import Any

from shared.db.database import Connection, Row, fetch_all, fetch_one

_COLUMNS = (
    "id, microdao_id, kind, recipient_kind, recipient, title, text, sent_by, followup_id, channel_id, confidential,"
    " created_at, read_at"
)


async def insert_notification(connection: Connection, row: dict[str, Any], delivery_id: str, event: str) -> bool:
    """Add a notification, and its delivery if the microDAO has a webhook for the event; whether it has."""
    queued = await fetch_one(
        connection,
        "WITH note AS ("
        " INSERT INTO notification (id, microdao_id, kind, recipient_kind, recipient, title, text, sent_by,"
        "  followup_id, channel_id, confidential)"
        " VALUES (%(id)s, %(microdao_id)s, %(kind)s, %(recipient_kind)s, %(recipient)s, %(title)s, %(text)s,"
        "  %(sent_by)s, %(followup_id)s, %(channel_id)s, %(confidential)s) RETURNING id)"
        " INSERT INTO webhook_delivery (id, microdao_id, notification_id, event)"
        " SELECT %(delivery_id)s, webhook.microdao_id, note.id, %(event)s FROM note, webhook"
        " WHERE webhook.microdao_id = %(microdao_id)s AND %(event)s = ANY(webhook.events) RETURNING id",
        {**row, "delivery_id": delivery_id, "event": event},
    )
    return queued is not None


async def list_notifications(
    connection: Connection, *, recipient: str | None, unread: bool | None, before: str | None, limit: int
) -> list[Row]:
    """Newest first, from before notification ``before``."""
    return await fetch_all(
        connection,
        f"SELECT {_COLUMNS} FROM notification WHERE (%(recipient)s::text IS NULL OR recipient = %(recipient)s)"
        " AND (%(unread)s::boolean IS NULL OR (read_at IS NULL) = %(unread)s)"
        " AND (%(before)s::text IS NULL OR id < %(before)s) ORDER BY id DESC LIMIT %(limit)s",
        {"recipient": recipient, "unread": unread, "before": before, "limit": limit},
    )


async def find_notification(connection: Connection, notification_id: str) -> Row | None:
    """One notification."""
    return await fetch_one(connection, f"SELECT {_COLUMNS} FROM notification WHERE id = %s", (notification_id,))


async def mark_read(connection: Connection, notification_id: str) -> Row | None:
    """Note that it was read; when it was before stays."""
    return await fetch_one(
        connection,
        f"UPDATE notification SET read_at = coalesce(read_at, now()) WHERE id = %s RETURNING {_COLUMNS}",
        (notification_id,),
    )


async def mark_all_read(connection: Connection, recipient: str, up_to: str | None) -> int:
    """Note that a recipient's notifications were read, up to the one named; how many were unread."""
    cursor = await connection.execute(
        "UPDATE notification SET read_at = now() WHERE recipient = %(recipient)s AND read_at IS NULL"
        " AND (%(up_to)s::text IS NULL OR id <= %(up_to)s)",
        {"recipient": recipient, "up_to": up_to},
    )
    return cursor.rowcount
