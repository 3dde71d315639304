"""``tasks.list`` and ``task.create``."""

from typing import Any

from shared.clock import rfc3339
from shared.db.database import Connection, Row
from shared.ids import new_id
from shared.tools.builtin import store
from shared.tools.model import Invocation, ToolFailed

_MAX_SHOWN = 10
_DEFAULT_LIMIT = 50


async def list_tasks(connection: Connection, args: dict[str, Any], invocation: Invocation) -> object:
    """The newest tasks, of one project or in one state if asked, and how many fit in all. Raises ToolFailed."""
    project = await _project(connection, args["project"]) if "project" in args else None
    rows = await store.list_tasks(
        connection,
        project_id=project["id"] if project else None,
        state=args.get("state"),
        limit=int(args.get("limit", _DEFAULT_LIMIT)),
    )
    return {"tasks": [_entry(row) for row in rows], "total": rows[0]["total"] if rows else 0}


async def create_task(connection: Connection, args: dict[str, Any], invocation: Invocation) -> object:
    """Add an open task. Raises ToolFailed when it names a project that is not there."""
    project = await _project(connection, args["project"]) if "project" in args else None
    task_id, title = new_id("task"), args["title"].strip()
    await store.insert_task(
        connection,
        task_id,
        invocation.microdao_id,
        project_id=project["id"] if project else None,
        title=title,
        description=args.get("description", ""),
        created_by=invocation.agent_id,
    )
    return {"id": task_id, "title": title, "project": project["name"] if project else None, "state": "open"}


async def _project(connection: Connection, asked: str) -> Row:
    project = await store.find_project(connection, asked.strip())
    if project is None:
        names = [row["name"] for row in await store.list_projects(connection, _MAX_SHOWN)]
        raise ToolFailed(f"no project {asked!r}; projects are: {', '.join(names) or 'none yet'}")
    return project


def _entry(row: Row) -> dict[str, Any]:
    kept = ("id", "title", "description", "state", "project", "created_by")
    return {**{field: row[field] for field in kept}, "created_at": rfc3339(row["created_at"])}
