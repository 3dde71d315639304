"""How a tool's work is done. A tool names its executor; ``EXECUTORS`` knows it by that name."""

from typing import Any, Protocol

from shared.db.database import Connection
from shared.tools.executors.builtin import run_builtin
from shared.tools.model import Invocation, Tool


class Executor(Protocol):
    """Runs a tool inside the savepoint of its execution, so that effect and outcome are committed together.

    Returns the tool's result, which must be JSON. Raises ToolFailed with a message for the caller.
    """

    async def __call__(
        self, connection: Connection, tool: Tool, args: dict[str, Any], invocation: Invocation
    ) -> object: ...


EXECUTORS: dict[str, Executor] = {"builtin": run_builtin}
