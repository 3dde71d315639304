"""The scopes that retention works on, each with its effective policy."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from shared.db.database import Connection
from shared.memory.model import ScopeKind, ScopeRef
from shared.memory.retention import store_retention
from shared.memory.retention.policy import Cutoffs, RetentionPolicy, cutoffs, effective_policy


@dataclass(frozen=True, slots=True)
class Scope:
    """An agent's, a team's, the shared or an end user's memory, and what holds for it. ``owner``: a user's is that of
    the agent whose user it is, of all others they are their own."""

    id: int
    kind: ScopeKind
    name: str
    owner: ScopeRef
    policy: RetentionPolicy

    @property
    def reported_as(self) -> dict[str, str]:
        """What a report calls it."""
        return {"scope_kind": self.owner.kind, "scope_name": self.owner.name}


async def read_scopes(connection: Connection, agent_id: str | None) -> list[Scope]:
    """All scopes of the microDAO, or the agent's own and its users'."""
    policies: dict[ScopeRef, RetentionPolicy] = {}
    scopes = []
    for row in await store_retention.read_scopes(connection, agent_id):
        owner = ScopeRef(row["owner_kind"], row["owner"])
        if owner not in policies:
            policies[owner] = effective_policy(row["settings"], row["own_settings"])
        scopes.append(Scope(row["scope_id"], row["kind"], row["name"], owner, policies[owner]))
    return scopes


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
