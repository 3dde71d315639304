"""``followup.create``, ``followups.list``, ``followup.cancel``, and the sweep that fires what is due.

A follow-up fires in one transaction: its state, the notification, and the jobs that carry it further. Whoever dies
midway leaves it waiting, and of two sweeps the second passes over what the first holds.
"""

from typing import Any

from shared.clock import rfc3339, utc_now
from shared.cloud.outbox import Outbox
from shared.db.database import Connection, Database, Row
from shared.ids import new_id
from shared.tools.builtin import store_followups
from shared.tools.builtin.moments import check_ahead, parse_moment
from shared.tools.builtin.notifying import NewNotification, notify
from shared.tools.builtin.projects import find_project
from shared.tools.builtin.recipients import find_recipient
from shared.tools.builtin.tasks import find_task
from shared.tools.model import Invocation, ToolFailed

_DEFAULT_LIMIT = 50
_BATCH = 50
_MOST_BATCHES = 40
"""What is left is fired by the next sweep, a minute later."""


async def create_followup(connection: Connection, args: dict[str, Any], invocation: Invocation) -> object:
    """Keep a reminder for whom it names, the calling agent itself unless told. Raises ToolFailed."""
    now = utc_now()
    due_at = check_ahead(parse_moment(args["due"], args.get("time_zone"), now), now)
    recipient = await find_recipient(connection, args.get("to", invocation.agent_id))
    row = {
        "id": new_id("fup"),
        "microdao_id": invocation.microdao_id,
        "text": args["text"].strip(),
        "due_at": due_at,
        "recipient_kind": recipient.kind,
        "recipient": recipient.id,
        "project_id": (await find_project(connection, args["project"]))["id"] if "project" in args else None,
        "task_id": (await find_task(connection, args["task"]))["id"] if "task" in args else None,
        "channel_id": args.get("channel", "").strip().removeprefix("channel:") or recipient.channel_id,
        "confidential": invocation.confidential,
        "created_by": invocation.agent_id,
    }
    await store_followups.insert_followup(connection, row)
    return {"id": row["id"], "text": row["text"], "due_at": rfc3339(due_at), "to": recipient.id, "state": "waiting"}


async def list_followups(connection: Connection, args: dict[str, Any], invocation: Invocation) -> object:
    """Those that wait, or are in another state if asked, soonest due first. Raises ToolFailed."""
    rows = await store_followups.list_followups(
        connection,
        state=args.get("state", "waiting"),
        recipient=(await find_recipient(connection, args["to"])).id if "to" in args else None,
        due_before=parse_moment(args["due_before"], args.get("time_zone"), utc_now()) if "due_before" in args else None,
        limit=int(args.get("limit", _DEFAULT_LIMIT)),
    )
    return {"followups": [_entry(row) for row in rows], "total": rows[0]["total"] if rows else 0}


async def cancel_followup(connection: Connection, args: dict[str, Any], invocation: Invocation) -> object:
    """Cancel one that waits; again is harmless. Raises ToolFailed for an unknown one, or one that has fired."""
    row = await store_followups.cancel_followup(connection, args["followup"].strip())
    if row is None:
        raise ToolFailed(f"no follow-up {args['followup']!r}; followups.list tells which there are")
    if row["state"] == "fired":
        raise ToolFailed("it has fired already; the notification stays")
    return dict(row)


class Followups:
    """The reminders of every microDAO."""

    def __init__(self, database: Database, outbox: Outbox) -> None:
        self._database = database
        self._outbox = outbox

    async def fire_due(self) -> int:
        """Turn each follow-up that is due into a notification, once; how many."""
        fired = 0
        for _ in range(_MOST_BATCHES):
            async with self._database.system() as connection:
                due = await store_followups.take_due(connection, _BATCH)
                for row in due:
                    await notify(connection, _notification(row))
            fired += len(due)
            if len(due) < _BATCH:
                break
        if fired:
            await self._outbox.committed()
        return fired


def _notification(row: Row) -> NewNotification:
    return NewNotification(
        microdao_id=row["microdao_id"],
        kind="followup",
        recipient_kind=row["recipient_kind"],
        recipient=row["recipient"],
        title="Follow-up",
        text=row["text"],
        sent_by=row["created_by"],
        followup_id=row["id"],
        channel_id=row["channel_id"],
        confidential=row["confidential"],
    )


def _entry(row: Row) -> dict[str, Any]:
    kept = ("id", "text", "state", "project", "task", "created_by")
    moments = {field: rfc3339(row[field]) for field in ("due_at", "created_at")}
    return {**{field: row[field] for field in kept}, "to": row["recipient"], "channel": row["channel_id"], **moments}
