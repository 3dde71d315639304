"""The scopes that retention works on, each with its effective policy."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from shared.db.database import Connection
from shared.memory.model import ScopeKind
from shared.memory.retention import store_retention
from shared.memory.retention.policy import Cutoffs, RetentionPolicy, cutoffs, effective_policy


@dataclass(frozen=True, slots=True)
class Scope:
    """An agent's, a team's or the shared memory, and what holds for it."""

    id: int
    kind: ScopeKind
    name: str
    policy: RetentionPolicy


async def read_scopes(connection: Connection, agent_id: str | None) -> list[Scope]:
    """All scopes of the microDAO, or the agent's own alone."""
    rows = await store_retention.read_scopes(connection, agent_id)
    return [
        Scope(row["scope_id"], row["kind"], row["name"], effective_policy(row["settings"], row["own_settings"]))
        for row in rows
    ]


def all_cutoffs(scopes: Sequence[Scope], now: datetime) -> dict[int, Cutoffs]:
    """The moments before which items of each scope go."""
    return {scope.id: cutoffs(scope.policy, now) for scope in scopes}


def rule_columns(limits: dict[int, Cutoffs]) -> dict[str, list[Any]]:
    """The same as columns for a statement."""
    return {
        "scopes": list(limits),
        "short_term": [one.short_term for one in limits.values()],
        "mid_term": [one.mid_term for one in limits.values()],
        "long_term": [one.long_term for one in limits.values()],
        "unused": [one.unused for one in limits.values()],
        "below": [one.unused_importance_below for one in limits.values()],
    }
