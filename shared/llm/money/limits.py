"""Rate limits and budgets as administrators set them; ``shared/llm/money/admission.py`` enforces them."""

from dataclasses import dataclass

from shared.db.database import Connection, Database, Row
from shared.errors import NotFound
from shared.llm.money import store_limits
from shared.llm.money.scopes import PLATFORM, Period, ScopeKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """Whose rows to list, after which cursor, how many. ``with_platform`` adds the platform's own."""

    microdao_id: str
    with_platform: bool
    after: str
    limit: int

    @property
    def owners(self) -> list[str]:
        """The microDAO ids of the rows."""
        return [self.microdao_id, PLATFORM] if self.with_platform else [self.microdao_id]


class Limits:
    """Sets and lists. A change holds from the next call on, in every process."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def set_limit(self, key: ScopeKey, requests_per_minute: int | None, tokens_per_minute: int | None) -> None:
        """Set the most requests and tokens per minute; None lifts. Raises NotFound when the scope's id is unknown."""
        async with self._database.system() as connection:
            await _check_exists(connection, key)
            await store_limits.put_limit(connection, key, requests_per_minute, tokens_per_minute)

    async def set_budget(self, key: ScopeKey, period: Period, limit_microusd: int | None) -> None:
        """Set the most to spend per period; None lifts. What the period's calls cost before counts.

        Raises NotFound when the scope's id is unknown.
        """
        async with self._database.system() as connection:
            await _check_exists(connection, key)
            if limit_microusd is None:
                await store_limits.delete_budget(connection, key, period)
            else:
                await store_limits.put_budget(connection, key, period, limit_microusd)

    async def list_limits(self, wanted: Listing) -> list[Row]:
        """Limits in the order of their ``cursor``."""
        async with self._database.system() as connection:
            return await store_limits.list_limits(connection, wanted.owners, wanted.after, wanted.limit)

    async def list_budgets(self, wanted: Listing) -> list[Row]:
        """Budgets in the order of their ``cursor``, each with what the running period has spent and reserved."""
        async with self._database.system() as connection:
            return await store_limits.list_budgets(connection, wanted.owners, wanted.after, wanted.limit)


async def _check_exists(connection: Connection, key: ScopeKey) -> None:
    if not await store_limits.scope_exists(connection, key):
        raise NotFound(f"no {key.scope} {key.id!r}", param="id")
