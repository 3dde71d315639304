"""The SQL of admission. Functions of migrations 0007 and 0009 do the work, so that each call is one round trip."""

from typing import Any

import orjson

from shared.db.database import Database

_ADMIT = "SELECT admit_llm_call(%s::jsonb)::text AS verdict"
_SETTLE = "SELECT settle_llm_call(%s::jsonb)"
_SETTLE_ORPHAN = "SELECT settle_llm_orphan() AS settled"


async def admit(database: Database, call: dict[str, Any]) -> dict[str, Any]:
    """Check and hold; see ``admit_llm_call``. Raises psycopg's UniqueViolation when the call was admitted before."""
    (row,) = await database.call(_ADMIT, (_json(call),))
    verdict: dict[str, Any] = orjson.loads(row["verdict"])
    return verdict


async def settle(database: Database, call: dict[str, Any]) -> None:
    """Replace the hold by what was spent; see ``settle_llm_call``."""
    await database.call(_SETTLE, (_json(call),))


async def settle_orphan(database: Database) -> bool:
    """Settle one expired hold at its estimate; False when there is none."""
    (row,) = await database.run(_SETTLE_ORPHAN)
    return bool(row["settled"])


def _json(call: dict[str, Any]) -> str:
    return orjson.dumps(call, default=str).decode()  # prices are decimals
