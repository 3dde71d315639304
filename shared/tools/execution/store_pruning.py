"""SQL that removes old executions and the days of tools in prompts, of every microDAO (system role)."""

from typing import Final

from psycopg import sql

from shared.db.database import Connection

# Who may still ask for an execution keeps it, however old: a job that nobody has acted on; a flow that goes on, which
# reads how its step ended; a chain that goes on, which would make a step again whose outcome is gone. None of these
# ends by the clock: a machine that was switched off for months takes them up where they were.
_OLD: Final = sql.SQL("""
DELETE FROM tool_execution WHERE id IN (
    SELECT e.id FROM tool_execution e
    WHERE {stands} AND {since} < now() - make_interval(days => %(days)s)
      AND NOT EXISTS (
        SELECT 1 FROM outbox o
        WHERE o.microdao_id = e.microdao_id AND o.queue = %(queue)s AND o.body->>'execution_id' = e.id)
      AND NOT EXISTS (
        SELECT 1 FROM flow f WHERE f.microdao_id = e.microdao_id AND f.id = e.flow_id AND f.finished_at IS NULL)
      AND NOT EXISTS (
        SELECT 1 FROM tool_execution chain
        WHERE chain.microdao_id = e.microdao_id AND chain.id = split_part(e.idempotency_key, '/', 1)
          AND chain.status IN ('queued', 'running'))
    ORDER BY {since} LIMIT %(limit)s FOR UPDATE OF e SKIP LOCKED)
""")
_FINISHED: Final = _OLD.format(stands=sql.SQL("e.finished_at IS NOT NULL"), since=sql.SQL("e.finished_at"))
_NEVER_RUN: Final = _OLD.format(stands=sql.SQL("e.status = 'queued'"), since=sql.SQL("e.created_at"))

_PROMPTS: Final = """
DELETE FROM tool_prompt WHERE (microdao_id, agent_id, day) IN (
    SELECT microdao_id, agent_id, day FROM tool_prompt WHERE day < CURRENT_DATE - %(days)s::int
    ORDER BY day LIMIT %(limit)s FOR UPDATE SKIP LOCKED)
"""


async def prune_finished(connection: Connection, *, days: int, queue: str, limit: int) -> int:
    """Remove the oldest of those that ended ``days`` ago; how many. ``queue`` is their jobs'."""
    return (await connection.execute(_FINISHED, {"days": days, "queue": queue, "limit": limit})).rowcount


async def prune_never_run(connection: Connection, *, days: int, queue: str, limit: int) -> int:
    """Remove the oldest of those that were to be run ``days`` ago and that nothing runs any more; how many."""
    return (await connection.execute(_NEVER_RUN, {"days": days, "queue": queue, "limit": limit})).rowcount


async def prune_prompts(connection: Connection, *, days: int, limit: int) -> int:
    """Remove the oldest days that lie more than ``days`` back; how many."""
    return (await connection.execute(_PROMPTS, {"days": days, "limit": limit})).rowcount
