"""Who shares whose memory: teams, grants, and what follows from them for one agent.

A change counts from its commit on: row-level security looks teams and grants up in every statement.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from psycopg.errors import ForeignKeyViolation

from shared.db.database import Database, Row
from shared.db.deadlocks import repeated_after_deadlocks
from shared.errors import Conflict, InvalidRequest, NotFound
from shared.ids import new_id
from shared.memory.intake import no_agent
from shared.memory.model import Access, Grantee, Reach, Reason, ScopeRef
from shared.memory.sharing import store_sharing

Direction = Literal["by", "with"]


class Sharing:
    """Teams and grants of microDAOs. Callers have been permitted to administer them (``memory.share``) or to read."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def put_team(self, microdao_id: str, team_id: str, name: str | None) -> Row:
        """Make a team, or rename it (None keeps the name). Raises NotFound (microDAO)."""
        async with self._database.tenant(microdao_id) as connection:
            if not await store_sharing.upsert_team(connection, team_id, name):
                raise NotFound(f"no microDAO {microdao_id!r}", param="microdao_id")
            row = await store_sharing.read_team(connection, team_id)
        return row or {}

    async def get_team(self, microdao_id: str, team_id: str) -> Row:
        """A team. Raises NotFound."""
        async with self._database.tenant(microdao_id) as connection:
            row = await store_sharing.read_team(connection, team_id)
        if row is None:
            raise _no_team(team_id)
        return row

    async def list_teams(self, microdao_id: str, after: str, limit: int) -> list[Row]:
        """Teams by id."""
        async with self._database.tenant(microdao_id) as connection:
            return await store_sharing.list_teams(connection, after, limit)

    @repeated_after_deadlocks
    async def delete_team(self, microdao_id: str, team_id: str, *, force: bool) -> None:
        """Delete a team with its members and grants, and with ``force`` all that it remembers, for good.

        Raises NotFound, or Conflict without ``force`` when it remembers anything.
        """
        async with self._database.tenant(microdao_id) as connection:
            held = await store_sharing.lock_team(connection, team_id)
            if held is None:
                raise _no_team(team_id)
            if not force and (held["items"] or held["documents"]):
                raise Conflict(
                    f"{team_id} remembers {held['items']} items and {held['documents']} documents;"
                    " pass force=true to delete them with it",
                    param="force",
                )
            await store_sharing.delete_team(connection, team_id)

    async def list_members(self, microdao_id: str, team_id: str, after: str, limit: int) -> list[str]:
        """The agents of a team by id. Raises NotFound (team)."""
        async with self._database.tenant(microdao_id) as connection:
            if not await store_sharing.exists(connection, ScopeRef("team", team_id)):
                raise _no_team(team_id)
            return await store_sharing.list_members(connection, team_id, after, limit)

    async def add_member(self, microdao_id: str, team_id: str, agent_id: str) -> None:
        """From now on the agent reads and writes what the team remembers. Raises NotFound (team, agent)."""
        with _missing(f"there is no team {team_id!r} or no agent {agent_id!r} in this microDAO"):
            async with self._database.tenant(microdao_id) as connection:
                await store_sharing.insert_member(connection, team_id, agent_id)

    async def remove_member(self, microdao_id: str, team_id: str, agent_id: str) -> None:
        """The opposite. What the agent told the team stays the team's. Raises NotFound."""
        async with self._database.tenant(microdao_id) as connection:
            if not await store_sharing.delete_member(connection, team_id, agent_id):
                raise NotFound(f"{agent_id!r} is not in a team {team_id!r}", param="agent_id")

    async def share(self, microdao_id: str, owner: Grantee, grantee: Grantee, access: Access) -> Row:
        """Open ``owner``'s memory to ``grantee``, or change how far. Raises InvalidRequest, NotFound."""
        if owner == grantee:
            raise InvalidRequest("nobody needs a grant for memory of their own", param="grantee")
        with _missing(f"there is no {grantee.kind} {grantee.name!r} in this microDAO"):
            async with self._database.tenant(microdao_id) as connection:
                row = await store_sharing.upsert_grant(
                    connection, new_id("grant"), ScopeRef(owner.kind, owner.name), grantee, access
                )
        if row is None:
            raise NotFound(f"there is no {owner.kind} {owner.name!r} in this microDAO", param="scope")
        return row

    async def revoke(self, microdao_id: str, grant_id: str) -> None:
        """End a grant at once. Raises NotFound."""
        async with self._database.tenant(microdao_id) as connection:
            if not await store_sharing.delete_grant(connection, grant_id):
                raise NotFound(f"there is no grant {grant_id!r}", param="grant_id")

    async def list_grants(
        self, microdao_id: str, party: Grantee | None, direction: Direction | None, after: str, limit: int
    ) -> list[Row]:
        """Grants by id: those ``by`` a party, ``with`` it (an agent's teams count), both, or all. Raises NotFound."""
        async with self._database.tenant(microdao_id) as connection:
            if party and not await store_sharing.exists(connection, ScopeRef(party.kind, party.name)):
                raise NotFound(f"there is no {party.kind} {party.name!r} in this microDAO", param=f"{party.kind}_id")
            return await store_sharing.list_grants(
                connection, party, given=direction != "with", received=direction != "by", after=after, limit=limit
            )

    async def reach(self, microdao_id: str, agent_id: str, after: str, limit: int) -> list[Reach]:
        """What an agent may read and write and why, as row-level security sees it. Raises NotFound (agent)."""
        async with self._database.agent(microdao_id, agent_id) as connection:
            rows = await store_sharing.read_reach(connection, after, limit)
            if not rows and not await store_sharing.read_reach(connection, "", 1):
                raise no_agent(agent_id)
        return [_reach(row, agent_id) for row in rows]


def _reach(row: Row, agent_id: str) -> Reach:
    reasons = [Reason("grant", one["access"], one["grant_id"], one["team_id"]) for one in row["grants"]]
    if row["kind"] == "microdao":
        reasons.insert(0, Reason("microdao", "read"))
    elif row["is_member"]:
        reasons.insert(0, Reason("member", "write"))
    elif (row["kind"], row["name"]) == ("agent", agent_id):
        reasons.insert(0, Reason("own", "write"))
    access: Access = "write" if row["is_writable"] else "read"
    return Reach(ScopeRef(row["kind"], row["name"]), access, tuple(reasons))


@contextmanager
def _missing(message: str) -> Iterator[None]:
    """A foreign key knows best whether what it names is there."""
    try:
        yield
    except ForeignKeyViolation:
        raise NotFound(message) from None


def _no_team(team_id: str) -> NotFound:
    return NotFound(f"there is no team {team_id!r} in this microDAO", param="team_id")
