"""The SQL of the background fill. Every function needs the system role."""

from collections.abc import Mapping
from typing import Any, Final

from shared.db.database import Connection, Row, fetch_all, fetch_one

_LATEST: Final = "SELECT * FROM memory_reindex ORDER BY started_at DESC, id DESC LIMIT 1"

# What a run makes of an item: vectors in its space, unless that was tried often enough, and postings. A consolidated
# item is not found itself; one of no space waits for its first indexing anyway.
_LACKING: Final = """
    i.summary_id IS NULL AND (i.lexicon IS DISTINCT FROM %(lexicon)s OR %(space_id)s::smallint IS NOT NULL
        AND NOT EXISTS (SELECT 1 FROM memory_embedding e
            WHERE e.space_id = %(space_id)s AND e.scope_id = i.scope_id AND e.item = i.number)
        AND NOT EXISTS (SELECT 1 FROM memory_unembeddable u
            WHERE u.space_id = %(space_id)s AND u.item = i.number AND u.attempts >= %(attempts)s))
"""

_INSERT: Final = """
INSERT INTO memory_reindex (id, model, space_id, lexicon, configured, state)
VALUES (%(id)s, %(model)s, %(space_id)s, %(lexicon)s, %(configured)s, 'running')
"""

# Rows of a window of numbers, so that looking for few among many takes no longer than looking at as many.
_WINDOW: Final = f"""
WITH seen AS MATERIALIZED (
    SELECT number FROM memory_item WHERE number > %(cursor)s ORDER BY number LIMIT %(window)s)
SELECT (SELECT max(number) FROM seen) AS upto, coalesce(array_agg(i.id ORDER BY i.number), '{{}}') AS ids,
    coalesce(array_agg(i.microdao_id ORDER BY i.number), '{{}}') AS microdaos
FROM memory_item i WHERE i.number IN (SELECT number FROM seen) AND {_LACKING}
"""

_ANY_LACKING: Final = f"SELECT EXISTS (SELECT 1 FROM memory_item i WHERE i.state <> 'pending' AND {_LACKING}) AS found"

_OUTSTANDING: Final = "SELECT count(*) AS jobs FROM outbox WHERE queue = 'memory' AND body ->> 'reindex_id' = %s"

_COUNTS: Final = """
SELECT (SELECT count(*) FROM memory_item) - (SELECT count(*) FROM memory_item WHERE summary_id IS NOT NULL) AS total,
    (SELECT count(*) FROM memory_embedding WHERE space_id = %(space_id)s AND part = 0) AS done,
    (SELECT count(*) FROM memory_unembeddable WHERE space_id = %(space_id)s AND attempts >= %(attempts)s) AS failed
"""

_WORD_COUNTS: Final = """
SELECT count(*) AS total, count(*) FILTER (WHERE number <= %(cursor)s) AS done, 0 AS failed FROM memory_item
WHERE summary_id IS NULL
"""


async def read_latest(connection: Connection) -> Row | None:
    """The run that goes on, or the last one."""
    return await fetch_one(connection, _LATEST)


async def take_running(connection: Connection) -> Row | None:
    """The run that goes on, for this transaction alone; None when there is none or another transaction has it."""
    return await fetch_one(connection, "SELECT * FROM memory_reindex WHERE state = 'running' FOR UPDATE SKIP LOCKED")


async def lock_running(connection: Connection) -> Row | None:
    """The run that goes on, for this transaction alone, waited for; None when there is none."""
    return await fetch_one(connection, "SELECT * FROM memory_reindex WHERE state = 'running' FOR UPDATE")


async def insert_run(connection: Connection, run: Mapping[str, Any]) -> None:
    """Begin a run. Raises UniqueViolation while another one goes on."""
    await connection.execute(_INSERT, run)


async def read_payer(connection: Connection) -> str | None:
    """A microDAO that has something to embed, or any."""
    row = await fetch_one(
        connection,
        "(SELECT microdao_id FROM memory_item ORDER BY number LIMIT 1)"
        " UNION ALL (SELECT microdao_id FROM microdao ORDER BY microdao_id LIMIT 1) LIMIT 1",
    )
    return str(row["microdao_id"]) if row else None


async def outstanding_jobs(connection: Connection, run_id: str) -> int:
    """Jobs of a run that nobody has finished."""
    row = await fetch_one(connection, _OUTSTANDING, (run_id,))
    return int(row["jobs"]) if row else 0


async def next_items(
    connection: Connection, run: Row, *, attempts: int, window: int
) -> tuple[int | None, dict[str, list[str]]]:
    """The number of the last item looked at (None at the end), and what of these lacks something, by microDAO."""
    row = await fetch_one(connection, _WINDOW, {**run, "attempts": attempts, "window": window})
    found: dict[str, list[str]] = {}
    for microdao_id, item_id in zip(row["microdaos"], row["ids"], strict=True) if row else ():
        found.setdefault(microdao_id, []).append(item_id)
    return row["upto"] if row else None, found


async def lacks_any(connection: Connection, run: Row, *, attempts: int) -> bool:
    """Whether any item that can be searched lacks what the run makes."""
    row = await fetch_one(connection, _ANY_LACKING, {**run, "attempts": attempts})
    return bool(row and row["found"])


async def move_cursor(connection: Connection, run_id: str, cursor: int) -> None:
    """Go on after this item."""
    await connection.execute("UPDATE memory_reindex SET cursor = %s WHERE id = %s", (cursor, run_id))


async def begin_pass(connection: Connection, run_id: str, wait_s: float) -> None:
    """Begin again with the first item, so much later."""
    await connection.execute(
        "UPDATE memory_reindex SET cursor = 0, passes = passes + 1, resume_at = now() + make_interval(secs => %s)"
        " WHERE id = %s",
        (wait_s, run_id),
    )


async def end_run(connection: Connection, run_id: str, state: str, counts: Mapping[str, int]) -> None:
    """The run is ``done`` or ``cancelled``; how many items there were and how many failed."""
    await connection.execute(
        "UPDATE memory_reindex SET state = %s, total = %s, done = %s, failed = %s, finished_at = now() WHERE id = %s",
        (state, counts["total"], counts["done"], counts["failed"], run_id),
    )


async def drop_jobs(connection: Connection, run_id: str) -> None:
    """Nobody needs the run's jobs any more; those at work are left alone."""
    await connection.execute(
        "DELETE FROM outbox WHERE id IN (SELECT id FROM outbox WHERE queue = 'memory' AND body ->> 'reindex_id' = %s"
        " FOR UPDATE SKIP LOCKED)",
        (run_id,),
    )


async def count(connection: Connection, run: Row, *, attempts: int) -> Row:
    """``total``, ``done`` and ``failed`` items of a run."""
    statement = _COUNTS if run["space_id"] else _WORD_COUNTS
    return (await fetch_all(connection, statement, {**run, "attempts": attempts}))[0]
