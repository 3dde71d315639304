"""What a restore has to do: a snapshot's items beside those that are there. Pure."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal

from shared.ids import derived_id

Mode = Literal["replace", "merge"]
Row = Mapping[str, Any]

# What makes a memory another one when it differs; of what else there is, rows are brought up to date.
_IDENTITY = ("content_hash", "occurred_at", "source", "channel_id", "session_id", "document_id", "position")
_IMPORTANCE_STEP = 1e-6  # the database keeps single precision


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Whose memory is restored: an agent's own, or what it keeps for a user.

    ``is_origin``: the snapshot was taken from this agent's, so that ids may be used again.
    """

    microdao_id: str
    agent_id: str
    user_id: str | None = None
    is_origin: bool = False


@dataclass(frozen=True, slots=True)
class Prepared:
    """An item of a snapshot with its ids in the file. If ``is_fixed`` its row has its own id already (a chunk's)."""

    id: str
    row: dict[str, Any]
    summary_id: str | None
    is_fixed: bool


@dataclass(slots=True)
class Plan:
    """What to do, in this order: remove, add, change, link (item's id → summary's). ``kept`` counts what stays."""

    remove: list[str] = field(default_factory=list)
    add: list[dict[str, Any]] = field(default_factory=list)
    change: list[dict[str, Any]] = field(default_factory=list)
    links: dict[str, str] = field(default_factory=dict)
    kept: int = 0


def plan_documents(wanted: Sequence[Row], existing: Sequence[Row], mode: Mode) -> tuple[list[Row], list[str]]:
    """The documents to add, and the ids of those to remove first."""
    there = {one["id"]: one for one in existing}
    if mode == "merge":
        return [one for one in wanted if one["id"] not in there], []
    columns = tuple(existing[0]) if existing else ()
    same = {one["id"] for one in wanted if _agree(one, there.get(one["id"], {}), columns)} & there.keys()
    return [one for one in wanted if one["id"] not in same], [one for one in there if one not in same]


def plan_items(target: Target, wanted: Sequence[Prepared], existing: Sequence[Row], mode: Mode, now: datetime) -> Plan:
    """What makes ``existing`` the snapshot, or adds to it what it lacks. What expired is neither wanted nor there."""
    alive = {row["id"]: row for row in existing if not _is_expired(row, now)}
    wanted = [one for one in wanted if not _is_expired(one.row, now)]
    ids = _resolve(target, wanted, alive)
    if mode == "merge":
        wanted = _without_outdated_summaries(wanted, ids, alive)
    plan = Plan()
    for one in wanted:
        own_id = ids[one.id]
        summary_id = ids.get(one.summary_id) if one.summary_id else None
        _place(plan, one.row, own_id, summary_id, alive.get(own_id), mode)
    if mode == "replace":
        plan.remove += sorted(alive.keys() - set(ids.values()))
    return plan


def _without_outdated_summaries(
    wanted: Sequence[Prepared], ids: Mapping[str, str], alive: Mapping[str, Row]
) -> Sequence[Prepared]:
    """A summary that is gone stays away where anything it stood for is there: that may say something else by now, is
    found itself, and would not take the summary along when it is forgotten."""
    quoted = {one.summary_id for one in wanted if ids[one.id] in alive}
    outdated = {one.id for one in wanted if one.id in quoted and ids[one.id] not in alive}
    return [
        replace(one, summary_id=None) if one.summary_id in outdated else one for one in wanted if one.id not in outdated
    ]


def _place(plan: Plan, row: Row, own_id: str, summary_id: str | None, there: Row | None, mode: Mode) -> None:
    is_same = there is not None and (mode == "merge" or _is_same(there, row, summary_id))
    if is_same and there is not None:
        plan.kept += 1
        if mode == "replace" and _is_outdated(there, row):
            plan.change.append({**row, "id": own_id})
    else:
        plan.add.append({**row, "id": own_id})
        if there is not None:
            plan.remove.append(own_id)
    if summary_id and (mode == "replace" or not is_same):
        plan.links[own_id] = summary_id


def _resolve(target: Target, wanted: Sequence[Prepared], alive: Mapping[str, Row]) -> dict[str, str]:
    """Each file id's id in the target: that of the same memory if it is there, else the one it gets.

    An id from a file is not taken over unless it is known to be the target's own: it may be somebody else's.
    """
    ids = {one.id: next((own for own in _names(target, one) if own in alive), "") for one in wanted}
    unclaimed = defaultdict(list)
    claimed = set(ids.values())
    for key, row in alive.items():
        if key not in claimed:
            unclaimed[_fingerprint(row)].append(key)
    for one in wanted:
        if not ids[one.id]:
            twins = unclaimed[_fingerprint(one.row)] if not one.is_fixed else []
            ids[one.id] = twins.pop(0) if twins else _names(target, one)[0 if target.is_origin else -1]
    return ids


def _names(target: Target, one: Prepared) -> tuple[str, ...]:
    if one.is_fixed:
        return (one.row["id"],)
    users = ("user", target.user_id) if target.user_id is not None else ()
    return one.id, derived_id("mem", target.microdao_id, "agent", target.agent_id, *users, one.id)


def _fingerprint(row: Row) -> tuple[Any, ...]:
    return (row["tier"], *(row[column] for column in _IDENTITY))


def _is_same(there: Row, row: Row, summary_id: str | None) -> bool:
    return there["summary_id"] == summary_id and _agree(there, row, _IDENTITY)


def _agree(one: Row, other: Row, columns: Sequence[str]) -> bool:
    return all(one.get(column) == other.get(column) for column in columns)


def _is_outdated(there: Row, row: Row) -> bool:
    is_weighted_alike = abs(there["importance"] - row["importance"]) < _IMPORTANCE_STEP
    return not is_weighted_alike or not _agree(there, row, ("tier", "expires_at"))


def _is_expired(row: Row, now: datetime) -> bool:
    return row["expires_at"] is not None and row["expires_at"] <= now
