"""The ``mcp`` executor: a tool of a remote MCP server, and the list of such tools for the catalogue's import.

url         https://mcp.example.com/mcp
tool        the tool's name on the server
headers     what is sent with every message; strings may hold {{secret}} and {{secrets.name}}
secret_ref  the secret behind {{secret}}; named without a place for it, it is sent as a bearer token
"""

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shared.errors import InvalidRequest, UpstreamError
from shared.tools.executors.http_config import header_fault, text_fault, url_fault
from shared.tools.executors.outside import Outside, deadline_of, renewal, told_honestly
from shared.tools.model import Invocation, Tool, ToolFailed
from shared.tools.secrets.templates import NAME_PATTERN, render, secret_names, template_fault
from shared.tools.web.errors import AddressRefused, CallerRefused

if TYPE_CHECKING:
    from shared.tools.web.mcp.session import RemoteServer

LIST_TIMEOUT_S = 20.0
_SERVER_FIELDS = frozenset({"url", "headers", "secret_ref"})
_BEARER = {"Authorization": "Bearer {{secret}}"}
_MAX_NAME = 200


@dataclass(frozen=True, slots=True)
class RemoteTool:
    """A tool as its server describes it. ``annotations`` are hints and never decide on permission."""

    name: str
    description: str
    input_schema: dict[str, Any]
    output_schema: dict[str, Any] | None
    annotations: dict[str, Any]


def check_mcp_server(server: Mapping[str, Any], prefix: str = "config") -> None:
    """Raises InvalidRequest whose ``param`` is the path of the field at fault, for a server's address and headers."""
    for name in sorted(set(server) - _SERVER_FIELDS):
        raise _invalid(f"{prefix}.{name}", "is not a field of an MCP server")
    url = server.get("url")
    if fault := url_fault(url) or ("{" in str(url) and "must not hold arguments") or None:
        raise _invalid(f"{prefix}.url", fault)
    secret, headers = server.get("secret_ref", "name"), server.get("headers", {})
    if not isinstance(secret, str) or not re.fullmatch(NAME_PATTERN, secret):
        raise _invalid(f"{prefix}.secret_ref", "must be the name of a secret")
    if not isinstance(headers, dict):
        raise _invalid(f"{prefix}.headers", "must be an object")
    for name, value in headers.items():
        if fault := _header_fault(name, value, server.get("secret_ref")):
            raise _invalid(f"{prefix}.headers.{name}", fault)


def check_mcp_config(config: Mapping[str, Any]) -> None:
    """Raises InvalidRequest whose ``param`` is the path of the field at fault."""
    tool = config.get("tool")
    if not isinstance(tool, str) or not 0 < len(tool) <= _MAX_NAME:
        raise _invalid("config.tool", f"must be the name of the server's tool, of at most {_MAX_NAME} characters")
    check_mcp_server({name: value for name, value in config.items() if name != "tool"})


class McpExecutor:
    """An outer executor. It neither retries nor stores."""

    def __init__(self, outside: Outside) -> None:
        self._outside = outside

    async def __call__(self, tool: Tool, args: dict[str, Any], invocation: Invocation) -> object:
        """The tool's structured result, or else its text.

        Raises ToolFailed when nothing happened, ToolUncertain when it may have.
        """
        config, names = tool.config, _secrets_of(tool.config)
        async with self._outside.opened(invocation.microdao_id, names, config["url"]) as secrets:
            try:
                value = await self._outside.mcp.call_tool(
                    _server(invocation.microdao_id, config, secrets.values),
                    config["tool"],
                    args,
                    idempotency_key=invocation.execution_id,
                    deadline=deadline_of(tool, invocation),
                )
                return secrets.redactor.value(value)
            except CallerRefused as refused:
                raise ToolFailed(renewal(names, refused.status), code=refused.code) from None
            except ToolFailed as failure:
                raise told_honestly(failure, may_repeat=tool.may_run_again) from None

    async def list_tools(self, microdao_id: str, server: Mapping[str, Any]) -> list[RemoteTool]:
        """Every tool of a server (``url``, ``headers``, ``secret_ref``), at most 500.

        Raises InvalidRequest for an address that tools may not call, UpstreamError for everything else.
        """
        check_mcp_server(server, "server")
        names = _secrets_of(server)
        deadline = asyncio.get_running_loop().time() + LIST_TIMEOUT_S
        try:
            async with self._outside.opened(microdao_id, names, server["url"]) as secrets:
                remote = _server(microdao_id, server, secrets.values)
                found = await self._outside.mcp.list_tools(remote, deadline)
                return [_remote_tool(secrets.redactor.value(one.model_dump(mode="json"))) for one in found]
        except AddressRefused as refused:
            raise InvalidRequest(refused.message, param="server.url") from None
        except CallerRefused as refused:
            raise UpstreamError(renewal(names, refused.status)) from None
        except ToolFailed as failure:
            raise UpstreamError(failure.message) from None


def _server(microdao_id: str, config: Mapping[str, Any], values: Mapping[str, str]) -> "RemoteServer":
    from shared.tools.web.mcp.session import RemoteServer

    headers = render(_headers(config), values, config.get("secret_ref"))
    for name, value in headers.items():
        if fault := text_fault(value):
            raise ToolFailed(f"the header {name} {fault}")
    return RemoteServer(microdao_id, config["url"], headers)


def _headers(config: Mapping[str, Any]) -> dict[str, str]:
    headers = dict(config.get("headers", {}))
    is_placed = config.get("secret_ref") in secret_names(headers, config.get("secret_ref"))
    return headers if is_placed or "secret_ref" not in config else {**_BEARER, **headers}


def _secrets_of(config: Mapping[str, Any]) -> set[str]:
    return secret_names(_headers(config), config.get("secret_ref"))


def _remote_tool(listed: Mapping[str, Any]) -> RemoteTool:
    return RemoteTool(
        name=listed["name"],
        description=listed.get("description") or listed.get("title") or "",
        input_schema=listed["input_schema"],
        output_schema=listed.get("output_schema"),
        annotations=listed.get("annotations") or {},
    )


def _header_fault(name: str, value: object, secret_ref: str | None) -> str | None:
    if not isinstance(value, str):
        return "must be text"
    return header_fault(name) or text_fault(value) or template_fault(value, secret_ref)


def _invalid(field: str, fault: str) -> InvalidRequest:
    return InvalidRequest(f"{field}: {fault}", param=field)
