"""The config check of each executor of this installation."""

from typing import Any

from shared.tools.builtin import BUILTINS
from shared.tools.catalogue.configs import ConfigChecks, check_code, check_http, check_mcp


def config_checks() -> ConfigChecks:
    """The checks, by executor."""
    return ConfigChecks({"builtin": _check_builtin, "http": check_http, "python": _check_python, "mcp": check_mcp})


def _check_builtin(config: dict[str, Any], parameters: dict[str, Any]) -> None:
    if config.get("function") not in BUILTINS:
        raise ValueError(f"function must be one of {', '.join(sorted(BUILTINS))}")


def _check_python(config: dict[str, Any], parameters: dict[str, Any]) -> None:
    if ("code" in config) == ("entrypoint" in config):
        raise ValueError("give code that defines run(args), or the entrypoint of a plug-in")
    if "code" in config:
        check_code(config["code"])
