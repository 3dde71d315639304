"""The SQL of embedding spaces."""

from typing import Final

from shared.db.database import Connection

LIVE: Final = "SELECT space_id, model, dimensions, state FROM memory_space WHERE state <> 'retired' ORDER BY state"

_LOCK: Final = 4_217_010
"""Any constant: two processes must not make a space at once."""


async def make_first(connection: Connection, model: str, dimensions: int) -> None:
    """Make the active space, unless there is one (system role)."""
    await connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
    await connection.execute(
        "SELECT add_memory_space(%s, %s, 'active')"
        " WHERE NOT EXISTS (SELECT 1 FROM memory_space WHERE state = 'active')",
        (model, dimensions),
    )
