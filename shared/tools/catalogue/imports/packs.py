"""Packs: tools taken from one microDAO to another as one checksummed document."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from shared.db.database import Connection, Database, Row
from shared.errors import Conflict, ErrorDetail
from shared.ids import new_id
from shared.policy.principal import Principal
from shared.tools.catalogue import lookup, store, store_tools
from shared.tools.catalogue.catalogue import definition_from, grant_to
from shared.tools.catalogue.configs import ConfigChecks
from shared.tools.catalogue.definition import check_definition, check_labels, check_name
from shared.tools.catalogue.imports.imports import ImportOptions
from shared.tools.catalogue.imports.model import Line, Report
from shared.tools.catalogue.imports.pack import PackTool, read_pack, write_pack

_TITLE = "tool pack"


class Packs:
    """Each method works in one microDAO."""

    def __init__(self, database: Database, checks: ConfigChecks) -> None:
        self._database = database
        self._checks = checks

    async def export(self, microdao_id: str, asked: Sequence[str]) -> dict[str, Any]:
        """The document of these tools (names, aliases, ids, ``tag:``) at their active versions. Raises NotFound."""
        async with self._database.tenant(microdao_id) as connection:
            tool_ids = {tool_id for name in asked for tool_id in await lookup.find_ids(connection, name)}
            return write_pack(await store_tools.records_of(connection, sorted(tool_ids)))

    async def import_pack(self, principal: Principal, document: dict[str, Any], options: ImportOptions) -> Report:
        """Make the pack's tools; those that are there and say the same stay as they are. All of them or none.

        Raises InvalidRequest, NotFound (an agent), and Conflict when a name is taken. A dry run tells of conflicts.
        """
        tools, requires = await asyncio.to_thread(self._checked, document)
        microdao_id = principal.microdao_id
        async with (
            self._database.tenant(microdao_id) as connection,
            connection.transaction(force_rollback=options.dry_run),
        ):
            lines = await _make(connection, principal, tools, active=options.active)
            tool_ids = [line.tool_id for line in lines if line.tool_id is not None]
            await grant_to(connection, microdao_id, options.grant_to, tool_ids)
            refused = [line for line in lines if line.outcome == "skipped"]
            if refused and not options.dry_run:
                details = [ErrorDetail(line.source_name, line.reason) for line in refused]
                first = f"{refused[0].source_name}: {refused[0].reason}"
                raise Conflict(f"nothing was imported: {first}", param="pack", details=details)
        if options.dry_run:
            lines = [replace(line, tool_id=None) if line.outcome == "made" else line for line in lines]
        return Report(title=_TITLE, lines=lines, dry_run=options.dry_run, requires=requires)

    def _checked(self, document: dict[str, Any]) -> tuple[list[PackTool], list[str]]:
        tools, requires = read_pack(document)
        for tool in tools:
            check_name(tool.name)
            check_labels(tool.tags, tool.aliases)
            check_definition(tool.definition(), self._checks)
        return tools, requires


async def _make(connection: Connection, principal: Principal, tools: Sequence[PackTool], *, active: bool) -> list[Line]:
    taken = await store_tools.taken_names(connection, [tool.name for tool in tools])
    return [await _make_one(connection, principal, tool, taken.get(tool.name), active=active) for tool in tools]


async def _make_one(
    connection: Connection, principal: Principal, tool: PackTool, rival: str | None, *, active: bool
) -> Line:
    line = Line(source_name=tool.name, name=tool.name, outcome="made")
    if rival is not None:
        return await _standing(connection, tool, rival, line)
    tool_id = new_id("tool")
    row = tool.definition().row(tool_id, tool.name, tags=tool.tags, active=active)
    await store.add_tools(connection, principal.microdao_id, principal.key_id, [row])
    if await store_tools.find_record(connection, tool_id) is None:
        return replace(line, outcome="skipped", reason="another tool of the pack has that name")
    if clash := await store_tools.set_aliases(connection, principal.microdao_id, tool_id, tool.aliases):
        return replace(line, outcome="skipped", reason=f"the alias {clash[0]} is another tool's name or alias")
    return replace(line, tool_id=tool_id, version=1)


async def _standing(connection: Connection, tool: PackTool, rival: str, line: Line) -> Line:
    """A tool that has the name already: the same one, or in the way."""
    there: Row = (await store_tools.records_of(connection, await lookup.find_ids(connection, rival)))[0]
    if there["name"] == tool.name and definition_from(there) == tool.definition():
        return replace(line, outcome="unchanged", tool_id=there["id"], version=there["version"])
    return replace(line, outcome="skipped", reason=f"the name is taken by {rival}")
