"""The config check of each executor of this installation."""

from collections.abc import Collection, Mapping
from typing import Any

from shared.tools.builtin import BUILTINS
from shared.tools.catalogue.builtin_parameters import check_builtin_parameters
from shared.tools.catalogue.configs import ConfigCheck, ConfigChecks
from shared.tools.executors.agent import check_agent_config
from shared.tools.executors.chain import check_chain_config
from shared.tools.executors.http_config import check_http_config
from shared.tools.executors.mcp import check_mcp_config
from shared.tools.executors.python_config import check_python_config


def config_checks(functions: Collection[str] = (), plugins: Collection[str] = ()) -> ConfigChecks:
    """The checks, by executor. ``functions`` are built-in ones that reach outside, ``plugins`` tools of packages."""
    checks: dict[str, ConfigCheck] = {
        "builtin": _check_builtin({*BUILTINS, *functions}),
        "http": check_http_config,
        "python": _check_python(plugins),
        "mcp": _check_mcp,
        "agent": check_agent_config,
        "chain": check_chain_config,
    }
    return ConfigChecks(checks)


def _check_builtin(functions: Collection[str]) -> ConfigCheck:
    def check(config: Mapping[str, Any], parameters: Mapping[str, Any]) -> None:
        function = config.get("function")
        if not isinstance(function, str) or function not in functions:
            raise ValueError(f"function must be one of {', '.join(sorted(functions))}")
        check_builtin_parameters(function, parameters)

    return check


def _check_python(plugins: Collection[str]) -> ConfigCheck:
    def check(config: Mapping[str, Any], parameters: Mapping[str, Any]) -> None:
        if "plugin" not in config:
            check_python_config(config)
        elif config.keys() != {"plugin"} or config["plugin"] not in plugins:
            raise ValueError("plugin must be a tool of an installed package, and stand alone")

    return check


def _check_mcp(config: Mapping[str, Any], parameters: Mapping[str, Any]) -> None:
    check_mcp_config(config)
