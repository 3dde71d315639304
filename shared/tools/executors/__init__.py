"""How a tool's work is done. A tool names its executor; ``Executors`` knows it by that name.

An inner executor works on our own rows in the transaction of its execution: effect and outcome are committed together.
An outer one reaches outside (another service, a sandbox, a model), so no transaction may wait for it.
"""

from collections.abc import Mapping

from shared.tools.executors.builtin import checked, run_builtin
from shared.tools.model import Tool, ToolFailed
from shared.tools.ports import InnerExecutor, OuterExecutor


class Executors:
    """Which executor runs which tool.

    ``outer`` has them by the name that tools give (``http``), ``functions`` those of built-in functions that reach
    outside by ``config.function``; all other built-in functions are inner.
    """

    def __init__(
        self, outer: Mapping[str, OuterExecutor] | None = None, functions: Mapping[str, OuterExecutor] | None = None
    ) -> None:
        self._outer = dict(outer or {})
        self._functions = dict(functions or {})

    def extended(self, outer: Mapping[str, OuterExecutor]) -> "Executors":
        """With these as well."""
        return Executors({**self._outer, **outer}, self._functions)

    def inner(self, tool: Tool) -> InnerExecutor | None:
        """The executor of a tool that works on our own rows; None for one that reaches outside."""
        return run_builtin if tool.executor == "builtin" and self._function(tool) is None else None

    def outer(self, tool: Tool) -> OuterExecutor:
        """The executor of a tool that reaches outside. Raises ToolFailed when this installation has none."""
        found = self._function(tool) if tool.executor == "builtin" else self._outer.get(tool.executor)
        if found is None:
            raise ToolFailed(f"this installation does not run tools of the kind {tool.executor!r}")
        return found

    def _function(self, tool: Tool) -> OuterExecutor | None:
        """The built-in function of the tool, if it is one that reaches outside."""
        function = self._functions.get(str(tool.config.get("function")))
        return None if function is None else checked(function)
