"""The SQL of teams and grants (tenant role), and of what an agent may read and write (agent role)."""

from typing import Final

from shared.db.database import Connection, Row, fetch_all, fetch_one
from shared.memory.model import Access, Grantee, ScopeRef

_TEAM: Final = """
SELECT t.team_id, t.name, t.created_at, count(m.agent_id) AS members
FROM team t LEFT JOIN team_member m USING (microdao_id, team_id)
"""

_UPSERT_TEAM: Final = """
INSERT INTO team (microdao_id, team_id, name)
SELECT microdao_id, %(team_id)s, coalesce(%(name)s::text, %(team_id)s) FROM microdao
WHERE microdao_id = current_microdao()
ON CONFLICT (microdao_id, team_id) DO UPDATE SET name = coalesce(%(name)s, team.name) RETURNING team_id
"""

# Locked: nothing can be stored in it until the transaction ends.
_LOCK_TEAM: Final = """
SELECT scope_id FROM memory_scope WHERE microdao_id = current_microdao() AND kind = 'team' AND name = %s FOR UPDATE
"""

_COUNT: Final = """
SELECT (SELECT count(*) FROM memory_item WHERE scope_id = %(scope_id)s) AS items,
    (SELECT count(*) FROM memory_document WHERE scope_id = %(scope_id)s) AS documents
"""

_GRANT: Final = """
SELECT g.id, s.kind AS scope_kind, s.name AS scope_name, g.grantee_kind, g.grantee, g.access, g.created_at
FROM memory_grant g JOIN memory_scope s USING (microdao_id, scope_id)
"""

_UPSERT_GRANT: Final = """
INSERT INTO memory_grant AS g (id, microdao_id, scope_id, grantee_kind, grantee, access)
SELECT %(id)s, microdao_id, scope_id, %(grantee_kind)s, %(grantee)s, %(access)s FROM memory_scope
WHERE microdao_id = current_microdao() AND kind = %(kind)s AND name = %(name)s
ON CONFLICT (microdao_id, scope_id, grantee_kind, grantee) DO UPDATE SET access = EXCLUDED.access RETURNING g.id
"""

# What is shared with an agent's teams is shared with the agent.
_LIST_GRANTS: Final = f"""
{_GRANT} WHERE g.id > %(after)s AND (%(name)s::text IS NULL
    OR %(given)s AND s.kind = %(kind)s AND s.name = %(name)s
    OR %(received)s AND (g.grantee_kind = %(kind)s AND g.grantee = %(name)s
        OR %(kind)s = 'agent' AND g.grantee_kind = 'team' AND g.grantee IN (
            SELECT m.team_id FROM team_member m WHERE m.microdao_id = g.microdao_id AND m.agent_id = %(name)s)))
ORDER BY g.id LIMIT %(limit)s
"""

# The grants that an agent's transaction sees are those to it and to its teams.
_REACH: Final = """
SELECT s.kind, s.name, s.scope_id = ANY ((SELECT agent_scopes('write'))::integer[]) AS is_writable,
    s.kind = 'team' AND EXISTS (SELECT 1 FROM team_member m WHERE m.team_id = s.name) AS is_member,
    (SELECT coalesce(jsonb_agg(jsonb_build_object('grant_id', g.id, 'access', g.access, 'team_id', g.team_id)
        ORDER BY g.id), '[]') FROM memory_grant g WHERE g.scope_id = s.scope_id) AS grants
FROM memory_scope s
WHERE s.scope_id = ANY ((SELECT agent_scopes('read'))::integer[]) AND s.kind || ' ' || s.name > %s
ORDER BY s.kind || ' ' || s.name LIMIT %s
"""


async def exists(connection: Connection, owner: ScopeRef) -> bool:
    """Whether the microDAO has this agent or team."""
    query = "SELECT 1 FROM memory_scope WHERE microdao_id = current_microdao() AND kind = %s AND name = %s"
    return await fetch_one(connection, query, (owner.kind, owner.name)) is not None


async def upsert_team(connection: Connection, team_id: str, name: str | None) -> bool:
    """Make a team or rename it (None: keep its name, or take its id); False without such a microDAO."""
    return await fetch_one(connection, _UPSERT_TEAM, {"team_id": team_id, "name": name}) is not None


async def read_team(connection: Connection, team_id: str) -> Row | None:
    """A team and how many ``members`` it has."""
    return await fetch_one(connection, f"{_TEAM} WHERE t.team_id = %s GROUP BY t.microdao_id, t.team_id", (team_id,))


async def list_teams(connection: Connection, after: str, limit: int) -> list[Row]:
    """Teams by id, after a cursor."""
    return await fetch_all(
        connection,
        f"{_TEAM} WHERE t.team_id > %s GROUP BY t.microdao_id, t.team_id ORDER BY t.team_id LIMIT %s",
        (after, limit),
    )


async def lock_team(connection: Connection, team_id: str) -> Row | None:
    """How many ``items`` and ``documents`` a team remembers; nothing is added until the transaction ends."""
    scope = await fetch_one(connection, _LOCK_TEAM, (team_id,))
    return await fetch_one(connection, _COUNT, scope) if scope else None


async def delete_team(connection: Connection, team_id: str) -> None:
    """A team with its members, its memory and the grants to it and of it."""
    await connection.execute("DELETE FROM team WHERE team_id = %s", (team_id,))


async def list_members(connection: Connection, team_id: str, after: str, limit: int) -> list[str]:
    """The agents of a team by id, after a cursor."""
    rows = await fetch_all(
        connection,
        "SELECT agent_id FROM team_member WHERE team_id = %s AND agent_id > %s ORDER BY agent_id LIMIT %s",
        (team_id, after, limit),
    )
    return [row["agent_id"] for row in rows]


async def insert_member(connection: Connection, team_id: str, agent_id: str) -> None:
    """Add an agent to a team, if it is not there. A foreign key fails without such an agent or team."""
    await connection.execute(
        "INSERT INTO team_member (microdao_id, team_id, agent_id) VALUES (current_microdao(), %s, %s)"
        " ON CONFLICT DO NOTHING",
        (team_id, agent_id),
    )


async def delete_member(connection: Connection, team_id: str, agent_id: str) -> bool:
    """Take an agent out of a team; False when it was not in it."""
    cursor = await connection.execute(
        "DELETE FROM team_member WHERE team_id = %s AND agent_id = %s", (team_id, agent_id)
    )
    return cursor.rowcount > 0


async def upsert_grant(
    connection: Connection, grant_id: str, owner: ScopeRef, grantee: Grantee, access: Access
) -> Row | None:
    """Share, or change the access of what is shared; None without such an owner. A foreign key fails without such a
    grantee."""
    grant = {"id": grant_id, "kind": owner.kind, "name": owner.name, "access": access}
    grant |= {"grantee_kind": grantee.kind, "grantee": grantee.name}
    found = await fetch_one(connection, _UPSERT_GRANT, grant)
    return await fetch_one(connection, f"{_GRANT} WHERE g.id = %s", (found["id"],)) if found else None


async def delete_grant(connection: Connection, grant_id: str) -> bool:
    """End a grant; False when there is none."""
    cursor = await connection.execute("DELETE FROM memory_grant WHERE id = %s", (grant_id,))
    return cursor.rowcount > 0


async def list_grants(
    connection: Connection, party: Grantee | None, *, given: bool, received: bool, after: str, limit: int
) -> list[Row]:
    """Grants by id: what ``party`` has ``given`` or ``received``, or all of the microDAO's."""
    wanted = {"given": given, "received": received, "after": after, "limit": limit}
    wanted |= {"kind": party and party.kind, "name": party and party.name}
    return await fetch_all(connection, _LIST_GRANTS, wanted)


async def read_reach(connection: Connection, after: str, limit: int) -> list[Row]:
    """The scopes that the transaction's agent may read, by kind and name, with what opens each to it."""
    return await fetch_all(connection, _REACH, (after, limit))
