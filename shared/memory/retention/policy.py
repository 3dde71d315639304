"""What a microDAO asks of retention, and what follows for one scope. Pure.

Every limit is off by default: nothing is removed and nothing is summarised until somebody asks for it. A platform
cannot know what may be lost, a summary finds less than its sources, and a model that writes one costs money.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any

from shared.memory.model import Tier


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionPolicy:
    """The limits of one scope (an agent's with its users', a team's or the shared memory); None is no limit.

    Ages count from when an item was stored. ``max_items`` and ``max_bytes`` (of content as JSON) are of each scope,
    ``total_max_*`` of the microDAO. Never found for ``unused_after_days`` and less important than
    ``unused_importance_below``: removed. ``consolidate_min_items`` exchanges of one thread, each older than
    ``consolidate_after_days``, become a summary by ``consolidate_model`` (None: made of their own sentences).
    """

    short_term_max_age_days: float | None = None
    mid_term_max_age_days: float | None = None
    long_term_max_age_days: float | None = None
    max_items: int | None = None
    max_bytes: int | None = None
    total_max_items: int | None = None
    total_max_bytes: int | None = None
    unused_after_days: float | None = None
    unused_importance_below: float = 0.3
    consolidate_after_days: float | None = None
    consolidate_min_items: int = 6
    consolidate_model: str | None = None

    @property
    def removes(self) -> bool:
        """Whether any limit of the scope itself is on."""
        ages = (self.short_term_max_age_days, self.mid_term_max_age_days, self.long_term_max_age_days)
        return any(one is not None for one in (*ages, self.unused_after_days, self.max_items, self.max_bytes))


@dataclass(frozen=True, slots=True, kw_only=True)
class Cutoffs:
    """A policy at one moment: what was stored before these goes; None is never."""

    short_term: datetime | None
    mid_term: datetime | None
    long_term: datetime | None
    unused: datetime | None
    unused_importance_below: float

    def of_tier(self, tier: Tier) -> datetime | None:
        """Before when an item of this tier is too old."""
        return {"short_term": self.short_term, "mid_term": self.mid_term, "long_term": self.long_term}[tier]


SETTINGS = tuple(field.name for field in fields(RetentionPolicy))


def effective_policy(*levels: Mapping[str, Any]) -> RetentionPolicy:
    """The defaults, overridden by each level in turn: the microDAO's settings, then an agent's."""
    merged: dict[str, Any] = {}
    for level in levels:
        merged |= {name: value for name, value in level.items() if name in SETTINGS}
    return RetentionPolicy(**merged)


def cutoffs(policy: RetentionPolicy, now: datetime) -> Cutoffs:
    """When what was stored is too old."""
    return Cutoffs(
        short_term=days_before(now, policy.short_term_max_age_days),
        mid_term=days_before(now, policy.mid_term_max_age_days),
        long_term=days_before(now, policy.long_term_max_age_days),
        unused=days_before(now, policy.unused_after_days),
        unused_importance_below=policy.unused_importance_below,
    )


def days_before(now: datetime, days: float | None) -> datetime | None:
    """The moment so many days ago; None for no limit."""
    return None if days is None else now - timedelta(days=days)
