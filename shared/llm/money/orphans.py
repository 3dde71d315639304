"""Holds whose process died before it settled them."""

from shared.db.database import Database
from shared.llm.money import store_admission

_MOST_AT_ONCE = 500


async def settle_orphans(database: Database) -> int:
    """Settle expired holds at their estimates, each in its own transaction; how many. The rest waits for the next time.

    The ledger marks them as ``orphaned``. Should the call be settled after all, that estimate is taken back.
    """
    settled = 0
    while settled < _MOST_AT_ONCE and await store_admission.settle_orphan(database):
        settled += 1
    return settled
