"""What goes into memory, what is asked of it and what comes out."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, get_args

Tier = Literal["short_term", "mid_term", "long_term"]
TIERS: tuple[Tier, ...] = get_args(Tier)

State = Literal["pending", "ready", "failed"]
ScopeKind = Literal["agent", "team", "microdao", "user"]
Access = Literal["read", "write"]
SearchMode = Literal["hybrid", "vector", "lexical"]


@dataclass(frozen=True, slots=True)
class ScopeRef:
    """Whose memory: an agent's, a team's or the whole microDAO's, with that agent's, team's or microDAO's id.

    Or an end user's: what the acting agent remembers for that one alone, with the user's id.
    """

    kind: ScopeKind
    name: str

    @property
    def user_id(self) -> str | None:
        """The end user whose memory it is, if it is one's."""
        return self.name if self.kind == "user" else None


@dataclass(frozen=True, slots=True)
class Grantee:
    """Who has memory to share, and with whom it can be shared."""

    kind: Literal["agent", "team"]
    name: str


@dataclass(frozen=True, slots=True)
class Reason:
    """Why an agent may read or write a scope; a grant's id, and the team that has it when it is not the agent's."""

    reason: Literal["own", "member", "microdao", "grant"]
    access: Access
    grant_id: str | None = None
    team_id: str | None = None


@dataclass(frozen=True, slots=True)
class Reach:
    """A scope that an agent may read, and whether it may write it."""

    scope: ScopeRef
    access: Access
    reasons: tuple[Reason, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class NewMemory:
    """A memory to keep. ``content`` holds ``user_message`` and ``agent_reply``, or ``text`` and perhaps ``title``.

    ``scope`` None is the agent's own. ``by_admin``: the caller was permitted to administer memory, and may write into
    the microDAO's own scope, which no agent can.
    """

    microdao_id: str
    agent_id: str
    tier: Tier
    content: dict[str, Any]
    scope: ScopeRef | None = None
    by_admin: bool = False
    importance: float = 0.5
    channel_id: str | None = None
    session_id: str | None = None
    occurred_at: datetime | None = None
    expires_at: datetime | None = None
    source: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryChange:
    """What becomes of a memory. None leaves ``content`` or ``importance`` as it is; ``sets_expiry`` makes
    ``expires_at`` hold, None being never. ``by_admin``: of the microDAO's own scope, as of NewMemory. ``user_id``: it
    may be that end user's.
    """

    microdao_id: str
    agent_id: str
    item_id: str
    user_id: str | None = None
    by_admin: bool = False
    content: dict[str, Any] | None = None
    importance: float | None = None
    sets_expiry: bool = False
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class StoredMemory:
    """Where a memory is kept; ``pending`` until it can be found by meaning."""

    id: str
    state: State


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """Which memories may answer. ``tiers`` and ``scopes`` empty means all; ``since`` is inclusive, ``until`` exclusive.

    ``metadata`` must be contained in the content's ``context``; ``documents_only`` leaves passages of documents.
    """

    tiers: tuple[Tier, ...] = ()
    scopes: tuple[ScopeKind, ...] = ()
    channel_id: str | None = None
    session_id: str | None = None
    document_id: str | None = None
    source: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    documents_only: bool = False

    @property
    def narrow(self) -> bool:
        """Whether they leave out any item of the scopes that they allow."""
        return self != Filters(scopes=self.scopes)


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryQuery:
    """A question to what one agent may read.

    ``user_id``: with that end user's memory. ``context_turns``: so many neighbours before and after come with each
    memory found. Without ``with_content`` what is found has its text only, and an empty ``content``. What scores less
    than ``min_score`` (0 to 1) is neither found nor counted as used.
    """

    microdao_id: str
    agent_id: str
    query: str
    user_id: str | None = None
    k: int = 5
    min_score: float = 0.0
    filters: Filters = field(default_factory=Filters)
    mode: SearchMode = "hybrid"
    context_turns: int = 0
    explain: bool = False
    with_content: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """A neighbour of a memory in its conversation or document."""

    id: str
    text: str
    occurred_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Recollection:
    """A memory that answers a query. ``score`` is 0 (unrelated) to 1 (the same); ``why`` has its parts if asked for.

    ``duplicate_of`` names a better one that says the same.
    """

    id: str
    tier: Tier
    scope: ScopeRef
    score: float
    content: dict[str, Any]
    text: str
    occurred_at: datetime
    session_id: str | None
    channel_id: str | None
    document_id: str | None
    position: int | None
    source: str | None
    duplicate_of: str | None = None
    before: tuple[Turn, ...] = ()
    after: tuple[Turn, ...] = ()
    why: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryStats:
    """One agent's memory in figures, with its users'. ``pending`` counts what is not yet found by meaning; ``bytes`` is
    of content."""

    items: dict[Tier, int]
    pending: int
    failed: int
    bytes: int
    queries: int
    last_indexed_at: datetime | None


@dataclass(frozen=True, slots=True)
class IndexJob:
    """A delivery of "index these items": the queue's id for the message, and what the message says.

    ``reindex_id`` is the run of reindexing that asks for it, if one does.
    """

    message_id: str
    job_id: str
    microdao_id: str
    item_ids: tuple[str, ...]
    reindex_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """A page of what an agent may read, newest first, from before a cursor (a moment and an item's number) on.

    ``user_id``: with that end user's memory. ``written_by`` keeps to what one agent stored.
    """

    microdao_id: str
    agent_id: str
    filters: Filters
    user_id: str | None = None
    written_by: str | None = None
    before: tuple[datetime, int] | None = None
    limit: int = 100
