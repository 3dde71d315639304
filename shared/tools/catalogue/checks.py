"""The config check of each executor of this installation."""

from collections.abc import Collection, Mapping
from typing import Any, Final

from shared.tools.builtin import BUILTINS
from shared.tools.catalogue.configs import ConfigCheck, ConfigChecks, check_code
from shared.tools.executors.agent import check_agent_config
from shared.tools.executors.chain import check_chain_config
from shared.tools.executors.http_config import check_http_config, url_fault

_MCP_FIELDS: Final = frozenset({"url", "tool", "headers", "secret_ref"})


def config_checks(plugins: Collection[str] = ()) -> ConfigChecks:
    """The checks, by executor. ``plugins`` are the names of the tools that installed packages bring."""
    checks: dict[str, ConfigCheck] = {
        "builtin": _check_builtin,
        "http": check_http_config,
        "python": _check_python(plugins),
        "mcp": _check_mcp,
        "agent": check_agent_config,
        "chain": check_chain_config,
    }
    return ConfigChecks(checks)


def _check_builtin(config: Mapping[str, Any], parameters: Mapping[str, Any]) -> None:
    if config.get("function") not in BUILTINS:
        raise ValueError(f"function must be one of {', '.join(sorted(BUILTINS))}")


def _check_python(plugins: Collection[str]) -> ConfigCheck:
    def check(config: Mapping[str, Any], parameters: Mapping[str, Any]) -> None:
        if len({"code", "entrypoint", "plugin"} & config.keys()) != 1:
            raise ValueError("give code that defines run(args), an entrypoint, or the plugin that does it")
        if "code" in config:
            check_code(config["code"])
        if "plugin" in config and config["plugin"] not in plugins:
            raise ValueError("plugin must be a tool of an installed package")

    return check


def _check_mcp(config: Mapping[str, Any], parameters: Mapping[str, Any]) -> None:
    if surplus := sorted(config.keys() - _MCP_FIELDS):
        raise ValueError(f"{surplus[0]} is not a field of an mcp tool")
    if fault := url_fault(config.get("url")):
        raise ValueError(f"url {fault}")
    if not isinstance(config.get("tool"), str) or not config["tool"]:
        raise ValueError("tool must name the server's tool")
