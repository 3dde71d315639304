"""Which memories go and why. Pure: rows in, removals out.

The unit is an item, or a document with all its chunks: a document with a hole in it would mislead whoever reads it, so
it goes whole or stays whole. What is pinned (importance 1) never goes: only its own expiry ends it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from shared.memory.model import Tier
from shared.memory.retention.policy import Cutoffs

Reason = Literal["age", "unused", "size", "total_size"]
PINNED = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """An item or a document, with what decides about it. ``value``: what is worth least goes first."""

    id: str
    is_document: bool
    scope_id: int
    tier: Tier
    items: int
    bytes: int
    importance: float
    hits: int
    created_at: datetime
    value: float


@dataclass(frozen=True, slots=True)
class Removal:
    """A unit that goes, and why."""

    unit: Unit
    reason: Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Excess:
    """By how much a scope is over its caps; nothing above 0 is none."""

    items: int = 0
    bytes: int = 0

    @property
    def is_over(self) -> bool:
        """Whether something must go."""
        return self.items > 0 or self.bytes > 0


def reason_to_remove(unit: Unit, limits: Cutoffs) -> Reason | None:
    """Too old for its tier, or never found and of little importance; None to keep it."""
    if unit.importance >= PINNED:
        return None
    oldest = limits.of_tier(unit.tier)
    if oldest is not None and unit.created_at < oldest:
        return "age"
    is_idle = limits.unused is not None and unit.created_at < limits.unused and unit.hits == 0
    return "unused" if is_idle and unit.importance < limits.unused_importance_below else None


def excess(items: int, size: int, max_items: int | None, max_bytes: int | None) -> Excess:
    """By how much ``items`` of ``size`` bytes are over the caps (None: no cap)."""
    return Excess(
        items=0 if max_items is None else max(0, items - max_items),
        bytes=0 if max_bytes is None else max(0, size - max_bytes),
    )


def evict(units: Iterable[Unit], over: Excess, reason: Reason) -> list[Removal]:
    """The units that are worth least, no more of them than needed to come down by the excess.

    Where a large document has to go, what went before it and still has room stays after all, the best first.
    """
    removals: list[Removal] = []
    for unit in sorted(units, key=lambda one: (one.value, one.id)):
        if not over.is_over:
            break
        if unit.importance < PINNED:
            removals.append(Removal(unit, reason))
            over = Excess(items=over.items - unit.items, bytes=over.bytes - unit.bytes)
    for removal in removals[::-1]:
        unit = removal.unit
        without = Excess(items=over.items + unit.items, bytes=over.bytes + unit.bytes)
        if not over.is_over and not without.is_over:
            removals.remove(removal)
            over = without
    return removals


def judge(units: Sequence[Unit], limits: dict[int, Cutoffs]) -> list[Removal]:
    """What goes by age and use, each unit by the limits of its scope."""
    found = ((unit, reason_to_remove(unit, limits[unit.scope_id])) for unit in units)
    return [Removal(unit, reason) for unit, reason in found if reason is not None]
