"""The catalogue entries that ship with the built-in functions, and what these take.

An entry's ``parameters`` are what its function takes. A microDAO may define a tool of the same function with other
ones; those say what a model is told, not what the function can do.
"""

from functools import cache
from typing import Any

import yaml

from shared.settings import CONFIG_DIR
from shared.tools.arguments import schema_faults
from shared.tools.model import Tool, ToolFailed

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # several times as fast; not on every platform


@cache
def shipped_tools() -> tuple[dict[str, Any], ...]:
    """The entries of infra/config/tools.yaml."""
    text = (CONFIG_DIR / "tools.yaml").read_text(encoding="utf-8")
    return tuple(yaml.load(text, _Loader))  # noqa: S506 - a safe loader


@cache
def _parameters() -> dict[str, dict[str, Any]]:
    return {entry["function"]: entry["parameters"] for entry in shipped_tools() if "function" in entry}


def parameters_of(function: str) -> dict[str, Any]:
    """The schema of what a built-in function takes. Raises KeyError for one that does not ship."""
    return _parameters()[function]


def check_call(tool: Tool, args: dict[str, Any]) -> None:
    """Arguments that fit the tool's definition must fit its function, too; what that does not know it never looks at.

    Raises ToolFailed (``invalid_args``) naming the parameter that was defined wrongly.
    """
    taken = _parameters().get(tool.config["function"])
    if taken is None or taken == tool.parameters:
        return
    known = {name: value for name, value in args.items() if name in taken["properties"]}
    if faults := schema_faults(taken, known):
        what = " ".join(part for part in (faults[0].path, faults[0].message) if part)
        raise ToolFailed(
            f"{tool.name} has other parameters than its built-in function {tool.config['function']!r} takes: {what};"
            " an administrator has to change its definition",
            code="invalid_args",
        )
