"""``task.create``."""

from typing import Any

from shared.db.database import Connection, Row
from shared.ids import new_id
from shared.tools.builtin import store
from shared.tools.model import Invocation, ToolFailed

_MAX_SHOWN = 10


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
