"""The ``builtin`` executor: our own Python on the microDAO's rows."""

from typing import Any

from shared.db.database import Connection
from shared.tools.builtin import BUILTINS
from shared.tools.builtin.shipped import check_call
from shared.tools.model import Invocation, Tool, ToolFailed
from shared.tools.ports import OuterExecutor


async def run_builtin(connection: Connection, tool: Tool, args: dict[str, Any], invocation: Invocation) -> object:
    """Run the function that the tool's ``config.function`` names. Raises ToolFailed."""
    name = tool.config.get("function")
    function = BUILTINS.get(str(name))
    if function is None:
        raise ToolFailed(f"this installation has no built-in function {name!r}")
    check_call(tool, args)
    return await function(connection, args, invocation)


def checked(function: OuterExecutor) -> OuterExecutor:
    """A built-in function that reaches outside, which gets only arguments that it takes."""

    async def run(tool: Tool, args: dict[str, Any], invocation: Invocation) -> object:
        check_call(tool, args)
        return await function(tool, args, invocation)

    return run
