"""The SQL of prompt experiments."""

from typing import Any

from psycopg.types.json import Jsonb

from shared.db.database import Connection, Database, Row, fetch_all, fetch_one

_INSERT = """
INSERT INTO llm_experiment (microdao_id, name, model, blueprint, variants, active)
VALUES (%(microdao_id)s, %(name)s, %(model)s, %(blueprint)s, %(variants)s, %(active)s)
ON CONFLICT (microdao_id, name) DO NOTHING RETURNING name
"""

_UPDATE = """
UPDATE llm_experiment SET model = %(model)s, blueprint = %(blueprint)s, variants = %(variants)s, active = %(active)s,
    updated_at = now() WHERE microdao_id = %(microdao_id)s AND name = %(name)s RETURNING name
"""

# From usage events, one per call, an estimate that was taken back counted off; names have no "/".
_RESULTS = """
SELECT named.variant, coalesce(sum(e.calls), 0)::bigint AS requests,
    coalesce(sum(e.calls) FILTER (WHERE e.failed), 0)::bigint AS errors,
    coalesce(sum(e.prompt_tokens), 0)::bigint AS prompt_tokens,
    coalesce(sum(e.completion_tokens), 0)::bigint AS completion_tokens,
    coalesce(sum(e.cost_microusd), 0)::bigint AS cost_microusd,
    percentile_cont(0.5) WITHIN GROUP (ORDER BY e.latency_ms) AS latency_ms_p50,
    percentile_cont(0.95) WITHIN GROUP (ORDER BY e.latency_ms) AS latency_ms_p95
FROM unnest(%(variants)s::text[]) WITH ORDINALITY AS named (variant, place)
    LEFT JOIN usage_event e ON e.microdao_id = current_microdao() AND e.variant = %(name)s || '/' || named.variant
GROUP BY named.variant, named.place ORDER BY named.place
"""


async def insert(connection: Connection, microdao_id: str, experiment: dict[str, Any]) -> bool:
    """Add an experiment; False when the name is taken. Raises UniqueViolation when the target has an active one."""
    return await fetch_one(connection, _INSERT, _params(microdao_id, experiment)) is not None


async def update(connection: Connection, microdao_id: str, experiment: dict[str, Any]) -> bool:
    """Set a definition; False when there is none. Raises UniqueViolation when the target has an active one."""
    return await fetch_one(connection, _UPDATE, _params(microdao_id, experiment)) is not None


async def delete(connection: Connection, name: str) -> bool:
    """Remove an experiment; False when there is none."""
    return await fetch_one(connection, "DELETE FROM llm_experiment WHERE name = %s RETURNING name", (name,)) is not None


async def list_named(connection: Connection, names: list[str]) -> list[Row]:
    """The experiments with these names."""
    return await fetch_all(connection, "SELECT * FROM llm_experiment WHERE name = ANY(%s)", (names,))


async def list_page(connection: Connection, after: str, limit: int) -> list[Row]:
    """Experiments by name."""
    return await fetch_all(
        connection, "SELECT * FROM llm_experiment WHERE name > %s ORDER BY name LIMIT %s", (after, limit)
    )


async def list_active(database: Database, microdao_id: str) -> list[Row]:
    """The tenant's active experiments; those of a blueprint, which are the closer ones, first."""
    return await database.run(
        "SELECT * FROM llm_experiment WHERE microdao_id = %s AND active ORDER BY blueprint NULLS LAST, name",
        (microdao_id,),
        microdao_id=microdao_id,
    )


async def results(connection: Connection, name: str, variants: list[str]) -> list[Row]:
    """Figures by variant, in the definition's order."""
    return await fetch_all(connection, _RESULTS, {"name": name, "variants": variants})


def _params(microdao_id: str, experiment: dict[str, Any]) -> dict[str, Any]:
    return {**experiment, "microdao_id": microdao_id, "variants": Jsonb(experiment["variants"])}
