"""The SQL of agents' end users (tenant role)."""

from typing import Final

from shared.db.database import Connection, Row, fetch_all, fetch_one
from shared.memory import store

_OF_USERS: Final = "microdao_id = current_microdao() AND kind = 'user' AND agent_id = %(agent_id)s"

_LIST: Final = f"""
SELECT s.name AS user_id, count(i.id) AS items, max(i.created_at) AS last_stored_at
FROM (SELECT scope_id, name FROM memory_scope WHERE {_OF_USERS} AND name > %(after)s ORDER BY name LIMIT %(limit)s) s
LEFT JOIN memory_item i ON i.scope_id = s.scope_id AND (i.expires_at IS NULL OR i.expires_at > now())
GROUP BY s.name ORDER BY s.name
"""

_FIND: Final = f"SELECT scope_id FROM memory_scope WHERE {_OF_USERS} AND name = %(user_id)s"

# In the order in which everybody else holds them, the scope last: who adds to what is there holds that already.
_HOLD: Final = (
    "SELECT 1 FROM memory_document WHERE scope_id = %(scope_id)s ORDER BY id FOR UPDATE",
    "SELECT 1 FROM memory_item WHERE scope_id = %(scope_id)s ORDER BY id FOR UPDATE",
    "SELECT 1 FROM memory_scope WHERE scope_id = %(scope_id)s FOR UPDATE",
)

_COUNT: Final = """
SELECT %(scope_id)s::integer AS scope_id,
    (SELECT count(*) FROM memory_item
        WHERE scope_id = %(scope_id)s AND (expires_at IS NULL OR expires_at > now())) AS items,
    (SELECT count(*) FROM memory_document WHERE scope_id = %(scope_id)s) AS documents
"""


async def agent_exists(connection: Connection, agent_id: str) -> bool:
    """Whether the transaction's microDAO has this agent."""
    query = "SELECT 1 FROM agent WHERE microdao_id = current_microdao() AND agent_id = %s"
    return await fetch_one(connection, query, (agent_id,)) is not None


async def list_users(connection: Connection, agent_id: str, after: str, limit: int) -> list[Row]:
    """An agent's users by id, after a cursor, with what is kept for each and has not expired."""
    return await fetch_all(connection, _LIST, {"agent_id": agent_id, "after": after, "limit": limit})


async def list_names(connection: Connection, agent_id: str) -> list[str]:
    """The ids of all users of an agent."""
    rows = await fetch_all(connection, f"SELECT name FROM memory_scope WHERE {_OF_USERS}", {"agent_id": agent_id})
    return [row["name"] for row in rows]


async def lock_user(connection: Connection, agent_id: str, user_id: str) -> Row | None:
    """A user's ``scope_id`` with how many ``items`` and ``documents`` are in it; all of it is held, and nobody stores
    for that user, until the transaction ends."""
    await store.close_gate(connection, agent_id, user_id)
    scope = await fetch_one(connection, _FIND, {"agent_id": agent_id, "user_id": user_id})
    if scope is None:
        return None
    for statement in _HOLD:
        await connection.execute(statement, scope)
    return await fetch_one(connection, _COUNT, scope)


async def delete_scope(connection: Connection, scope_id: int) -> None:
    """Forget a scope and everything in it."""
    await connection.execute("DELETE FROM memory_scope WHERE scope_id = %s", (scope_id,))
