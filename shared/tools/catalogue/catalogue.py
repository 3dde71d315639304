"""The catalogue as administrators change it. What changes holds from the next call on, in every process."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from shared.db.database import Connection, Database, Row
from shared.errors import Conflict, InvalidRequest, NotFound
from shared.ids import new_id
from shared.policy.principal import Principal
from shared.tools.arguments import check_text
from shared.tools.catalogue import store, store_tools
from shared.tools.catalogue.configs import ConfigChecks
from shared.tools.catalogue.definition import (
    DEFINITION_FIELDS,
    Definition,
    changed,
    check_definition,
    check_labels,
    check_name,
)
from shared.tools.catalogue.plugins import Plugins, adopt

_NO_LIMIT: Final = 2**31 - 1
_MAX_REASON: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTool:
    """A tool to make, and the agents that may use it from the start."""

    name: str
    definition: Definition
    tags: Sequence[str] = ()
    aliases: Sequence[str] = ()
    grant_to: Sequence[str] = ()
    active: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What to change. ``fields`` are a definition's and make a new version, which waits for approval if ``staged``.

    ``tags`` and ``aliases`` replace the tool's; None leaves them.
    """

    fields: Mapping[str, Any]
    tags: Sequence[str] | None = None
    aliases: Sequence[str] | None = None
    staged: bool = False


class Catalogue:
    """Each method works in one microDAO. Tools are rows: their active version's fields with ``tags``, ``aliases``,
    ``latest_version``, ``pending_version``, ``disabled_reason``, ``import_id``."""

    def __init__(self, database: Database, checks: ConfigChecks, plugins: Plugins | None = None) -> None:
        self._database = database
        self._plugins = Plugins() if plugins is None else plugins
        self._checks = checks

    async def create(self, principal: Principal, new: NewTool) -> Row:
        """Add a tool at version 1. Raises InvalidRequest, Conflict (a name that is taken), NotFound (an agent)."""
        check_name(new.name)
        check_labels(new.tags, new.aliases)
        check_definition(new.definition, self._checks)
        microdao_id, tool_id = principal.microdao_id, new_id("tool")
        row = new.definition.row(tool_id, new.name, tags=list(new.tags), active=new.active)
        async with self._database.tenant(microdao_id) as connection:
            await store.add_tools(connection, microdao_id, principal.key_id, [row])
            created = await store_tools.find_record(connection, tool_id)
            if created is None:
                raise await _name_taken(connection, new.name)
            await _set_aliases(connection, microdao_id, tool_id, new.aliases)
            await grant_to(connection, microdao_id, new.grant_to, [tool_id])
            return await _record(connection, tool_id)

    async def list_page(self, microdao_id: str, wanted: Mapping[str, Any], after: str, limit: int) -> list[Row]:
        """Tools by name, from the one after ``after``. ``wanted`` may name ``tag``, ``executor``, ``active``.

        The first page has those of packages that were installed meanwhile, too.
        """
        check_text(after, "after")
        asked = {"tag": None, "executor": None, "active": None, **wanted, "after": after, "limit": limit}
        async with self._database.tenant(microdao_id) as connection:
            if not after:
                await adopt(connection, microdao_id, self._plugins)
            return await store_tools.list_records(connection, asked)

    async def get(self, microdao_id: str, tool_id: str) -> Row:
        """A tool. Raises NotFound."""
        check_text(tool_id, "tool_id")
        async with self._database.tenant(microdao_id) as connection:
            return await _record(connection, tool_id)

    async def change(self, principal: Principal, tool_id: str, changes: Changes) -> Row:
        """Change a tool: a changed definition is a new version, one that says the same is none.

        Changes at once follow one another, each on top of the one before. Raises NotFound, InvalidRequest, Conflict.
        """
        check_text(tool_id, "tool_id")
        check_labels(changes.tags or (), changes.aliases or ())
        microdao_id = principal.microdao_id
        async with self._database.tenant(microdao_id) as connection:
            current = await _held(connection, tool_id)
            before = definition_from(current)
            after = changed(before, changes.fields)
            if after != before:
                is_same = (after.config, after.parameters) == (before.config, before.parameters)
                check_definition(after, None if is_same else self._checks)
                version = await add_version(connection, microdao_id, current, after, principal.key_id)
                await (store_tools.set_pending if changes.staged else store_tools.point_to)(
                    connection, tool_id, version
                )
            if changes.tags is not None:
                await store_tools.set_tags(connection, tool_id, changes.tags)
            if changes.aliases is not None:
                await _set_aliases(connection, microdao_id, tool_id, changes.aliases)
            return await _record(connection, tool_id)

    async def versions(self, microdao_id: str, tool_id: str, before: int | None, limit: int) -> list[Row]:
        """Versions, newest first, those of a deleted tool too. Raises NotFound."""
        check_text(tool_id, "tool_id")
        async with self._database.tenant(microdao_id) as connection:
            rows = await store_tools.list_versions(connection, tool_id, before or _NO_LIMIT, limit)
        if not rows and before is None:
            raise _no_tool(tool_id)
        return rows

    async def version(self, microdao_id: str, tool_id: str, version: int) -> Row:
        """One version. Raises NotFound."""
        check_text(tool_id, "tool_id")
        async with self._database.tenant(microdao_id) as connection:
            return await _version(connection, tool_id, version)

    async def activate(self, microdao_id: str, tool_id: str, version: int | None) -> Row:
        """Let a tool run, at ``version``: without it at the one that waits for approval, or at the one it had.

        Raises NotFound.
        """
        check_text(tool_id, "tool_id")
        async with self._database.tenant(microdao_id) as connection:
            current = await _held(connection, tool_id)
            chosen = version or current["pending_version"] or current["version"]
            await _version(connection, tool_id, chosen)
            await store_tools.set_active(connection, tool_id, chosen, active=True)
            return await _record(connection, tool_id)

    async def deactivate(self, microdao_id: str, tool_id: str, reason: str | None) -> Row:
        """Stop a tool from being run. Raises NotFound."""
        check_text(tool_id, "tool_id")
        check_text(reason or "", "reason")
        if len(reason or "") > _MAX_REASON:
            raise InvalidRequest(f"reason may have {_MAX_REASON} characters", param="reason")
        async with self._database.tenant(microdao_id) as connection:
            await _held(connection, tool_id)
            await store_tools.disable(connection, tool_id, reason)
            return await _record(connection, tool_id)

    async def delete(self, microdao_id: str, tool_id: str) -> None:
        """Take a tool out of the catalogue. Its versions and runs stay for the audit. Raises NotFound."""
        check_text(tool_id, "tool_id")
        async with self._database.tenant(microdao_id) as connection:
            await _held(connection, tool_id)
            await store_tools.archive(connection, tool_id)


def definition_from(row: Row) -> Definition:
    """The definition in a row of a tool or a version."""
    return Definition(
        **{**{field: row[field] for field in DEFINITION_FIELDS}, "environments": tuple(row["environments"])}
    )


async def add_version(
    connection: Connection, microdao_id: str, current: Row, definition: Definition, created_by: str
) -> int:
    """Add a version to a tool that the transaction holds; its number."""
    version: int = current["latest_version"] + 1
    row = definition.row(current["id"], current["name"])
    await store_tools.insert_version(connection, microdao_id, current["id"], version, row, created_by)
    return version


async def grant_to(connection: Connection, microdao_id: str, agent_ids: Sequence[str], tool_ids: Sequence[str]) -> None:
    """Grant tools to agents. Raises NotFound for an agent that is not there."""
    for agent_id in agent_ids:
        check_text(agent_id, "grant_to")
    if unknown := await store_tools.unknown_agents(connection, agent_ids):
        raise NotFound(f"no agent {unknown[0]!r} in this microDAO", param="grant_to")
    await store_tools.grant_all(connection, microdao_id, agent_ids, tool_ids)


async def _set_aliases(connection: Connection, microdao_id: str, tool_id: str, aliases: Sequence[str]) -> None:
    if taken := await store_tools.set_aliases(connection, microdao_id, tool_id, aliases):
        raise Conflict(f"the alias {taken[0]!r} is another tool's name or alias", param="aliases")


async def _name_taken(connection: Connection, name: str) -> Conflict:
    rival = (await store_tools.taken_names(connection, [name])).get(name, name)
    if rival == name:
        return Conflict(f"a tool named {name!r} exists: change it, or take another name", param="name")
    return Conflict(f"a model could not tell {name!r} from {rival!r}: take another name", param="name")


async def _held(connection: Connection, tool_id: str) -> Row:
    row = await store_tools.lock_record(connection, tool_id)
    if row is None:
        raise _no_tool(tool_id)
    return row


async def _record(connection: Connection, tool_id: str) -> Row:
    row = await store_tools.find_record(connection, tool_id)
    if row is None:
        raise _no_tool(tool_id)
    return row


async def _version(connection: Connection, tool_id: str, version: int) -> Row:
    row = await store_tools.find_version(connection, tool_id, version)
    if row is None:
        raise NotFound(f"the tool has no version {version}", param="version")
    return row


def _no_tool(tool_id: str) -> NotFound:
    return NotFound(f"no tool {tool_id[:100]!r}", param="tool_id")
