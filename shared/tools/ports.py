"""What every executor is, inner or outer."""

from typing import Any, Protocol

from shared.db.database import Connection
from shared.tools.model import Invocation, Tool


class InnerExecutor(Protocol):
    """Runs a tool inside the savepoint of its execution. Returns JSON; raises ToolFailed."""

    async def __call__(
        self, connection: Connection, tool: Tool, args: dict[str, Any], invocation: Invocation
    ) -> object: ...


class OuterExecutor(Protocol):
    """Runs a tool outside any transaction, by ``invocation.deadline``. Returns JSON.

    Raises ToolFailed when it was not done, ToolUncertain when it may have been. It neither retries nor stores.
    """

    async def __call__(self, tool: Tool, args: dict[str, Any], invocation: Invocation) -> object: ...
