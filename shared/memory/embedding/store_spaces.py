"""The SQL of embedding spaces."""

from collections.abc import Mapping
from typing import Final

from psycopg.errors import LockNotAvailable

from shared.db.database import Connection, Row, fetch_all, fetch_one

LIVE: Final = "SELECT space_id, model, dimensions, state FROM memory_space WHERE state <> 'retired' ORDER BY state"

_LOCK: Final = 4_217_010
"""Any constant: two processes must not make a space at once."""

_STILL: Final = 4_217_011
"""Any constant: shared by those who say that items are ready, held alone by who activates another space."""

_NOTE: Final = """
INSERT INTO memory_unembeddable AS u (space_id, scope_id, item, failure)
SELECT %(space_id)s, i.scope_id, i.number, f.failure
FROM unnest(%(ids)s::text[], %(failures)s::text[]) AS f (id, failure) JOIN memory_item i USING (id) ORDER BY i.number
ON CONFLICT (space_id, item) DO UPDATE SET failure = EXCLUDED.failure, attempts = u.attempts + 1
"""

# What failed or waits in one of the spaces only changes its state with the other one.
_SETTLE: Final = (
    """
UPDATE memory_item i SET state = 'failed', failure = u.failure FROM memory_unembeddable u
WHERE u.space_id = %(space_id)s AND u.item = i.number AND i.state = 'ready' AND NOT EXISTS (
    SELECT 1 FROM memory_embedding e
    WHERE e.space_id = %(space_id)s AND e.scope_id = i.scope_id AND e.item = i.number)
""",
    """
UPDATE memory_item i SET state = 'ready', failure = NULL, indexed_at = now()
WHERE i.state <> 'ready' AND EXISTS (
    SELECT 1 FROM memory_embedding e
    WHERE e.space_id = %(space_id)s AND e.scope_id = i.scope_id AND e.item = i.number)
""",
    "DELETE FROM memory_unembeddable WHERE space_id = %(space_id)s",
    "UPDATE memory_space SET state = 'retired', retired_at = now() WHERE state = 'active'",
    "UPDATE memory_space SET state = 'active', activated_at = now() WHERE space_id = %(space_id)s",
)

_DROP: Final = """
SELECT space_id, drop_memory_space(space_id) FROM (
    SELECT space_id FROM memory_space WHERE state = 'retired' AND retired_at < now() - make_interval(secs => %s)
    ORDER BY space_id LIMIT 1 FOR UPDATE SKIP LOCKED) s
"""

# One statement: whoever goes away while it works does not undo it.
ENLARGE: Final = """
INSERT INTO memory_large_scope (space_id, scope_id)
SELECT %(space_id)s, %(scope_id)s FROM enlarge_memory_scope(%(space_id)s::smallint, %(scope_id)s)
"""

_CROWDED: Final = """
SELECT m.space_id, c.scope_id, (
    SELECT count(*) FROM memory_embedding e WHERE e.space_id = m.space_id AND e.scope_id = c.scope_id) AS vectors
FROM memory_space m CROSS JOIN LATERAL crowded_memory_scopes(m.space_id, %s) c
WHERE m.state <> 'retired' AND EXISTS (SELECT 1 FROM memory_scope s WHERE s.scope_id = c.scope_id)
    AND NOT EXISTS (SELECT 1 FROM memory_large_scope l WHERE l.space_id = m.space_id AND l.scope_id = c.scope_id)
ORDER BY m.state, c.vectors DESC LIMIT 1
"""


async def make_first(connection: Connection, model: str, dimensions: int) -> None:
    """Make the active space, unless there is one (system role)."""
    await connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
    await connection.execute(
        "SELECT add_memory_space(%s, %s, 'active')"
        " WHERE NOT EXISTS (SELECT 1 FROM memory_space WHERE state = 'active')",
        (model, dimensions),
    )


async def add_filling(connection: Connection, model: str, dimensions: int) -> int:
    """Make the space that fills beside the active one; its id (system role)."""
    await connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
    row = await fetch_one(connection, "SELECT add_memory_space(%s, %s, 'filling') AS id", (model, dimensions))
    return int(row["id"]) if row else 0


async def hold_still(connection: Connection) -> None:
    """Let no other space become the active one until the transaction ends."""
    await connection.execute("SELECT pg_advisory_xact_lock_shared(%s)", (_STILL,))


async def hold_all_still(connection: Connection) -> None:
    """Let nobody say of an item that it is ready until the transaction ends. Waits for those who are at it."""
    await connection.execute("SELECT pg_advisory_xact_lock(%s)", (_STILL,))


async def activate(connection: Connection, space_id: int) -> None:
    """Search this space from now on; the former one is retired (system role, after :func:`hold_all_still`)."""
    for statement in _SETTLE:
        await connection.execute(statement, {"space_id": space_id})


async def retire(connection: Connection, space_id: int) -> None:
    """Fill a space no longer (system role)."""
    await connection.execute(
        "UPDATE memory_space SET state = 'retired', retired_at = now() WHERE space_id = %s AND state = 'filling'",
        (space_id,),
    )


async def drop_retired(connection: Connection, older_than_s: float) -> list[int]:
    """Drop a space that was retired so long ago, if any; which. Not while others read for longer than a moment: all
    who came after would wait, too (system role)."""
    await connection.execute("SELECT set_config('lock_timeout', '500ms', true)")
    try:
        async with connection.transaction():
            return [row["space_id"] for row in await fetch_all(connection, _DROP, (older_than_s,))]
    except LockNotAvailable:
        return []


async def note_unembeddable(connection: Connection, space_id: int, failures: Mapping[str, str]) -> None:
    """Write down why items cannot be embedded in a space that fills."""
    noted = {"space_id": space_id, "ids": list(failures), "failures": list(failures.values())}
    await connection.execute(_NOTE, noted)


async def most_crowded(connection: Connection, least_vectors: int) -> Row | None:
    """A scope that should have a partition of its own: ``space_id``, ``scope_id``, ``vectors`` (system role)."""
    return await fetch_one(connection, _CROWDED, (least_vectors,))
