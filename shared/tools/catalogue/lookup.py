"""Finding a tool by what the caller calls it, and saying what it may have meant when there is none."""

from collections.abc import Collection

from shared.db.database import Connection
from shared.errors import NotFound
from shared.tools.arguments import check_text
from shared.tools.catalogue import store
from shared.tools.model import Tool

_TAG = "tag:"
_MAX_SHOWN = 20
_MAX_ECHO = 100


async def find_tool(connection: Connection, asked: str, agent_id: str | None = None) -> Tool:
    """The tool with this id, name or alias. Raises NotFound with the names that come near, of the agent's if named."""
    check_text(asked, "tool")
    tool = await store.find_tool(connection, asked)
    if tool is None:
        raise await unknown_tool(connection, asked, agent_id)
    return tool


async def find_among(connection: Connection, agent_id: str, usable: Collection[str], asked: str) -> Tool:
    """The same among the tools (ids) that the agent may use. Raises NotFound for any other."""
    check_text(asked, "tool")
    tool = await store.find_tool(connection, asked)
    if tool is None or tool.id not in usable:
        raise await unknown_tool(connection, asked, agent_id)
    return tool


async def find_ids(connection: Connection, asked: str) -> list[str]:
    """The tool with this id, name or alias, or every tool with this ``tag:``. Raises NotFound."""
    if not asked.startswith(_TAG):
        return [(await find_tool(connection, asked)).id]
    check_text(asked, "tool")
    if found := await store.ids_with_tag(connection, asked.removeprefix(_TAG)):
        return found
    raise NotFound(f"no tool bears the tag {asked.removeprefix(_TAG)[:_MAX_ECHO]!r}", param="tool")


async def unknown_tool(connection: Connection, asked: str, agent_id: str | None = None) -> NotFound:
    """The error for a name that no tool of the transaction's microDAO bears. An agent is told of its own tools only."""
    from difflib import get_close_matches

    names = await store.list_names(connection, agent_id)
    near = get_close_matches(asked[:_MAX_ECHO], names, n=5, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"tools are: {', '.join(names[:_MAX_SHOWN]) or 'none'}"
    return NotFound(f"no tool {asked[:_MAX_ECHO]!r}; {hint}", param="tool")
