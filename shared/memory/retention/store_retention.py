"""The SQL of policies, of the report of what was removed, and of the schedule's round."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from psycopg.types.json import Jsonb

from shared.db.database import Connection, Row, fetch_all, fetch_one
from shared.ids import new_id

# What an agent keeps for its users goes by the agent's policy.
_SCOPES: Final = """
SELECT s.scope_id, s.kind, s.name, s.owner_kind, s.owner, coalesce(p.settings, '{}') AS settings,
    coalesce(o.settings, '{}') AS own_settings
FROM (
    SELECT *, CASE kind WHEN 'user' THEN 'agent' ELSE kind END AS owner_kind, coalesce(agent_id, name) AS owner
    FROM memory_scope WHERE microdao_id = current_microdao()) s
LEFT JOIN memory_policy p ON p.microdao_id = s.microdao_id AND p.agent_id IS NULL
LEFT JOIN memory_policy o ON o.microdao_id = s.microdao_id AND o.agent_id = s.owner AND s.owner_kind = 'agent'
WHERE %(agent_id)s::text IS NULL OR s.owner_kind = 'agent' AND s.owner = %(agent_id)s
ORDER BY s.scope_id
"""

_PLACE: Final = """
SELECT EXISTS (SELECT 1 FROM microdao WHERE microdao_id = current_microdao()) AS microdao,
    %(agent_id)s::text IS NULL OR EXISTS (
        SELECT 1 FROM agent WHERE microdao_id = current_microdao() AND agent_id = %(agent_id)s) AS agent
"""

_PUT: Final = """
INSERT INTO memory_policy (microdao_id, agent_id, settings) VALUES (current_microdao(), %s, %s)
ON CONFLICT (microdao_id, agent_id) DO UPDATE SET settings = EXCLUDED.settings, updated_at = now()
"""

_NEXT: Final = """
UPDATE memory_policy SET visited_at = now() WHERE microdao_id = (
    SELECT microdao_id FROM memory_policy WHERE microdao_id <> ALL(%s)
    GROUP BY microdao_id ORDER BY min(visited_at) NULLS FIRST, microdao_id LIMIT 1)
RETURNING microdao_id
"""

_LIST: Final = """
SELECT id, scope_kind, scope_name, reason, items, bytes, ids, created_at FROM memory_pruning
WHERE microdao_id = current_microdao() AND (%(before)s::text IS NULL OR id < %(before)s)
  AND (%(agent_id)s::text IS NULL OR scope_kind = 'agent' AND scope_name = %(agent_id)s)
ORDER BY id DESC LIMIT %(limit)s
"""

# Before their items: who adds to one of them goes first.
_LOCK_DOCUMENTS: Final = """
SELECT id FROM memory_document
WHERE id = ANY(ARRAY(SELECT document_id FROM memory_item WHERE expires_at < now() ORDER BY id LIMIT %s))
ORDER BY id FOR UPDATE
"""

_EXPIRED: Final = """
WITH gone AS (
    DELETE FROM memory_item WHERE id = ANY(ARRAY(
        SELECT id FROM memory_item WHERE expires_at < now() ORDER BY id LIMIT %s FOR UPDATE SKIP LOCKED))
    RETURNING id, microdao_id, scope_id, document_id, bytes)
SELECT g.microdao_id, CASE s.kind WHEN 'user' THEN 'agent' ELSE s.kind END AS kind,
    coalesce(s.agent_id, s.name) AS name, count(*)::integer AS items, sum(g.bytes)::bigint AS bytes,
    array_agg(g.id ORDER BY g.id) AS ids, array_agg(DISTINCT g.document_id) AS documents
FROM gone g JOIN memory_scope s USING (scope_id) GROUP BY 1, 2, 3
"""


async def read_scopes(connection: Connection, agent_id: str | None) -> list[Row]:
    """The microDAO's scopes (or the agent's own and its users'), each with whose it is (``owner_kind``, ``owner``), the
    microDAO's ``settings`` and its ``own_settings``."""
    return await fetch_all(connection, _SCOPES, {"agent_id": agent_id})


async def read_settings(connection: Connection, agent_id: str | None) -> dict[str, Any]:
    """What the microDAO, or one of its agents, asks for."""
    row = await fetch_one(
        connection,
        "SELECT settings FROM memory_policy WHERE microdao_id = current_microdao()"
        " AND agent_id IS NOT DISTINCT FROM %s",
        (agent_id,),
    )
    return dict(row["settings"]) if row else {}


async def write_settings(connection: Connection, agent_id: str | None, settings: Mapping[str, Any]) -> None:
    """Put these in place of what was asked for."""
    await connection.execute(_PUT, (agent_id, Jsonb(dict(settings))))


async def read_place(connection: Connection, agent_id: str | None) -> Row:
    """Whether the transaction's ``microdao`` exists, and in it the ``agent`` (None does)."""
    row = await fetch_one(connection, _PLACE, {"agent_id": agent_id})
    return row or {}


async def next_microdao(connection: Connection, done: Sequence[str]) -> str | None:
    """The microDAO with a policy that was not visited for longest, save those done (system role)."""
    row = await fetch_one(connection, _NEXT, (list(done),))
    return row["microdao_id"] if row else None


async def write_report(connection: Connection, microdao_id: str, entry: Mapping[str, Any]) -> None:
    """Note what was removed: ``scope_kind``, ``scope_name``, ``reason``, ``items``, ``bytes``, ``ids``.

    What an agent kept for a user is noted as the agent's: a report outlives what it reports, and names no user.
    """
    await connection.execute(
        "INSERT INTO memory_pruning (id, microdao_id, scope_kind, scope_name, reason, items, bytes, ids) VALUES"
        " (%(id)s, %(microdao_id)s, %(scope_kind)s, %(scope_name)s, %(reason)s, %(items)s, %(bytes)s, %(ids)s)",
        {"id": new_id("prune"), "microdao_id": microdao_id, **entry},
    )


async def list_reports(connection: Connection, agent_id: str | None, before: str | None, limit: int) -> list[Row]:
    """A page of what was removed, the newest first, from before a cursor (an id) on."""
    return await fetch_all(connection, _LIST, {"agent_id": agent_id, "before": before, "limit": limit})


async def delete_old_reports(connection: Connection, older_than_days: int) -> None:
    """Drop reports that nobody needs any more (system role)."""
    await connection.execute(
        "DELETE FROM memory_pruning WHERE created_at < now() - make_interval(days => %s)", (older_than_days,)
    )


async def delete_expired(connection: Connection, limit: int) -> int:
    """Reclaim the space of what nobody can find any more, and report it; the number of items (system role)."""
    total = 0
    await connection.execute(_LOCK_DOCUMENTS, (limit,))
    for row in await fetch_all(connection, _EXPIRED, (limit,)):
        microdao_id, kind, name, documents = (row.pop(key) for key in ("microdao_id", "kind", "name", "documents"))
        entry = {"scope_kind": kind, "scope_name": name, "reason": "expired", **row}
        await write_report(connection, microdao_id, entry)
        await connection.execute(
            "DELETE FROM memory_document d WHERE id = ANY(%s)"
            " AND NOT EXISTS (SELECT 1 FROM memory_item WHERE document_id = d.id)",
            (documents,),
        )
        total += row["items"]
    return total
