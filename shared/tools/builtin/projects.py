"""``projects.list``, ``project.create`` and ``project.update``."""

from typing import Any

from psycopg.errors import UniqueViolation

from shared.clock import rfc3339
from shared.db.database import Connection, Row
from shared.ids import new_id
from shared.tools.builtin import store
from shared.tools.model import Invocation, ToolFailed

_DEFAULT_LIMIT = 50
_MAX_SHOWN = 10


async def list_projects(connection: Connection, args: dict[str, Any], invocation: Invocation) -> object:
    """The newest projects in use, or archived ones if asked, and how many there are in all."""
    limit = int(args.get("limit", _DEFAULT_LIMIT))
    rows = await store.list_projects(connection, limit, archived=args.get("archived", False))
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
        raise _taken(name)
    return {"id": project_id, "name": name}


async def update_project(connection: Connection, args: dict[str, Any], invocation: Invocation) -> object:
    """Rename, describe, archive or take up again. Raises ToolFailed for an unknown project or a taken name."""
    project = await find_project(connection, args["project"])
    name = args["name"].strip() if "name" in args else None
    wanted = {field: args.get(field) for field in ("description", "archived")}
    try:
        changed = await store.update_project(connection, project["id"], name=name, **wanted)
    except UniqueViolation:  # the execution's savepoint is rolled back with this failure
        raise _taken(name or "") from None
    if changed is None:
        raise _unknown(args["project"], "")
    kept = ("id", "name", "description")
    return {**{field: changed[field] for field in kept}, "archived": changed["archived_at"] is not None}


async def find_project(connection: Connection, asked: str) -> Row:
    """The project with this name or id. Raises ToolFailed naming those there are."""
    project = await store.find_project(connection, asked.strip())
    if project is None:
        names = [row["name"] for row in await store.list_projects(connection, _MAX_SHOWN)]
        raise _unknown(asked, ", ".join(names))
    return project


async def find_project_in_use(connection: Connection, asked: str) -> Row:
    """As ``find_project``. Raises ToolFailed for an archived one, too."""
    project = await find_project(connection, asked)
    if project["archived_at"] is not None:
        raise ToolFailed(f"the project {project['name']!r} is archived; take it up again with project.update first")
    return project


def _taken(name: str) -> ToolFailed:
    return ToolFailed(f"a project named {name!r} exists already; use it or choose another name")


def _unknown(asked: str, names: str) -> ToolFailed:
    return ToolFailed(f"no project {asked!r}; projects are: {names or 'none yet'}")


def _entry(row: Row) -> dict[str, Any]:
    kept = ("id", "name", "description", "open_tasks", "created_by")
    return {**{field: row[field] for field in kept}, "created_at": rfc3339(row["created_at"])}
