"""``projects.list`` and ``project.create``."""

from typing import Any

from shared.clock import rfc3339
from shared.db.database import Connection, Row
from shared.ids import new_id
from shared.tools.builtin import store
from shared.tools.model import Invocation, ToolFailed

_DEFAULT_LIMIT = 50


async def list_projects(connection: Connection, args: dict[str, Any], invocation: Invocation) -> object:
    """The newest projects and how many there are in all."""
    rows = await store.list_projects(connection, int(args.get("limit", _DEFAULT_LIMIT)))
    return {"projects": [_entry(row) for row in rows], "total": rows[0]["total"] if rows else 0}


async def create_project(connection: Connection, args: dict[str, Any], invocation: Invocation) -> object:
    """Add a project. Raises ToolFailed when its name is taken."""
    project_id, name = new_id("proj"), args["name"].strip()
    added = await store.insert_project(
        connection,
        project_id,
        invocation.microdao_id,
        name=name,
        description=args.get("description", ""),
        created_by=invocation.agent_id,
    )
    if not added:
        raise ToolFailed(f"a project named {name!r} exists already; use it or choose another name")
    return {"id": project_id, "name": name}


def _entry(row: Row) -> dict[str, Any]:
    kept = ("id", "name", "description", "open_tasks", "created_by")
    return {**{field: row[field] for field in kept}, "created_at": rfc3339(row["created_at"])}
