"""Tools that installed packages bring: entry points of the group ``daarion.tools``.

An entry point leads to a tool, a list of tools, or a function without arguments that returns either. A tool is a
mapping with ``name``, ``description``, ``parameters`` and ``function``, and what else a definition may say (``risk``,
``timeout_ms``, ``idempotent``, ``result_schema``, …). Who installs a package trusts it: its functions run in this
process, on the same path and under the same policy as every tool.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from shared.db.database import Connection
from shared.ids import derived_id
from shared.observability import Log
from shared.tools.catalogue import store
from shared.tools.catalogue.definition import DEFINITION_FIELDS, Definition, check_definition, check_name

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP: Final = "daarion.tools"
LOOK_EVERY_S: Final = 5.0
"""How old a look at the installed packages may be: they are read from the disk."""

_log = Log("tools")


@dataclass(frozen=True, slots=True)
class Plugin:
    """A tool of an installed package. ``function`` gets the arguments and the invocation; it may be a coroutine."""

    name: str
    definition: Definition
    function: Callable[..., Any]


class Plugins(Collection[str]):
    """What is installed now, by tool name. A package that cannot be loaded is left out, and the log says why."""

    def __init__(self, group: str = GROUP, clock: Callable[[], float] = time.monotonic) -> None:
        self._group = group
        self._clock = clock
        self._looked_at = float("-inf")
        self._found: dict[str, Plugin] = {}
        self._loaded: dict[tuple[str, str], tuple[Plugin, ...]] = {}

    def __contains__(self, name: object) -> bool:
        return name in self.look()

    def __iter__(self) -> Iterator[str]:
        return iter(self.look())

    def __len__(self) -> int:
        return len(self.look())

    def get(self, name: str) -> Plugin | None:
        """The tool of this name, found without looking again where it is known."""
        return self._found.get(name) or self.look().get(name)

    def look(self) -> Mapping[str, Plugin]:
        """Every tool; of two with one name the first. Reads the disk now and then."""
        from importlib import invalidate_caches
        from importlib.metadata import entry_points  # 10 ms, which most processes never need

        if self._clock() - self._looked_at >= LOOK_EVERY_S:
            self._looked_at = self._clock()
            invalidate_caches()
            found: dict[str, Plugin] = {}
            for entry in sorted(entry_points(group=self._group), key=lambda one: (one.name, one.value)):
                for plugin in self._load(entry):
                    found.setdefault(plugin.name, plugin)
            self._found = found
        return self._found

    def _load(self, entry: "EntryPoint") -> tuple[Plugin, ...]:
        key = (entry.name, entry.value)
        if key not in self._loaded:
            try:
                self._loaded[key] = tuple(_plugins_of(entry.load()))
            except Exception as error:
                self._loaded[key] = ()
                _log.warning("plug-in not loaded", entry_point=entry.name, error=f"{type(error).__name__}: {error}")
        return self._loaded[key]


async def adopt(connection: Connection, microdao_id: str, plugins: Plugins) -> list[str]:
    """Add the installed tools that the microDAO never had; the ids of all. What an administrator deleted stays so."""
    found = await asyncio.to_thread(plugins.look)
    rows = [
        plugin.definition.row(derived_id("tool", microdao_id, "plugin", plugin.name), plugin.name)
        for plugin in found.values()
    ]
    if rows:
        await store.add_tools(connection, microdao_id, "plugin", rows)
    return [row["id"] for row in rows]


def _plugins_of(declared: Any) -> Iterator[Plugin]:
    """Raises TypeError, KeyError or InvalidRequest for what is no tool."""
    if callable(declared):
        declared = declared()
    for one in (declared,) if isinstance(declared, Mapping) else declared:
        said = dict(one)
        name, function = str(said.pop("name")), said.pop("function")
        if not callable(function):
            raise TypeError(f"the function of {name} cannot be called")
        if surplus := sorted(said.keys() - set(DEFINITION_FIELDS) | said.keys() & {"executor", "config"}):
            raise TypeError(f"{name} has a field {surplus[0]!r}")
        definition = Definition(executor="python", config={"plugin": name}, **said)
        check_name(name)
        check_definition(definition, None)
        yield Plugin(name, definition, function)
