"""The SQL of metering and reports."""

from collections.abc import Mapping, Sequence
from typing import Any

from psycopg import sql

from shared.db.database import Connection, Database, Row, fetch_all

# Rivals take jobs and days in the same order, so they wait for each other and never in a circle.
_METER = """
WITH locked AS MATERIALIZED (
    SELECT o.id FROM outbox o
    JOIN unnest(%(jobs)s::text[], %(microdaos)s::text[]) AS job (id, microdao_id) USING (id, microdao_id)
    ORDER BY o.id FOR UPDATE OF o),
claimed AS (
    DELETE FROM outbox o USING locked WHERE o.id = locked.id RETURNING o.microdao_id, o.body->>'event_id' AS event_id),
metered AS (
    UPDATE usage_event e SET metered_at = now() FROM claimed
    WHERE e.id = claimed.event_id AND e.microdao_id = claimed.microdao_id AND e.metered_at IS NULL RETURNING e.*),
added AS (
INSERT INTO usage_daily AS daily (microdao_id, day, kind, agent_id, subject, requests, errors, prompt_tokens,
    completion_tokens, cached_tokens, reasoning_tokens, cost_microusd, latency_ms)
SELECT microdao_id, (occurred_at AT TIME ZONE 'UTC')::date, kind, coalesce(agent_id, ''), subject, sum(calls),
    coalesce(sum(calls) FILTER (WHERE failed), 0), sum(prompt_tokens), sum(completion_tokens), sum(cached_tokens),
    sum(reasoning_tokens), sum(cost_microusd), sum(latency_ms)
FROM metered GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 3, 4, 5
ON CONFLICT (microdao_id, day, kind, agent_id, subject) DO UPDATE SET
    requests = daily.requests + EXCLUDED.requests,
    errors = daily.errors + EXCLUDED.errors,
    prompt_tokens = daily.prompt_tokens + EXCLUDED.prompt_tokens,
    completion_tokens = daily.completion_tokens + EXCLUDED.completion_tokens,
    cached_tokens = daily.cached_tokens + EXCLUDED.cached_tokens,
    reasoning_tokens = daily.reasoning_tokens + EXCLUDED.reasoning_tokens,
    cost_microusd = daily.cost_microusd + EXCLUDED.cost_microusd,
    latency_ms = daily.latency_ms + EXCLUDED.latency_ms)
SELECT count(*) AS events FROM metered
"""

_UNQUEUED = """
SELECT e.id, e.microdao_id FROM usage_event e WHERE e.metered_at IS NULL
    AND NOT EXISTS (SELECT 1 FROM outbox o WHERE o.queue = 'usage' AND o.body->>'event_id' = e.id)
ORDER BY e.occurred_at LIMIT %s FOR UPDATE SKIP LOCKED
"""

_GROUP_COLUMNS = {
    "day": sql.SQL("to_char(occurred_at AT TIME ZONE 'UTC', 'YYYY-MM-DD')"),
    "model": sql.SQL("subject"),
    "agent_id": sql.SQL("agent_id"),
    "provider": sql.SQL("provider"),
    "flow_id": sql.SQL("flow_id"),
}

_FIGURES = sql.SQL("""
    coalesce(sum(calls), 0)::bigint AS requests, coalesce(sum(calls) FILTER (WHERE failed), 0)::bigint AS errors,
    coalesce(sum(prompt_tokens), 0)::bigint AS prompt_tokens,
    coalesce(sum(completion_tokens), 0)::bigint AS completion_tokens,
    coalesce(sum(cached_tokens), 0)::bigint AS cached_tokens,
    coalesce(sum(reasoning_tokens), 0)::bigint AS reasoning_tokens,
    coalesce(sum(cost_microusd), 0)::bigint AS cost_microusd,
    coalesce(round(percentile_cont(0.5) WITHIN GROUP (ORDER BY latency_ms) FILTER (WHERE calls > 0)), 0)::int
        AS latency_ms_p50,
    coalesce(round(percentile_cont(0.95) WITHIN GROUP (ORDER BY latency_ms) FILTER (WHERE calls > 0)), 0)::int
        AS latency_ms_p95
""")

_MATCHES = sql.SQL("""
FROM usage_event WHERE microdao_id = %(microdao_id)s AND kind = 'llm' AND metered_at IS NOT NULL
    AND (%(agent_id)s::text IS NULL OR agent_id = %(agent_id)s)
    AND (%(model)s::text IS NULL OR subject = %(model)s)
    AND (%(flow_id)s::text IS NULL OR flow_id = %(flow_id)s)
    AND (%(since)s::timestamptz IS NULL OR occurred_at >= %(since)s)
    AND (%(until)s::timestamptz IS NULL OR occurred_at < %(until)s)
""")


async def meter_events(database: Database, jobs: Sequence[tuple[str, str]]) -> int:
    """Take the jobs (id, microDAO), mark their events as metered and add them to their days; the number of events."""
    parameters = {"jobs": [job_id for job_id, _ in jobs], "microdaos": [microdao_id for _, microdao_id in jobs]}
    (row,) = await database.run(_METER, parameters)
    return int(row["events"])


async def read_unqueued(connection: Connection, limit: int) -> list[Row]:
    """Events not metered although no job stands for them (system role)."""
    return await fetch_all(connection, _UNQUEUED, (limit,))


async def read_figures(connection: Connection, params: Mapping[str, Any], keys: Sequence[str] = ()) -> list[Row]:
    """The figures of the events that match: one row per combination of ``keys``, or one for all."""
    columns = [sql.SQL("{} AS {},").format(_GROUP_COLUMNS[key], sql.Identifier(key)) for key in keys]
    by = sql.SQL(", ").join(sql.SQL(str(index)) for index in range(1, len(keys) + 1))
    ending = sql.SQL("GROUP BY {by} ORDER BY {by}").format(by=by) if keys else sql.SQL("")
    query = sql.SQL(" ").join([sql.SQL("SELECT"), *columns, _FIGURES, _MATCHES, ending])
    return await (await connection.execute(query, params)).fetchall()
