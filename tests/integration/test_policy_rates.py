"""Limits of calls a minute: exact under a rush, apart for each microDAO, tool and agent."""

import asyncio

import pytest

from shared.db.database import Database
from shared.errors import RateLimitExceeded
from shared.policy.rates import ToolRates


async def passed(rates: ToolRates, microdao: str, calls: int, limit: int, agent_id: str | None = None) -> int:
    tries = (rates.take(microdao, "math", limit, agent_id) for _ in range(calls))
    outcomes = await asyncio.gather(*tries, return_exceptions=True)
    assert {type(one) for one in outcomes} <= {type(None), RateLimitExceeded}
    return outcomes.count(None)


async def test_of_a_thousand_at_once_exactly_a_hundred_pass(database_url: str, microdao: str) -> None:
    pools = [Database(database_url, max_size=4, checkout_timeout_s=60) for _ in range(2)]  # two processes
    counts = await asyncio.gather(*(passed(ToolRates(pool), microdao, 500, 100) for pool in pools))
    assert sum(counts) == 100
    for pool in pools:
        await pool.close()


async def test_a_refusal_tells_when_there_is_room(database: Database, microdao: str) -> None:
    rates = ToolRates(database)
    await rates.take(microdao, "math", 1)
    with pytest.raises(RateLimitExceeded, match=r"math may be called 1 times a minute") as caught:
        await rates.take(microdao, "math", 1)
    assert 0 < int(caught.value.headers["retry-after"]) <= 60
    assert 0 < int(caught.value.headers["retry-after-ms"]) <= 60_000


async def test_agents_tools_and_microdaos_are_counted_apart(database: Database, microdao: str) -> None:
    rates = ToolRates(database)
    assert await passed(rates, microdao, 3, 2) == 2
    assert await passed(rates, microdao, 3, 2, "agent:a") == 2
    assert await passed(rates, microdao, 3, 2, "agent:b") == 2
    await rates.take(microdao, "other", 1)


async def test_the_next_minute_begins_with_its_first_call(database: Database, microdao: str) -> None:
    rates = ToolRates(database)
    assert await passed(rates, microdao, 3, 2) == 2
    async with database.tenant(microdao) as connection:
        await connection.execute("UPDATE tool_rate SET began_at = began_at - interval '61 seconds'")
    assert await passed(rates, microdao, 5, 2) == 2


async def test_a_higher_limit_holds_at_once(database: Database, microdao: str) -> None:
    rates = ToolRates(database)
    assert await passed(rates, microdao, 3, 2) == 2
    assert await passed(rates, microdao, 3, 4) == 2
