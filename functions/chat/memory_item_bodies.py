"""What is sent to an agent's memory, and what it answers."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, AwareDatetime, Field, model_validator

from functions.chat.memory_bodies import Identifier, ScopeBody, ScopeView, Source, UserBody
from functions.chat.schemas import Body, View
from shared.db.database import Row
from shared.memory.model import ScopeKind, SearchMode, Tier

Tiers = Annotated[list[Tier], Field(default_factory=list, max_length=3)]


class MemoryContent(Body):
    """An exchange (``user_message``, ``agent_reply``) or a text. ``context`` may name the ``author``."""

    user_message: str | None = Field(default=None, max_length=100_000)
    agent_reply: str | None = Field(default=None, max_length=100_000)
    text: str | None = Field(default=None, max_length=1_000_000)
    title: str | None = Field(default=None, max_length=1000)
    source: Source | None = None
    context: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _says_something(self) -> "MemoryContent":
        if not any((part or "").strip() for part in (self.user_message, self.agent_reply, self.text)):
            raise ValueError("give user_message and agent_reply, or text")
        return self


class StoreBody(ScopeBody):
    """What to remember."""

    memory_type: Tier = "mid_term"
    content: MemoryContent
    importance: float = Field(default=0.5, ge=0, le=1)
    channel_id: Identifier | None = None
    session_id: Identifier | None = None
    occurred_at: AwareDatetime | None = None
    expires_at: AwareDatetime | None = None


class ChangeBody(Body):
    """What becomes of a memory, at least one of these: another ``content`` in place of the whole one, another
    ``importance``, another end (``expires_at`` null: none)."""

    content: MemoryContent | None = None
    importance: float | None = Field(default=None, ge=0, le=1)
    expires_at: AwareDatetime | None = None

    @model_validator(mode="after")
    def _changes_something(self) -> "ChangeBody":
        if not self.model_fields_set:
            raise ValueError("give content, importance or expires_at")
        if any(getattr(self, name) is None for name in self.model_fields_set - {"expires_at"}):
            raise ValueError("only expires_at can be null; leave out what shall stay as it is")
        return self


class StoredView(View):
    """Stored; found by its words now, by meaning once its state is ``ready``."""

    id: str
    state: Literal["pending", "ready", "failed"]


class QueryFilters(Body):
    """Which memories may answer. ``metadata`` must be contained in a memory's ``content.context``."""

    channel_id: Identifier | None = None
    session_id: Identifier | None = None
    document_id: Identifier | None = None
    source: Source | None = None
    since: AwareDatetime | None = None
    until: AwareDatetime | None = None
    metadata: dict[str, Any] = Field(default_factory=dict, max_length=20)


class QueryBody(UserBody):
    """What to look for, in all that the agent may read or in some ``scopes`` only.

    ``context_turns`` brings so many neighbours before and after each memory. ``mode`` can switch off words or meaning.
    What scores less than ``min_score`` is left out: about .35 tells a hit from a miss.
    """

    query: str = Field(min_length=1, max_length=20_000, pattern=r"\S")
    k: int = Field(default=5, ge=1, le=100, validation_alias=AliasChoices("k", "limit"))
    memory_types: Tiers
    min_score: float = Field(default=0.0, ge=0.0, le=1.0)
    scopes: list[ScopeKind] = Field(default_factory=list, max_length=4)
    filters: QueryFilters = Field(default_factory=QueryFilters)
    mode: SearchMode = "hybrid"
    context_turns: int = Field(default=0, ge=0, le=5)
    explain: bool = False


class TurnView(View):
    """A neighbour in the conversation or document."""

    id: str
    text: str
    occurred_at: datetime


class PlacedView(View):
    """A memory and where it comes from."""

    id: str
    memory_type: Tier
    scope: ScopeView
    content: dict[str, Any]
    text: str
    occurred_at: datetime
    source: str | None
    session_id: str | None
    channel_id: str | None
    document_id: str | None
    position: int | None


class RecollectionView(PlacedView):
    """A memory found, best first. ``duplicate_of`` is a better one that says the same."""

    score: float
    duplicate_of: str | None
    before: list[TurnView]
    after: list[TurnView]
    why: dict[str, Any] | None = None


class QueryView(View):
    """The memories found."""

    memories: list[RecollectionView]


class RecentBody(UserBody):
    """A channel or session, and how much of it: the newest messages that fit into ``max_tokens`` together."""

    channel_id: Identifier | None = None
    session_id: Identifier | None = None
    memory_types: Tiers
    max_tokens: int = Field(default=2000, ge=1, le=200_000)
    limit: int = Field(default=100, ge=1, le=500)


class RecentMessage(PlacedView):
    """A message or exchange with its (estimated) tokens."""

    author: str | None
    tokens: int


class RecentView(View):
    """In order of time."""

    messages: list[RecentMessage]
    tokens: int


class ItemView(PlacedView):
    """A memory as it is stored. ``summary_id`` names the summary that is found in its place, if any."""

    agent_id: str
    author: str | None
    importance: float
    state: Literal["pending", "ready", "failed"]
    failure: str | None
    expires_at: datetime | None
    created_at: datetime
    summary_id: str | None


class ItemPage(View):
    """A page of memories, newest first; pass ``next`` as ``after`` for the following one."""

    items: list[ItemView]
    next: str | None


class ForgetBody(UserBody):
    """Which memories to delete, of the agent's own or of those it keeps for the user; at least one condition."""

    memory_types: Tiers
    filters: QueryFilters = Field(default_factory=QueryFilters)


class ForgottenView(View):
    """How many memories are gone."""

    forgotten: int


class StatsView(View):
    """An agent's memory in figures, with its users'. ``pending`` counts what is not yet found by meaning."""

    agent_id: str
    items: dict[Tier, int]
    pending: int
    failed: int
    bytes: int
    queries: int
    last_indexed_at: datetime | None


def placed(row: Row) -> Row:
    """An item's row as its views name what it has."""
    scope = {"kind": row["scope_kind"], "name": row["scope_name"]}
    return {**row, "memory_type": row["tier"], "scope": scope}
