"""The built-in functions that catalogue entries name in ``config.function``."""

from typing import Any, Protocol

from shared.db.database import Connection
from shared.tools.builtin.documents import search_docs
from shared.tools.builtin.math import calculate
from shared.tools.builtin.projects import create_project, list_projects
from shared.tools.builtin.tasks import create_task, list_tasks
from shared.tools.model import Invocation


class Builtin(Protocol):
    """Works on the rows of the connection's microDAO and returns JSON. Raises ToolFailed."""

    async def __call__(self, connection: Connection, args: dict[str, Any], invocation: Invocation) -> object: ...


BUILTINS: dict[str, Builtin] = {
    "math": calculate,
    "projects.list": list_projects,
    "project.create": create_project,
    "tasks.list": list_tasks,
    "task.create": create_task,
    "search_docs": search_docs,
}
