"""The built-in ``code.run``: short code that a model wrote, run in the light interpreter, which reaches nothing."""

from dataclasses import replace
from typing import Any, Final

from shared.tools.executors.python import PythonExecutor
from shared.tools.model import Invocation, Tool

CODE_FUNCTION: Final = "code.run"


class GlueCode:
    """Runs what an agent writes as if it were a Python tool of its own, without hosts and secrets."""

    def __init__(self, python: PythonExecutor) -> None:
        self._python = python

    async def __call__(self, tool: Tool, args: dict[str, Any], invocation: Invocation) -> object:
        """The value of the code's ``run(args)``. Raises ToolFailed with what was wrong with it."""
        program = replace(tool, config={"code": args["code"], "runtime": "monty"})
        return await self._python(program, args.get("args", {}), invocation)
