"""The built-in functions that catalogue entries name in ``config.function``."""

from typing import Any, Protocol

from shared.db.database import Connection
from shared.tools.builtin.followups import cancel_followup, create_followup, list_followups
from shared.tools.builtin.math import calculate
from shared.tools.builtin.notifications import send_notification
from shared.tools.builtin.projects import create_project, list_projects, update_project
from shared.tools.builtin.tasks import create_task, list_tasks, update_task
from shared.tools.model import Invocation


class Builtin(Protocol):
    """Works on the rows of the connection's microDAO and returns JSON. Raises ToolFailed."""

    async def __call__(self, connection: Connection, args: dict[str, Any], invocation: Invocation) -> object: ...


BUILTINS: dict[str, Builtin] = {
    "math": calculate,
    "projects.list": list_projects,
    "project.create": create_project,
    "project.update": update_project,
    "tasks.list": list_tasks,
    "task.create": create_task,
    "task.update": update_task,
    "followup.create": create_followup,
    "followups.list": list_followups,
    "followup.cancel": cancel_followup,
    "send_notification": send_notification,
}

OUTER_BUILTINS = ("search_docs", "document.create", "memory.search", "memory.store", "summarize_channel")
"""Those that need memory or a model and so run outside the transaction; ``outer.open_outer_builtins`` makes them."""
