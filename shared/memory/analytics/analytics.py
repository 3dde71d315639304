"""How an agent's or a whole microDAO's memory grows, answers, ages and what its embeddings cost."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from shared.clock import utc_now
from shared.db.database import Connection, Database, Row
from shared.errors import InvalidRequest
from shared.memory.analytics import store_analytics
from shared.memory.intake import no_agent
from shared.usage.report import UsageFilter, usage_report

MAX_PERIOD: Final = timedelta(days=366)
DUPLICATES_AMONG: Final = 20_000
"""So many of the newest items are compared with each other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """Whose memory: an agent's own with its users', or without ``agent_id`` every scope of the microDAO."""

    microdao_id: str
    agent_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which report: ``until`` is exclusive. ``embedding_models`` are the logical models whose cost is asked for."""

    since: datetime
    until: datetime
    unused_for: timedelta
    embedding_models: Sequence[str]
    usd_per_1t: float


class Analytics:
    """Reads figures; nothing is kept for them but what memory writes anyway."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def report(self, subject: Subject, wanted: Wanted) -> dict[str, Any]:
        """Every figure; see docs/memory-analytics.md. Raises NotFound (agent) or InvalidRequest (period too long)."""
        if wanted.until - wanted.since > MAX_PERIOD:
            raise InvalidRequest(f"period may span at most {MAX_PERIOD.days} days", param="period")
        last = (wanted.until - timedelta(microseconds=1)).date()
        async with self._scopes(subject) as (connection, scopes):
            figures = {
                "growth": await store_analytics.read_growth(connection, scopes, wanted.since, wanted.until),
                "queries": await store_analytics.read_queries(connection, subject.agent_id, wanted.since.date(), last),
                "duplicates": _rated(await store_analytics.read_duplicates(connection, scopes, DUPLICATES_AMONG)),
                "stale": await store_analytics.count_stale(connection, scopes, utc_now() - wanted.unused_for),
                "queue": await store_analytics.read_queue(connection, scopes),
                "embeddings": await store_analytics.read_embeddings(connection, scopes),
            }
        return {**figures, "embedding_cost": await self._cost(subject, wanted)}

    async def most_used(self, subject: Subject, after: tuple[int, int] | None, limit: int) -> list[Row]:
        """The items that answered most often, after a cursor (hits, number). Raises NotFound (agent)."""
        async with self._scopes(subject) as (connection, scopes):
            return await store_analytics.list_most_used(connection, scopes, after, limit)

    async def stale(
        self, subject: Subject, unused_for: timedelta, after: tuple[datetime, int] | None, limit: int
    ) -> list[Row]:
        """Items as old as that which have not answered for so long, oldest first. Raises NotFound (agent)."""
        async with self._scopes(subject) as (connection, scopes):
            return await store_analytics.list_stale(connection, scopes, utc_now() - unused_for, after, limit)

    @asynccontextmanager
    async def _scopes(self, subject: Subject) -> AsyncIterator[tuple[Connection, list[int]]]:
        async with self._database.tenant(subject.microdao_id) as connection:
            scopes = await store_analytics.read_scopes(connection, subject.agent_id)
            if subject.agent_id is not None and not scopes:
                raise no_agent(subject.agent_id)
            yield connection, scopes

    async def _cost(self, subject: Subject, wanted: Wanted) -> list[Row]:
        """Calls are told apart by their logical model, which is either for chats or for embeddings."""
        chosen = UsageFilter(agent_id=subject.agent_id, since=wanted.since, until=wanted.until, group_by=("model",))
        used = await usage_report(self._database, subject.microdao_id, chosen, usd_per_1t=wanted.usd_per_1t)
        return [group for group in used["groups"] if group["model"] in wanted.embedding_models]


def _rated(row: Row) -> Row:
    return {**row, "rate": row["duplicates"] / row["looked_at"] if row["looked_at"] else 0.0}
