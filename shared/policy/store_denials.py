"""SQL of refusals."""

from datetime import datetime
from typing import Any

from shared.db.database import Connection, Database, Row, fetch_all


async def add(database: Database, microdao_id: str, denial: dict[str, Any], timeout_s: float) -> None:
    """Write refusals, or add them to the row of their minute. Repeated after a broken connection, they count twice."""
    await database.run(
        "INSERT INTO policy_denial (id, microdao_id, minute, fingerprint, principal_id, agent_id, action,"
        " resource_kind, resource_id, reason, policies, request_id, count)"
        " VALUES (%(id)s, %(microdao_id)s, date_trunc('minute', now()), %(fingerprint)s, %(principal_id)s,"
        " %(agent_id)s, %(action)s, %(resource_kind)s, %(resource_id)s, %(reason)s, %(policies)s, %(request_id)s,"
        " %(count)s) ON CONFLICT (microdao_id, minute, fingerprint) DO UPDATE"
        " SET count = policy_denial.count + excluded.count, last_denied_at = excluded.last_denied_at",
        {"microdao_id": microdao_id, **denial},
        microdao_id=microdao_id,
        timeout_s=timeout_s,
    )


async def list_page(
    connection: Connection,
    *,
    agent_id: str | None,
    tool: str | None,
    action: str | None,
    since: datetime | None,
    before: str | None,
    limit: int,
) -> list[Row]:
    """Refusals of the transaction's microDAO, newest first, below id ``before``."""
    return await fetch_all(
        connection,
        "SELECT id, principal_id, agent_id, action, resource_kind, resource_id, reason, policies, request_id, count,"
        " denied_at, last_denied_at FROM policy_denial"
        " WHERE (%(agent_id)s::text IS NULL OR agent_id = %(agent_id)s)"
        " AND (%(tool)s::text IS NULL OR (resource_kind = 'Tool' AND resource_id = %(tool)s))"
        " AND (%(action)s::text IS NULL OR action = %(action)s)"
        " AND (%(since)s::timestamptz IS NULL OR last_denied_at >= %(since)s)"
        " AND (%(before)s::text IS NULL OR id < %(before)s)"
        " ORDER BY id DESC LIMIT %(limit)s",
        {"agent_id": agent_id, "tool": tool, "action": action, "since": since, "before": before, "limit": limit},
    )


async def delete_old(connection: Connection, *, days: int, limit: int) -> int:
    """Forget the oldest refusals of every microDAO that are older (system role); how many."""
    cursor = await connection.execute(
        "DELETE FROM policy_denial WHERE id = ANY(ARRAY("
        " SELECT id FROM policy_denial WHERE last_denied_at < now() - make_interval(days => %s)"
        " ORDER BY last_denied_at LIMIT %s FOR UPDATE SKIP LOCKED))",
        (days, limit),
    )
    return cursor.rowcount
