"""What goes into memory, what is asked of it and what comes out."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, get_args

Tier = Literal["short_term", "mid_term", "long_term"]
TIERS: tuple[Tier, ...] = get_args(Tier)
State = Literal["pending", "ready", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NewMemory:
    """A memory to keep. ``content`` holds ``user_message`` and ``agent_reply``, or ``text`` and perhaps ``title``."""

    microdao_id: str
    agent_id: str
    tier: Tier
    content: dict[str, Any]
    importance: float = 0.5
    channel_id: str | None = None
    session_id: str | None = None
    occurred_at: datetime | None = None
    expires_at: datetime | None = None
    source: str | None = None


@dataclass(frozen=True, slots=True)
class StoredMemory:
    """Where a memory is kept; ``pending`` until it can be found by meaning."""

    id: str
    state: State


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryQuery:
    """A question to one agent's memory. ``tiers`` empty means all; ``since`` is inclusive, ``until`` exclusive.

    Without ``with_content`` what is found has its text only, and an empty ``content``.
    """

    microdao_id: str
    agent_id: str
    query: str
    k: int = 5
    tiers: tuple[Tier, ...] = ()
    channel_id: str | None = None
    session_id: str | None = None
    source: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    explain: bool = False
    with_content: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Recollection:
    """A memory that answers a query. ``score`` is 0 (unrelated) to 1 (the same); ``why`` has its parts if asked for."""

    id: str
    tier: Tier
    score: float
    content: dict[str, Any]
    text: str
    occurred_at: datetime
    session_id: str | None
    source: str | None
    why: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryStats:
    """One agent's memory in figures. ``pending`` counts what is not yet found by meaning; ``bytes`` is of content."""

    items: dict[Tier, int]
    pending: int
    failed: int
    bytes: int
    queries: int
    last_indexed_at: datetime | None


@dataclass(frozen=True, slots=True)
class IndexJob:
    """A delivery of "embed this item": the queue's id for the message, and what the message says."""

    message_id: str
    job_id: str
    microdao_id: str
    item_id: str
