"""What an end user adds to a call: no round trip, whether or not one is named."""

from collections.abc import AsyncIterator

import pytest

from shared.cloud.outbox import Outbox
from shared.db.database import Database, fetch_all
from shared.memory.memory import Memory, open_memory
from shared.memory.model import ScopeRef
from shared.settings import Settings
from tests.fakes.postgres_proxy import PostgresProxy
from tests.memories import AGENT, ask, new

OLENA = "olena"


@pytest.fixture
async def proxy(database_url: str) -> AsyncIterator[PostgresProxy]:
    async with PostgresProxy(database_url) as proxy:
        yield proxy


@pytest.fixture
async def memory(settings: Settings, database: Database, proxy: PostgresProxy) -> AsyncIterator[Memory]:
    """Over one connection, by way of the proxy; jobs stay in the outbox."""
    alone, outbox = Database(proxy.url, max_size=1), Outbox(database, {})
    yield open_memory(settings, alone, outbox)
    await outbox.close()
    await alone.close()


async def test_a_user_costs_no_round_trip(memory: Memory, proxy: PostgresProxy, microdao: str):
    """Statements are prepared when they are sent for the sixth time; then each call takes what it takes."""
    taken = {}
    for user in (None, OLENA):
        scope = ScopeRef("user", user) if user else None
        for number in range(12):
            before = proxy.round_trips
            await memory.store(new(microdao, f"note {number} of {user}", scope=scope))
            between = proxy.round_trips
            found = await memory.query(ask(microdao, "note", mode="lexical", user_id=user))
            taken[user] = (between - before, proxy.round_trips - between)
        assert found
    assert taken[None] == taken[OLENA]
    assert taken[None] == (4, 6)


async def test_looking_for_what_may_be_read_does_not_read_all_users(memory: Memory, database: Database, microdao: str):
    """An index finds the scopes that are not users', and the one that is the transaction's."""
    async with database.tenant(microdao) as connection:
        await connection.execute(
            "INSERT INTO memory_scope (microdao_id, kind, name, agent_id)"
            " SELECT %s, 'user', 'user-' || n, %s FROM generate_series(1, 3000) n",
            (microdao, AGENT),
        )
    async with database.agent(microdao, AGENT, "user-7") as connection:
        await connection.execute("SET LOCAL enable_seqscan = off")
        rows = await fetch_all(
            connection,
            "EXPLAIN (ANALYZE, FORMAT JSON) SELECT s.scope_id FROM memory_scope s"
            " WHERE s.microdao_id = current_microdao() AND s.kind IN ('microdao', 'team', 'agent')",
        )
    (plan,) = rows[0]["QUERY PLAN"]
    assert plan["Plan"]["Actual Rows"] == 2
    assert plan["Plan"].get("Rows Removed by Filter", 0) == 0, plan
