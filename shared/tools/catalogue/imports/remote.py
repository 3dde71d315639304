"""Tools of a remote MCP server as tools of ours. Pure functions, and the ports through which sources are reached.

What a server says of a tool (its annotations) is no ground for trust: each is of risk C and never run twice.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from shared.errors import InvalidRequest
from shared.tools.catalogue.definition import Definition
from shared.tools.catalogue.imports.model import Candidate, Reading
from shared.tools.catalogue.imports.names import tool_name
from shared.tools.catalogue.imports.openapi_schemas import Schemas, Unusable
from shared.tools.catalogue.schemas import check_schema
from shared.tools.model import Risk

MAX_DESCRIPTION = 4_000


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteTool:
    """A tool as its server describes it. ``annotations`` are hints; they count for its identity only."""

    name: str
    description: str
    input_schema: Mapping[str, Any]
    output_schema: Mapping[str, Any] | None = None
    annotations: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteServer:
    """What a server calls itself, and its tools."""

    title: str
    tools: Sequence[RemoteTool]


class ListRemoteTools(Protocol):
    """Asks an MCP server for its tools. Raises ToolFailed or ApiError when it cannot be asked."""

    async def __call__(self, microdao_id: str, url: str, secret_ref: str | None) -> RemoteServer: ...


class FetchDocument(Protocol):
    """Gets a document (JSON or YAML, parsed). Raises ToolFailed or ApiError when it cannot be had."""

    async def __call__(self, microdao_id: str, url: str, secret_ref: str | None) -> Any: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class McpOptions:
    """Where the server is, and which of its tools to take (all, if None)."""

    url: str
    secret_ref: str | None = None
    prefix: str = ""
    tools: Collection[str] | None = None
    risk: Risk | None = None


def read_server(server: RemoteServer, options: McpOptions) -> Reading:
    """Its tools as candidates. Raises InvalidRequest for one that was asked for and is not there."""
    candidates: dict[str, Candidate] = {}
    skipped: list[tuple[str, str]] = []
    wanted = [tool for tool in server.tools if options.tools is None or tool.name in options.tools]
    if unknown := set(options.tools or ()) - {tool.name for tool in wanted}:
        raise InvalidRequest(f"the server has no tool {sorted(unknown)[0][:100]!r}", param="tools")
    for tool in wanted:
        try:
            candidate = _candidate(tool, options)
        except (InvalidRequest, Unusable) as reason:
            skipped.append((tool.name[:200], str(reason)))
            continue
        if candidates.setdefault(candidate.name, candidate) is not candidate:
            skipped.append((tool.name[:200], f"its name {candidate.name} is that of another of the server's"))
    return Reading(title=server.title[:200] or "MCP server", candidates=list(candidates.values()), skipped=skipped)


def _candidate(tool: RemoteTool, options: McpOptions) -> Candidate:
    reference = {"secret_ref": options.secret_ref} if options.secret_ref else {}
    definition = Definition(
        description=tool.description.strip()[:MAX_DESCRIPTION] or tool.name,
        parameters=_parameters(tool.input_schema),
        executor="mcp",
        config={"url": options.url, "tool": tool.name, **reference},
        risk=options.risk or "C",
    )
    return Candidate(source_name=tool.name[:200], name=tool_name(options.prefix, tool.name), definition=definition)


def _parameters(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The server's schema, without what only names it; with references written out where they must be."""
    plain = {name: one for name, one in schema.items() if name not in ("$schema", "$id")}
    plain.setdefault("type", "object")
    try:
        check_schema(plain, "parameters")
    except InvalidRequest:
        plain = Schemas(plain).convert(plain)
        check_schema(plain, "parameters")
    return plain
