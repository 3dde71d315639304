"""SQL that removes old executions and the days of tools in prompts, of every microDAO (system role)."""

from typing import Any, Final, NamedTuple

from psycopg import sql

from shared.db.database import Connection

# A page of the oldest, of which goes what nobody may still ask for. Who may keeps it, however old: a job that nobody
# has acted on; a flow that goes on, which reads how its step ended; a chain that goes on, which would make a step again
# whose outcome is gone. None of these ends by the clock: a machine that was off for months takes them up where they
# were. They are looked up for the page only, however much is old.
_OLDEST: Final = sql.SQL("""
WITH page AS MATERIALIZED (
    SELECT id, microdao_id, flow_id, split_part(idempotency_key, '/', 1) AS chain_id FROM tool_execution
    WHERE {stands} AND {since} < now() - make_interval(days => %(days)s)
    ORDER BY {since} LIMIT %(limit)s OFFSET %(skip)s FOR UPDATE SKIP LOCKED),
removed AS (
    DELETE FROM tool_execution e USING page p
    WHERE e.id = p.id
      AND NOT EXISTS (
        SELECT 1 FROM outbox o
        WHERE o.body->>'execution_id' = p.id AND o.microdao_id = p.microdao_id AND o.queue = %(queue)s)
      AND NOT EXISTS (
        SELECT 1 FROM flow f WHERE f.id = p.flow_id AND f.microdao_id = p.microdao_id AND f.finished_at IS NULL)
      AND NOT EXISTS (
        SELECT 1 FROM tool_execution chain
        WHERE chain.id = p.chain_id AND chain.microdao_id = p.microdao_id AND chain.status IN ('queued', 'running'))
    RETURNING e.id)
SELECT (SELECT count(*) FROM page)::int AS seen, (SELECT count(*) FROM removed)::int AS removed
""")
_FINISHED: Final = _OLDEST.format(stands=sql.SQL("finished_at IS NOT NULL"), since=sql.SQL("finished_at"))
_NEVER_RUN: Final = _OLDEST.format(stands=sql.SQL("status = 'queued'"), since=sql.SQL("created_at"))

_PROMPTS: Final = """
WITH batch AS MATERIALIZED (
    SELECT microdao_id, agent_id, day FROM tool_prompt WHERE day < CURRENT_DATE - %(days)s::int
    ORDER BY day LIMIT %(limit)s FOR UPDATE SKIP LOCKED)
DELETE FROM tool_prompt p USING batch b WHERE (p.microdao_id, p.agent_id, p.day) = (b.microdao_id, b.agent_id, b.day)
"""


class Page(NamedTuple):
    """How many of the oldest executions were looked at, and how many of those removed."""

    seen: int
    removed: int


async def prune_finished(connection: Connection, *, days: int, queue: str, skip: int, limit: int) -> Page:
    """Look at those that ended ``days`` ago, after the oldest ``skip``. ``queue`` is their jobs'."""
    return await _prune(connection, _FINISHED, {"days": days, "queue": queue, "skip": skip, "limit": limit})


async def prune_never_run(connection: Connection, *, days: int, queue: str, skip: int, limit: int) -> Page:
    """Look at those that were to be run ``days`` ago; what nothing runs any more goes."""
    return await _prune(connection, _NEVER_RUN, {"days": days, "queue": queue, "skip": skip, "limit": limit})


async def prune_prompts(connection: Connection, *, days: int, limit: int) -> int:
    """Remove the oldest days that lie more than ``days`` back; how many."""
    return (await connection.execute(_PROMPTS, {"days": days, "limit": limit})).rowcount


async def _prune(connection: Connection, statement: sql.Composed, params: dict[str, Any]) -> Page:
    (row,) = await (await connection.execute(statement, params)).fetchall()
    return Page(**row)
