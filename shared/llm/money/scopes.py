"""What limits and budgets are set for."""

from dataclasses import dataclass
from typing import Final, Literal

ScopeKind = Literal["platform", "microdao", "agent", "key", "flow"]
Period = Literal["day", "month", "total"]

PLATFORM: Final = "*"
"""Stands for the microDAO and the id of the platform's own rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScopeKey:
    """What a limit or budget is for: everything, a microDAO, or an agent, key or flow of it."""

    microdao_id: str
    scope: ScopeKind
    id: str
