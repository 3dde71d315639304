"""The ``builtin`` executor: our own Python on the microDAO's rows."""

from typing import Any

from shared.db.database import Connection
from shared.tools.builtin import BUILTINS
from shared.tools.model import Invocation, Tool, ToolFailed


async def run_builtin(connection: Connection, tool: Tool, args: dict[str, Any], invocation: Invocation) -> object:
    """Run the function that the tool's ``config.function`` names."""
    function = BUILTINS.get(tool.config["function"])
    if function is None:
        raise ToolFailed(f"this installation has no built-in function {tool.config['function']!r}")
    return await function(connection, args, invocation)
