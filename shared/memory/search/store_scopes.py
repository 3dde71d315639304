"""The SQL that begins a search: what the agent may read, and the transaction's settings."""

from collections.abc import Sequence
from typing import Final

from shared.db.database import Connection, Row
from shared.memory.model import Filters

# Sent first, for the planning of functions in policies depends on it, too. Sequential scans are never right here, and a
# plan made while the tables were small must not have any. The scopes are found once for all policies of all tables.
_PREPARE: Final = """
SELECT set_config('plan_cache_mode', %s, true), set_config('enable_seqscan', 'off', true),
    set_config('jit', 'off', true), set_config('work_mem', '32MB', true), set_config('hnsw.ef_search', '200', true),
    set_config('hnsw.iterative_scan', 'relaxed_order', true), set_config('synchronous_commit', 'off', true),
    set_config('max_parallel_workers_per_gather', '0', true),
    set_config('daarion.read_scopes', agent_scopes('read')::text, true)
"""

# Counting takes an index scan over the scope, so the caller says for which scopes it knows the figures.
_SCOPES: Final = """
SELECT s.scope_id, s.kind, s.name, l.scope_id IS NOT NULL AS is_large, c.items, c.words
FROM memory_scope s LEFT JOIN memory_large_scope l ON l.scope_id = s.scope_id AND l.space_id = %(space_id)s
LEFT JOIN LATERAL (
    SELECT count(*) AS items, coalesce(sum(i.words), 0) AS words FROM memory_item i
    WHERE i.scope_id = s.scope_id AND s.scope_id <> ALL(%(counted)s::integer[])) c ON true
WHERE s.scope_id = ANY ((SELECT agent_scopes('read'))::integer[])
"""


async def read_scopes(
    connection: Connection, space_id: int, filters: Filters, counted: Sequence[int] = ()
) -> list[Row]:
    """The scopes that the transaction's agent may read, and which are large; prepares the transaction for a search.

    ``items`` and ``words`` (of all items together) are 0 for those ``counted`` already.
    """
    planning = "force_custom_plan" if filters.narrow else "force_generic_plan"
    async with connection.pipeline():
        await connection.execute(_PREPARE, (planning,))
        cursor = await connection.execute(_SCOPES, {"space_id": space_id, "counted": list(counted)})
    return await cursor.fetchall()
