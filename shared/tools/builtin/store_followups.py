"""SQL of follow-ups."""

from datetime import datetime
from typing import Any

from shared.db.database import Connection, Row, fetch_all, fetch_one

_COLUMNS = (
    "followup.id, followup.text, followup.due_at, followup.recipient, followup.state, followup.channel_id,"
    " project.name AS project, task.title AS task, followup.created_by, followup.created_at"
)
_FROM = (
    " FROM followup LEFT JOIN project ON project.id = followup.project_id LEFT JOIN task ON task.id = followup.task_id"
)


async def insert_followup(connection: Connection, row: dict[str, Any]) -> None:
    """Add a waiting follow-up."""
    await connection.execute(
        "INSERT INTO followup (id, microdao_id, text, due_at, recipient_kind, recipient, project_id, task_id,"
        " channel_id, confidential, created_by) VALUES (%(id)s, %(microdao_id)s, %(text)s, %(due_at)s,"
        " %(recipient_kind)s, %(recipient)s, %(project_id)s, %(task_id)s, %(channel_id)s, %(confidential)s,"
        " %(created_by)s)",
        row,
    )


async def list_followups(
    connection: Connection, *, state: str, recipient: str | None, due_before: datetime | None, limit: int
) -> list[Row]:
    """Those in a state, soonest due first, with the number of all that fit."""
    return await fetch_all(
        connection,
        f"SELECT {_COLUMNS}, count(*) OVER () AS total{_FROM} WHERE followup.state = %(state)s"
        " AND (%(recipient)s::text IS NULL OR recipient = %(recipient)s)"
        " AND (%(due_before)s::timestamptz IS NULL OR followup.due_at < %(due_before)s)"
        " ORDER BY followup.due_at, followup.id LIMIT %(limit)s",
        {"state": state, "recipient": recipient, "due_before": due_before, "limit": limit},
    )


async def cancel_followup(connection: Connection, followup_id: str) -> Row | None:
    """Cancel it if it waits; its text and its state afterwards. Waits for a sweep that is firing it."""
    await connection.execute(
        "UPDATE followup SET state = 'cancelled', ended_at = now() WHERE id = %s AND state = 'waiting'", (followup_id,)
    )
    return await fetch_one(connection, "SELECT id, text, state FROM followup WHERE id = %s", (followup_id,))


async def take_due(connection: Connection, limit: int) -> list[Row]:
    """Mark those that are due as fired, of every microDAO (system role), but for what a rival is firing."""
    return await fetch_all(
        connection,
        "UPDATE followup SET state = 'fired', ended_at = now() WHERE id = ANY(ARRAY("
        " SELECT id FROM followup WHERE state = 'waiting' AND due_at <= now() ORDER BY due_at LIMIT %s"
        " FOR UPDATE SKIP LOCKED)) RETURNING id, microdao_id, text, recipient_kind, recipient, channel_id,"
        " confidential, created_by",
        (limit,),
    )
