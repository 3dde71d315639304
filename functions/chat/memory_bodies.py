"""What the areas of memory share: identifiers, scopes, cursors."""

import base64
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import Query
from pydantic import Field

from functions.chat.dependencies import permit, within
from functions.chat.schemas import Body, View
from shared.bootstrap import Services
from shared.errors import InvalidRequest
from shared.memory.model import ScopeKind, ScopeRef, Tier
from shared.policy.principal import Principal

__all__ = [
    "AgentBody",
    "ForAll",
    "Identifier",
    "ScopeBody",
    "ScopeView",
    "Tier",
    "UserBody",
    "UserQuery",
    "acting",
    "read_cursor",
    "scope_ref",
    "write_cursor",
]

Identifier = Annotated[str, Field(min_length=1, max_length=200)]
UserQuery = Annotated[
    str | None, Query(min_length=1, max_length=200, description="The end user whose memory belongs to it.")
]
Source = Annotated[str, Field(max_length=1000)]
ForAll = Annotated[
    Literal["microdao"] | None, Query(description="What is the whole microDAO's; takes the right to share memory")
]
MemoryAction = Literal["memory.read", "memory.write", "memory.share"]


class AgentBody(Body):
    """Whose memory, in which microDAO (the key's own, if left out)."""

    agent_id: Identifier
    microdao_id: Identifier | None = None


class UserBody(AgentBody):
    """And for which end user of the agent's (``user_id``, any text of yours): what it remembers for that one alone
    belongs to it then. Without it no user's memory does."""

    user_id: Identifier | None = None


class ScopeBody(UserBody):
    """Where in it: the agent's own memory, or what ``owner_agent_id`` shares with it; a team's (``team_id``) that it
    belongs to or that is shared with it; the whole microDAO's, which takes the right to share memory; or what the agent
    keeps for an end user alone (``user_id``)."""

    scope: ScopeKind = "agent"
    owner_agent_id: Identifier | None = None
    team_id: Identifier | None = None

    @property
    def for_all(self) -> bool:
        """Into the microDAO's own memory."""
        return self.scope == "microdao"


class ScopeView(View):
    """Whose memory it is. Of kind ``user`` the name is the end user's id."""

    kind: ScopeKind
    name: str


async def acting(
    services: Services, principal: Principal, body: AgentBody, action: MemoryAction = "memory.read"
) -> Principal:
    """The caller in the body's microDAO, permitted to do this for its agent."""
    principal = within(principal, body.microdao_id)
    await permit(services, principal, action, "Agent", body.agent_id)
    return principal


async def scope_ref(services: Services, principal: Principal, body: ScopeBody) -> ScopeRef:
    """The scope that a body names. Raises InvalidRequest, or Unauthorized for the microDAO's when not permitted."""
    if body.user_id is not None or body.scope == "user":
        return _user_scope(body)
    if body.owner_agent_id is not None and body.scope != "agent":
        raise InvalidRequest("owner_agent_id goes with scope agent", param="owner_agent_id")
    if body.scope == "microdao":
        await permit(services, principal, "memory.share")
        return ScopeRef("microdao", principal.microdao_id)
    if body.scope == "agent":
        return ScopeRef("agent", body.owner_agent_id or body.agent_id)
    if body.team_id is None:
        raise InvalidRequest("team_id must name the team", param="team_id")
    return ScopeRef("team", body.team_id)


def _user_scope(body: ScopeBody) -> ScopeRef:
    if body.user_id is None:
        raise InvalidRequest("user_id must name the user", param="user_id")
    if body.owner_agent_id or body.team_id or ("scope" in body.model_fields_set and body.scope != "user"):
        raise InvalidRequest("user_id goes with no other scope than user", param="user_id")
    return ScopeRef("user", body.user_id)


def write_cursor(row: dict[str, Any]) -> str:
    """Where the page after an item begins."""
    return base64.urlsafe_b64encode(f"{row['occurred_at'].isoformat()} {row['number']}".encode()).decode()


def read_cursor(cursor: str | None) -> tuple[datetime, int] | None:
    """What :func:`write_cursor` wrote. Raises InvalidRequest for anything else."""
    if cursor is None:
        return None
    try:
        moment, _, number = base64.urlsafe_b64decode(cursor.encode()).decode().partition(" ")
        parsed = datetime.fromisoformat(moment), int(number)
    except ValueError:
        raise InvalidRequest("after must be a cursor from the page before", param="after") from None
    if parsed[0].tzinfo is None or not 0 <= parsed[1] < 2**63:
        raise InvalidRequest("after must be a cursor from the page before", param="after")
    return parsed
