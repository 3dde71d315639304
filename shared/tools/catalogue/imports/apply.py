"""From what a source says now to the catalogue: new tools, and old ones that changed or vanished."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from shared.db.database import Connection, Row
from shared.errors import InvalidRequest
from shared.ids import new_id
from shared.tools.catalogue import store, store_tools
from shared.tools.catalogue.catalogue import add_version, definition_from, grant_to
from shared.tools.catalogue.configs import ConfigChecks
from shared.tools.catalogue.definition import Definition, check_definition, check_name
from shared.tools.catalogue.imports import store_imports
from shared.tools.catalogue.imports.model import SOURCE_FIELDS, Candidate, Line, Reading

_CHANGED: Final = "what its source says of it changed: look at version {version} and activate it"
_BACK: Final = "what its source says of it changed and is again as in version {version}: activate it"
_VANISHED: Final = "its source does not have it any more"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Into which import, and how. ``makes``: tools that are new there are made (else only told of).

    ``is_whole``: what the reading lacks has vanished.
    """

    microdao_id: str
    import_id: str
    actor: str
    makes: bool = True
    is_whole: bool = True
    active: bool = True
    grant_to: Sequence[str] = ()


def sound(reading: Reading, checks: ConfigChecks) -> Reading:
    """The reading without the candidates that cannot be stored; these are skipped with the reason."""
    candidates, skipped = [], list(reading.skipped)
    for candidate in reading.candidates:
        try:
            check_name(candidate.name)
            check_definition(candidate.definition, checks)
        except InvalidRequest as error:
            skipped.append((candidate.source_name, error.message))
        else:
            candidates.append(candidate)
    return replace(reading, candidates=candidates, skipped=skipped)


async def apply(connection: Connection, target: Target, reading: Reading) -> list[Line]:
    """Write it all in this transaction; a line for each tool."""
    items = {item["source_name"]: item for item in await store_imports.list_items(connection, target.import_id)}
    tool_ids = [item["tool_id"] for item in items.values()]
    tools = {row["id"]: row for row in await store_tools.records_of(connection, tool_ids)}
    lines, new = [], []
    for candidate in reading.candidates:
        item = items.get(candidate.source_name)
        if item is None:
            new.append(candidate)
        else:
            lines.append(await _again(connection, target, candidate, item, tools[item["tool_id"]]))
    lines += await _make(connection, target, new)
    lines += [Line(source_name=name, name=None, outcome="skipped", reason=reason) for name, reason in reading.skipped]
    if target.is_whole:
        there = {candidate.source_name for candidate in reading.candidates}
        for name, item in items.items():
            if name not in there:
                lines.append(await _gone(connection, item, tools[item["tool_id"]]))
    return lines


async def _again(connection: Connection, target: Target, candidate: Candidate, item: Row, tool: Row) -> Line:
    line = Line(
        source_name=candidate.source_name,
        name=tool["name"],
        outcome="unchanged",
        tool_id=tool["id"],
        version=tool["pending_version"] or tool["version"],
    )
    if item["source_hash"] == candidate.source_hash:
        if item["vanished_at"] is not None:
            await store_imports.note_seen(connection, tool["id"], candidate.source_hash)
        return line
    await store_imports.note_seen(connection, tool["id"], candidate.source_hash)
    before = definition_from(tool)
    after = _with_source(before, candidate.definition)
    if after == before:
        await store_tools.set_pending(connection, tool["id"], None)
        reason = _BACK.format(version=tool["version"])
        version = tool["version"]
    else:
        version = await add_version(connection, target.microdao_id, tool, after, target.actor)
        await store_tools.set_pending(connection, tool["id"], version)
        reason = _CHANGED.format(version=version)
    await store_tools.disable(connection, tool["id"], reason)
    return replace(line, outcome="changed", reason=reason, version=version)


async def _gone(connection: Connection, item: Row, tool: Row) -> Line:
    if item["vanished_at"] is None:
        await store_imports.note_vanished(connection, tool["id"])
        await store_tools.disable(connection, tool["id"], _VANISHED)
    return Line(
        source_name=item["source_name"],
        name=tool["name"],
        outcome="vanished",
        reason=_VANISHED,
        tool_id=tool["id"],
        version=tool["version"],
    )


async def _make(connection: Connection, target: Target, new: Sequence[Candidate]) -> list[Line]:
    if not target.makes:
        return [Line(source_name=one.source_name, name=one.name, outcome="found", reason=one.note) for one in new]
    taken = await store_tools.taken_names(connection, [one.name for one in new])
    lines = [_refused(one, taken[one.name]) for one in new if one.name in taken]
    made = {new_id("tool"): one for one in new if one.name not in taken}
    rows = [one.definition.row(tool_id, one.name, active=target.active) for tool_id, one in made.items()]
    await store.add_tools(connection, target.microdao_id, target.actor, rows)
    there = await store_imports.existing(connection, list(made))  # two names may have been one to a model
    lines += [_refused(one, "another of the import") for tool_id, one in made.items() if tool_id not in there]
    items = [_item(tool_id, one) for tool_id, one in made.items() if tool_id in there]
    await store_imports.add_items(connection, target.microdao_id, target.import_id, items)
    await grant_to(connection, target.microdao_id, target.grant_to, sorted(there))
    return lines + [_made(tool_id, one) for tool_id, one in made.items() if tool_id in there]


def _with_source(before: Definition, said: Definition) -> Definition:
    """What the source says now, with what is the administrator's as it was. It is idempotent only if both say so."""
    fields = {field: getattr(said, field) for field in SOURCE_FIELDS}
    return replace(before, **{**fields, "idempotent": before.idempotent and said.idempotent})


def _item(tool_id: str, candidate: Candidate) -> dict[str, str]:
    return {"tool_id": tool_id, "source_name": candidate.source_name, "source_hash": candidate.source_hash}


def _made(tool_id: str, candidate: Candidate) -> Line:
    return Line(
        source_name=candidate.source_name,
        name=candidate.name,
        outcome="made",
        reason=candidate.note,
        tool_id=tool_id,
        version=1,
    )


def _refused(candidate: Candidate, rival: str) -> Line:
    reason = f"the name is taken by {rival}: give a prefix"
    return Line(source_name=candidate.source_name, name=candidate.name, outcome="skipped", reason=reason)
