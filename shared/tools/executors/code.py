"""The built-in ``code.run``: short code that a model wrote, run in the light interpreter, which reaches nothing."""

import re
from dataclasses import replace
from typing import Any, Final

from shared.tools.executors.python import PythonExecutor
from shared.tools.model import Invocation, Tool, ToolFailed

CODE_FUNCTION: Final = "code.run"

_DEFINES_RUN = re.compile(r"^(?:(?:async )?def run\b|run *=)", re.MULTILINE)
_NO_RUN = "\ndef run(args):\n    return None\n"


class GlueCode:
    """Runs what an agent writes as if it were a Python tool of its own, without hosts and secrets."""

    def __init__(self, python: PythonExecutor) -> None:
        self._python = python

    async def __call__(self, tool: Tool, args: dict[str, Any], invocation: Invocation) -> object:
        """The value of the code's ``run(args)``, or of a script what it ``printed``.

        Raises ToolFailed with what was wrong with it.
        """
        code = args["code"]
        is_script = _DEFINES_RUN.search(code) is None
        program = replace(tool, config={"code": code + _NO_RUN if is_script else code, "runtime": "monty"})
        result = await self._python.run(program, args.get("args", {}), invocation)
        if not is_script:
            return result.value
        if not result.stdout:
            raise ToolFailed("the code printed nothing: print what you want to know, or define run(args)")
        return {"printed": result.stdout}
