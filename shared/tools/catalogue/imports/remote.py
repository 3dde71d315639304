"""Tools of a remote MCP server as tools of ours. Pure functions, and the ports through which sources are reached.

What a server says of a tool (its annotations) is no ground for trust: each is of risk C and never run twice.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit

from shared.errors import InvalidRequest
from shared.tools.catalogue.definition import Definition
from shared.tools.catalogue.imports.model import Candidate, Reading
from shared.tools.catalogue.imports.names import tool_name
from shared.tools.catalogue.imports.openapi_schemas import Schemas, Unusable
from shared.tools.catalogue.schemas import check_schema
from shared.tools.model import Risk

MAX_DESCRIPTION = 4_000


class RemoteTool(Protocol):
    """A tool as its server describes it."""

    @property
    def name(self) -> str: ...

    @property
    def description(self) -> str: ...

    @property
    def input_schema(self) -> Mapping[str, Any]: ...


class ListRemoteTools(Protocol):
    """Asks an MCP server (``url``, ``secret_ref``) for its tools. Raises ToolFailed or ApiError when it cannot be."""

    async def __call__(self, microdao_id: str, server: Mapping[str, Any]) -> Sequence[RemoteTool]: ...


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

    @property
    def server(self) -> dict[str, str]:
        """How to reach it."""
        return {"url": self.url, **({"secret_ref": self.secret_ref} if self.secret_ref else {})}


def read_server(tools: Sequence[RemoteTool], options: McpOptions) -> Reading:
    """A server's tools as candidates. Raises InvalidRequest for one that was asked for and is not there."""
    candidates: dict[str, Candidate] = {}
    skipped: list[tuple[str, str]] = []
    wanted = [tool for tool in tools if options.tools is None or tool.name in options.tools]
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
    return Reading(
        title=(urlsplit(options.url).hostname or "")[:200], candidates=list(candidates.values()), skipped=skipped
    )


def _candidate(tool: RemoteTool, options: McpOptions) -> Candidate:
    definition = Definition(
        description=tool.description.strip()[:MAX_DESCRIPTION] or tool.name,
        parameters=_parameters(tool.input_schema),
        executor="mcp",
        config={**options.server, "tool": tool.name},
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
