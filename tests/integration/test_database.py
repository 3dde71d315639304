"""The pool: one statement in one round trip, and connections that the server has closed."""

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal

import psycopg
import pytest

from shared.cloud.outbox import Outbox
from shared.db.database import Database, fetch_one
from shared.errors import InvalidApiKey, Unavailable
from shared.llm.caller import Caller
from shared.llm.money.admission import Admission, WorstCase
from shared.llm.money.ledger import Ledger, LedgerEntry
from shared.llm.money.limits import Limits
from shared.llm.money.pricing import UnitPrices
from shared.llm.money.scopes import ScopeKey
from shared.policy.keys import Keys
from shared.wire.chat import new_usage
from tests.fakes.postgres_proxy import PostgresProxy
from tests.races import until_somebody_waits

WHO = "SELECT current_user AS role, current_microdao() AS microdao"


@pytest.fixture
async def proxy(database_url: str) -> AsyncIterator[PostgresProxy]:
    async with PostgresProxy(database_url) as proxy:
        yield proxy


@pytest.fixture
async def alone(proxy: PostgresProxy) -> AsyncIterator[Database]:
    """A pool of one connection, by way of the proxy."""
    database = Database(proxy.url, max_size=1)
    yield database
    await database.close()


async def test_run_says_whose_rows_it_may_see(alone):
    assert await alone.run(WHO, microdao_id="microdao:x") == [{"role": "daarion_tenant", "microdao": "microdao:x"}]
    assert await alone.run(WHO) == [{"role": "daarion_system", "microdao": None}]
    assert await alone.run("SET LOCAL work_mem = '4MB'") == []


async def test_what_run_sets_ends_with_it(alone):
    await alone.run(WHO, microdao_id="microdao:x")
    async with alone._pool.connection() as connection:
        row = await fetch_one(connection, WHO)
    assert row == {"role": "daarion_runtime", "microdao": None}


async def test_a_statement_that_fails_changes_nothing_and_leaves_the_pool_whole(alone, microdao):
    doubled = "INSERT INTO microdao (microdao_id, name) VALUES ('microdao:doubled', ''), ('microdao:doubled', '')"
    with pytest.raises(psycopg.errors.UniqueViolation):
        await alone.run(doubled)
    assert await alone.run("SELECT 1 FROM microdao WHERE microdao_id = 'microdao:doubled'") == []
    async with alone.tenant(microdao) as connection:
        assert await fetch_one(connection, "SELECT count(*) AS n FROM microdao") == {"n": 1}


async def test_a_cancelled_statement_gives_its_connection_back(alone, database):
    async with database.system() as connection:
        await connection.execute("SELECT pg_advisory_xact_lock(1)")
        waiting = asyncio.create_task(alone.run("SELECT pg_advisory_xact_lock(1)"))
        await until_somebody_waits(database)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    async with asyncio.timeout(10):
        assert await alone.run(WHO, microdao_id="microdao:x") == [{"role": "daarion_tenant", "microdao": "microdao:x"}]


async def test_a_deadlock_is_not_called_an_outage(database):
    async def both(first: int, second: int, has_first: asyncio.Event, may_go_on: asyncio.Event) -> None:
        async with database.system() as connection:
            await connection.execute("SELECT pg_advisory_xact_lock(%s)", (first,))
            has_first.set()
            await may_go_on.wait()
            await connection.execute("SELECT pg_advisory_xact_lock(%s)", (second,))

    one, other = asyncio.Event(), asyncio.Event()
    ended = await asyncio.gather(both(71, 72, one, other), both(72, 71, other, one), return_exceptions=True)
    (fault,) = [error for error in ended if error is not None]
    assert isinstance(fault, Unavailable)
    assert "reached" not in fault.message


async def test_a_connection_that_was_closed_is_replaced_unseen(alone, proxy):
    await alone.run(WHO)
    await proxy.cut()
    assert await alone.run(WHO)
    await proxy.cut()
    async with alone.system() as connection:
        assert await fetch_one(connection, WHO)


async def test_round_trips_of_a_call(alone, proxy, database, microdao):
    """Admission and settlement take one each, with limits and budgets in force; the key is known from the call before.

    What a connection sends for the first time it prepares in a round trip of its own.
    """
    keys, admission = Keys(alone, "secret"), Admission(alone, ttl_s=60)
    ledger = Ledger(alone, Outbox(database, {}))  # the relay's look-ups go elsewhere
    key = await keys.create(microdao, ["member"], "test")
    limits, own = Limits(alone), ScopeKey(microdao_id=microdao, scope="microdao", id=microdao)
    await limits.set_limit(own, 100, 100_000)
    await limits.set_budget(own, "month", 1_000_000)
    caller = Caller(microdao_id=microdao, key_id=key.id)
    taken = []
    for _ in range(8):
        before = proxy.round_trips
        await keys.authenticate(key.secret)
        grant = await admission.admit(caller, "cheap", WorstCase(prompt_tokens=9, completion_tokens=9, cost_microusd=9))
        await ledger.settle(grant, [_entry(caller)])
        taken.append(proxy.round_trips - before)
    assert taken[0] <= 5
    assert taken[1:] == [2] * 7
    with pytest.raises(InvalidApiKey):
        await keys.authenticate("sk-daarion-unknown")


def _entry(caller: Caller) -> LedgerEntry:
    one = Decimal(1)
    return LedgerEntry(
        caller=caller,
        model="cheap",
        provider="openai",
        provider_model="gpt-4.1-mini",
        attempt=1,
        outcome="succeeded",
        error_code=None,
        usage=new_usage(4, 4),
        usage_source="measured",
        prices=UnitPrices(input=one, output=one, cached_input=one, cache_creation=one, cache_creation_1h=one),
        latency_ms=1,
    )
