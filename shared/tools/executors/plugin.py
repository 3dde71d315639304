"""Tools of installed packages run in this process; other Python runs where Python runs."""

import asyncio
from inspect import iscoroutinefunction
from typing import Any, Protocol

from shared.tools.model import Invocation, Tool, ToolFailed

_MAX_MESSAGE = 500


class Function(Protocol):
    """What a package gave; sync or async."""

    @property
    def function(self) -> Any: ...


class FunctionsByName(Protocol):
    """The tools of installed packages."""

    def get(self, name: str) -> Function | None: ...


class Otherwise(Protocol):
    """The executor of Python that is no package's."""

    async def __call__(self, tool: Tool, args: dict[str, Any], invocation: Invocation) -> object: ...


class PluginExecutor:
    """Runs a tool's ``config.plugin``. A function that blocks gets a thread, which nothing can stop at the deadline."""

    def __init__(self, plugins: FunctionsByName, otherwise: Otherwise) -> None:
        self._plugins = plugins
        self._otherwise = otherwise

    async def __call__(self, tool: Tool, args: dict[str, Any], invocation: Invocation) -> object:
        """What the function returns. Raises ToolFailed: for a ValueError of the function with what that says."""
        name = tool.config.get("plugin")
        if name is None:
            return await self._otherwise(tool, args, invocation)
        plugin = await asyncio.to_thread(self._plugins.get, name)
        if plugin is None:
            raise ToolFailed(f"the package that brings {name!r} is not installed here")
        try:
            if iscoroutinefunction(plugin.function):
                return await plugin.function(args, invocation)
            return await asyncio.to_thread(plugin.function, args, invocation)
        except ValueError as error:
            raise ToolFailed(str(error)[:_MAX_MESSAGE] or f"{tool.name} refused its arguments") from error
