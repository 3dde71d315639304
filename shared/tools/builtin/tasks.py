"""``tasks.list``, ``task.create`` and ``task.update``."""

from datetime import datetime
from typing import Any

from shared.clock import rfc3339, utc_now
from shared.db.database import Connection, Row
from shared.ids import new_id
from shared.tools.builtin import store
from shared.tools.builtin.moments import parse_moment
from shared.tools.builtin.projects import find_project, find_project_in_use
from shared.tools.builtin.recipients import find_recipient
from shared.tools.model import Invocation, ToolFailed

_DEFAULT_LIMIT = 50
_MAX_SHOWN = 5


async def list_tasks(connection: Connection, args: dict[str, Any], invocation: Invocation) -> object:
    """The newest tasks that fit, or the soonest due with ``due_before``, and how many there are. Raises ToolFailed."""
    project = await find_project(connection, args["project"]) if "project" in args else None
    rows = await store.list_tasks(
        connection,
        project_id=project["id"] if project else None,
        state=args.get("state"),
        assignee=await _assignee(connection, args.get("assignee")),
        due_before=_due(args, "due_before"),
        limit=int(args.get("limit", _DEFAULT_LIMIT)),
    )
    return {"tasks": [_entry(row) for row in rows], "total": rows[0]["total"] if rows else 0}


async def create_task(connection: Connection, args: dict[str, Any], invocation: Invocation) -> object:
    """Add an open task. Raises ToolFailed when it names a project or agent that is not there, or no moment."""
    project = await find_project_in_use(connection, args["project"]) if "project" in args else None
    task_id, title = new_id("task"), args["title"].strip()
    assignee, due_at = await _assignee(connection, args.get("assignee")), _due(args, "due")
    await store.insert_task(
        connection,
        task_id,
        invocation.microdao_id,
        project_id=project["id"] if project else None,
        title=title,
        description=args.get("description", ""),
        assignee=assignee,
        due_at=due_at,
        created_by=invocation.agent_id,
    )
    created = {"id": task_id, "title": title, "project": project["name"] if project else None, "state": "open"}
    return {**created, "assignee": assignee, "due_at": _shown(due_at)}


async def update_task(connection: Connection, args: dict[str, Any], invocation: Invocation) -> object:
    """Change what is given; null takes an assignee, due date or project away. Raises ToolFailed."""
    task = await find_task(connection, args["task"])
    changes: dict[str, Any] = {field: args[field] for field in ("description", "state") if field in args}
    if "title" in args:
        changes["title"] = args["title"].strip()
    if "assignee" in args:
        changes["assignee"] = await _assignee(connection, args["assignee"])
    if "due" in args:
        changes["due_at"] = _due(args, "due")
    if "project" in args:
        name = args["project"]
        changes["project_id"] = None if name is None else (await find_project_in_use(connection, name))["id"]
    changed = await store.update_task(connection, task["id"], changes)
    if changed is None:
        raise ToolFailed(f"no task {args['task']!r}")
    kept = ("id", "title", "description", "state", "project", "assignee")
    return {**{field: changed[field] for field in kept}, "due_at": _shown(changed["due_at"])}


async def find_task(connection: Connection, asked: str) -> Row:
    """The task with this id or title. Raises ToolFailed for none, and for several, naming their ids."""
    found = await store.find_tasks(connection, asked.strip(), _MAX_SHOWN)
    if not found:
        raise ToolFailed(f"no task {asked!r}; tasks.list tells which there are")
    if len(found) > 1 and found[0]["id"] != asked.strip() and found[1]["state"] == found[0]["state"]:
        ids = ", ".join(row["id"] for row in found)
        raise ToolFailed(f"several tasks are titled {asked!r}; name one by its id: {ids}")
    return found[0]


async def _assignee(connection: Connection, asked: str | None) -> str | None:
    return None if asked is None else (await find_recipient(connection, asked, takes_channel=False)).id


def _due(args: dict[str, Any], field: str) -> datetime | None:
    text = args.get(field)
    return None if text is None else parse_moment(text, args.get("time_zone"), utc_now(), takes_date=True)


def _shown(moment: datetime | None) -> str | None:
    return rfc3339(moment) if moment else None


def _entry(row: Row) -> dict[str, Any]:
    kept = ("id", "title", "description", "state", "project", "assignee", "created_by")
    moments = {field: _shown(row[field]) for field in ("due_at", "done_at", "created_at")}
    return {**{field: row[field] for field in kept}, **moments}
