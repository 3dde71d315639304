"""Removing many rows of every tenant a few at a time."""

from collections.abc import Awaitable, Callable

from shared.db.database import Connection, Database


async def remove_in_batches(
    database: Database, remove: Callable[[Connection], Awaitable[int]], *, size: int, most: int
) -> int:
    """Call ``remove``, which says how many rows it removed, until it is fewer than ``size``, ``most`` times at most.

    Each time in a transaction of its own (system role), so that no row is held for long and what is done stays done.
    How many rows it was in all. What ``remove`` picks it picks as an ``ARRAY(SELECT …)`` or ``WITH … AS MATERIALIZED``:
    a limited and locking subquery behind ``IN`` may be planned to be run again for each row, and then bounds nothing.
    """
    total = 0
    for _ in range(most):
        async with database.system() as connection:
            removed = await remove(connection)
        total += removed
        if removed < size:
            break
    return total
