"""Removes what retention says goes, in bounded batches, each a transaction with its report.

A dry run takes the same steps and deletes nothing: what was chosen is passed over from then on, as if it were gone.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from shared.db.database import Connection, Database
from shared.memory.model import ScopeRef
from shared.memory.retention import store_pruning, store_retention
from shared.memory.retention.pruning import Excess, Reason, Removal, Unit, evict, excess, judge
from shared.memory.retention.scopes import Scope, all_cutoffs, rule_columns

_BATCH = 500  # units a transaction
_LOWEST = 5000  # units put in order of value at once, which looks at all of their scopes


@dataclass(slots=True)
class Pruning:
    """One run over scopes of a microDAO: what was looked at, what goes, and which of some scopes is worth least."""

    microdao_id: str
    scopes: Sequence[Scope]
    is_of_all: bool
    dry_run: bool
    now: datetime
    seen: set[str] = field(default_factory=set)
    removals: list[Removal] = field(default_factory=list)
    lowest: dict[tuple[int, ...], list[str]] = field(default_factory=dict)

    def chosen(self, scopes: Iterable[int]) -> Excess:
        """How much of these scopes is chosen, but not gone, because this is a dry run."""
        chosen = set(scopes)
        units = [one.unit for one in self.removals if self.dry_run and one.unit.scope_id in chosen]
        return Excess(items=sum(unit.items for unit in units), bytes=sum(unit.bytes for unit in units))


class Pruner:
    """Prunes."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def step(self, run: Pruning) -> bool:
        """Remove a batch; False when nothing is left to do."""
        async with self._database.tenant(run.microdao_id) as connection:
            return await self._outdated(connection, run) or await self._over_caps(connection, run)

    async def _outdated(self, connection: Connection, run: Pruning) -> bool:
        limits = all_cutoffs([scope for scope in run.scopes if scope.policy.removes], run.now)
        if not limits:
            return False
        found = await store_pruning.find_outdated(connection, rule_columns(limits), list(run.seen), _BATCH)
        await _remove(connection, run, judge(await _units(connection, run, found), limits))
        return bool(found)

    async def _over_caps(self, connection: Connection, run: Pruning) -> bool:
        caps = list(_caps(run))
        if not caps:
            return False
        ids = [scope.id for scope in run.scopes]
        usage = {row["scope_id"]: row for row in await store_pruning.read_usage(connection, ids)}
        for scopes, max_items, max_bytes, reason in caps:
            gone = run.chosen(scopes)
            items = sum(usage[one]["items"] for one in scopes if one in usage) - gone.items
            size = sum(usage[one]["bytes"] for one in scopes if one in usage) - gone.bytes
            over = excess(items, size, max_items, max_bytes)
            if over.is_over and await self._evict(connection, run, scopes, over, reason):
                return True
        return False

    async def _evict(
        self, connection: Connection, run: Pruning, scopes: Sequence[int], over: Excess, reason: Reason
    ) -> bool:
        waiting = run.lowest.setdefault(tuple(scopes), [])
        if not waiting:
            waiting += await store_pruning.find_lowest(connection, scopes, list(run.seen), _LOWEST)
        found, waiting[:] = waiting[:_BATCH], waiting[_BATCH:]
        units = await _units(connection, run, found)
        removals = evict(units, over, reason)
        if len(removals) < len(units):  # enough: what was not needed may be for another cap
            run.seen -= {unit.id for unit in units} - {removal.unit.id for removal in removals}
        await _remove(connection, run, removals)
        return bool(found)


def _caps(run: Pruning) -> Iterator[tuple[list[int], int | None, int | None, Reason]]:
    """Each cap that is on: the scopes it is of, the most items and bytes, the reason it gives.

    An agent's is of its own memory and its users' together: how many users there will be nobody knows.
    """
    owned: dict[ScopeRef, list[Scope]] = defaultdict(list)
    for scope in run.scopes:
        owned[scope.owner].append(scope)
    for scopes in owned.values():
        policy = scopes[0].policy
        if policy.max_items is not None or policy.max_bytes is not None:
            yield [scope.id for scope in scopes], policy.max_items, policy.max_bytes, "size"
    whole = next((scope.policy for scope in run.scopes if scope.kind == "microdao"), None)
    if run.is_of_all and whole and (whole.total_max_items is not None or whole.total_max_bytes is not None):
        yield [scope.id for scope in run.scopes], whole.total_max_items, whole.total_max_bytes, "total_size"


async def _units(connection: Connection, run: Pruning, found: Sequence[str]) -> list[Unit]:
    """The units as they are now; held until the end of the transaction, unless nothing is to be removed."""
    run.seen |= set(found)
    held = found if run.dry_run else await store_pruning.lock_units(connection, found)
    rows = await store_pruning.read_units(connection, held) if held else []
    names = Unit.__dataclass_fields__
    return [Unit(**{name: value for name, value in row.items() if name in names}) for row in rows]


async def _remove(connection: Connection, run: Pruning, removals: Sequence[Removal]) -> None:
    run.removals += removals
    if run.dry_run or not removals:
        return
    units = [removal.unit for removal in removals]
    await store_pruning.delete_units(
        connection,
        [unit.id for unit in units if not unit.is_document],
        [unit.id for unit in units if unit.is_document],
    )
    scopes = {scope.id: scope for scope in run.scopes}
    grouped: dict[tuple[int, Reason], list[Unit]] = defaultdict(list)
    for removal in removals:
        grouped[removal.unit.scope_id, removal.reason].append(removal.unit)
    for (scope_id, reason), gone in grouped.items():
        entry = {**scopes[scope_id].reported_as, "reason": reason}
        counts = {"items": sum(one.items for one in gone), "bytes": sum(one.bytes for one in gone)}
        await store_retention.write_report(
            connection, run.microdao_id, {**entry, **counts, "ids": [one.id for one in gone]}
        )
