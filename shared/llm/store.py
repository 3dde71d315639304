"""The ledger's SQL."""

from typing import Any

from shared.db.database import Connection

_COLUMNS = (
    "id",
    "microdao_id",
    "agent_id",
    "key_id",
    "session_id",
    "flow_id",
    "model",
    "provider",
    "provider_model",
    "attempt",
    "outcome",
    "error_code",
    "usage_source",
    "prompt_tokens",
    "completion_tokens",
    "cached_tokens",
    "reasoning_tokens",
    "input_usd_per_mtok",
    "cached_input_usd_per_mtok",
    "output_usd_per_mtok",
    "cost_microusd",
    "latency_ms",
)
_INSERT = (
    f"INSERT INTO llm_ledger ({', '.join(_COLUMNS)})"  # noqa: S608 - only the names above
    f" VALUES ({', '.join(f'%({column})s' for column in _COLUMNS)})"
)


async def insert_ledger_row(connection: Connection, row: dict[str, Any]) -> None:
    """Append one attempt."""
    await connection.execute(_INSERT, row)
