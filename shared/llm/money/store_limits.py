"""The SQL of limits and budgets, in the caller's transaction (system role: the platform's rows are no tenant's)."""

from dataclasses import asdict
from typing import Any, Final, LiteralString

from shared.db.database import Connection, Row, fetch_all, fetch_one
from shared.llm.money.scopes import ScopeKey

_EXISTS: Final[dict[str, LiteralString]] = {
    "platform": "SELECT 1",
    "microdao": "SELECT 1 FROM microdao WHERE microdao_id = %(id)s",
    "agent": "SELECT 1 FROM agent WHERE microdao_id = %(microdao_id)s AND agent_id = %(id)s",
    "key": "SELECT 1 FROM api_key WHERE microdao_id = %(microdao_id)s AND id = %(id)s",
    "flow": "SELECT 1 FROM flow WHERE microdao_id = %(microdao_id)s AND id = %(id)s",
}

_PUT_LIMIT = """
INSERT INTO llm_limit (microdao_id, scope, id, requests_per_minute, tokens_per_minute)
VALUES (%(microdao_id)s, %(scope)s, %(id)s, %(requests)s, %(tokens)s)
ON CONFLICT (microdao_id, scope, id) DO UPDATE SET
    requests_per_minute = EXCLUDED.requests_per_minute, tokens_per_minute = EXCLUDED.tokens_per_minute
"""

_PUT_WINDOW = """
INSERT INTO llm_window (microdao_id, scope, id) VALUES (%(microdao_id)s, %(scope)s, %(id)s) ON CONFLICT DO NOTHING
"""

_DELETE_LIMIT = "DELETE FROM llm_limit WHERE (microdao_id, scope, id) = (%(microdao_id)s, %(scope)s, %(id)s)"

_PUT_BUDGET = """
INSERT INTO llm_budget (microdao_id, scope, id, period, limit_microusd)
VALUES (%(microdao_id)s, %(scope)s, %(id)s, %(period)s, %(limit)s)
ON CONFLICT (microdao_id, scope, id, period) DO UPDATE SET limit_microusd = EXCLUDED.limit_microusd
"""

# A budget that is new, or was not asked in the running period, begins with what that has spent and holds by now.
_START_PERIOD: LiteralString = """
INSERT INTO llm_budget_period (microdao_id, scope, id, period, starts_at, spent_microusd, reserved_microusd)
SELECT %(microdao_id)s, %(scope)s, %(id)s, %(period)s, starts_at,
    (SELECT coalesce(sum(cost_microusd), 0) FROM llm_ledger WHERE {calls}),
    (SELECT coalesce(sum(cost_microusd), 0) FROM llm_reservation WHERE {calls})
FROM llm_period_start(%(period)s, clock_timestamp()) AS started (starts_at)
WHERE NOT EXISTS (SELECT FROM llm_budget_period p WHERE (p.microdao_id, p.scope, p.id, p.period, p.starts_at)
    = (%(microdao_id)s, %(scope)s, %(id)s, %(period)s, started.starts_at))
"""

_DELETE_BUDGET = """
DELETE FROM llm_budget WHERE (microdao_id, scope, id, period) = (%(microdao_id)s, %(scope)s, %(id)s, %(period)s)
"""

# Admitting and settling a call write to this table first: none of them is half done, and none begins before the commit.
_LOCK_CALLS = "LOCK TABLE llm_reservation IN SHARE ROW EXCLUSIVE MODE"

_CALLS: Final[dict[str, LiteralString]] = {
    "platform": "admitted_at >= starts_at",
    "microdao": "admitted_at >= starts_at AND microdao_id = %(id)s",
    "agent": "admitted_at >= starts_at AND microdao_id = %(microdao_id)s AND agent_id = %(id)s",
    "key": "admitted_at >= starts_at AND microdao_id = %(microdao_id)s AND key_id = %(id)s",
    "flow": "admitted_at >= starts_at AND microdao_id = %(microdao_id)s AND flow_id = %(id)s",
}

_LIST_LIMITS = """
SELECT * FROM (SELECT *, concat_ws('/', microdao_id, scope, id) AS cursor FROM llm_limit
    WHERE microdao_id = ANY(%(owners)s)) AS limits
WHERE cursor > %(after)s ORDER BY cursor LIMIT %(limit)s
"""

_LIST_BUDGETS = """
SELECT * FROM (SELECT b.*, concat_ws('/', b.microdao_id, b.scope, b.id, b.period) AS cursor,
        coalesce(p.spent_microusd, 0) AS spent_microusd, coalesce(p.reserved_microusd, 0) AS reserved_microusd,
        llm_period_end(b.period, now()) AS resets_at
    FROM llm_budget b LEFT JOIN llm_budget_period p ON p.starts_at = llm_period_start(b.period, now())
        AND (p.microdao_id, p.scope, p.id, p.period) = (b.microdao_id, b.scope, b.id, b.period)
    WHERE b.microdao_id = ANY(%(owners)s)) AS budgets
WHERE cursor > %(after)s ORDER BY cursor LIMIT %(limit)s
"""


async def scope_exists(connection: Connection, key: ScopeKey) -> bool:
    """Whether the microDAO has such an agent, key or flow."""
    return await fetch_one(connection, _EXISTS[key.scope], asdict(key)) is not None


async def put_limit(connection: Connection, key: ScopeKey, requests: int | None, tokens: int | None) -> None:
    """Set a limit, or delete it when both figures are None; its running minute goes with it."""
    params = {**asdict(key), "requests": requests, "tokens": tokens}
    if requests is None and tokens is None:
        await connection.execute(_DELETE_LIMIT, params)
        return
    await connection.execute(_PUT_LIMIT, params)
    await connection.execute(_PUT_WINDOW, params)


async def put_budget(connection: Connection, key: ScopeKey, period: str, limit: int) -> None:
    """Set a budget."""
    params: dict[str, Any] = {**asdict(key), "period": period, "limit": limit}
    await connection.execute(_LOCK_CALLS)
    await connection.execute(_PUT_BUDGET, params)
    await connection.execute(_START_PERIOD.format(calls=_CALLS[key.scope]), params)


async def delete_budget(connection: Connection, key: ScopeKey, period: str) -> None:
    """Delete a budget and its periods."""
    await connection.execute(_LOCK_CALLS)
    await connection.execute(_DELETE_BUDGET, {**asdict(key), "period": period})


async def list_limits(connection: Connection, owners: list[str], after: str, limit: int) -> list[Row]:
    """Limits of these owners."""
    return await fetch_all(connection, _LIST_LIMITS, {"owners": owners, "after": after, "limit": limit})


async def list_budgets(connection: Connection, owners: list[str], after: str, limit: int) -> list[Row]:
    """Budgets of these owners with their running periods."""
    return await fetch_all(connection, _LIST_BUDGETS, {"owners": owners, "after": after, "limit": limit})
