"""Races for admission: several operating system processes against one Postgres. Run as a module it is one of them."""

import asyncio
import json
import sys
from asyncio.subprocess import Process
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

from shared.cloud.outbox import Outbox
from shared.db.database import Database
from shared.errors import ApiError
from shared.ids import new_id
from shared.llm.caller import Caller
from shared.llm.money.admission import Admission, WorstCase
from shared.llm.money.ledger import Ledger, LedgerEntry
from shared.llm.money.limits import Limits
from shared.llm.money.orphans import settle_orphans
from shared.llm.money.pricing import UnitPrices
from shared.llm.money.scopes import ScopeKey
from shared.wire.chat import new_usage

PROCESSES = 4
COST = 30  # of a call, at the worst and in fact
_PRICES = UnitPrices(
    input=Decimal(1),
    output=Decimal(2),
    cached_input=Decimal(1),
    cache_creation=Decimal(1),
    cache_creation_1h=Decimal(1),
)
_WORST = WorstCase(prompt_tokens=10, completion_tokens=10, cost_microusd=COST)


@asynccontextmanager
async def racers(url: str, microdao: str, calls: int, *, settles: bool) -> AsyncIterator[list[Process]]:
    """Processes at the start line, each to make ``calls`` calls at once; those left at the end are killed."""
    started = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.races", url, microdao, str(calls), str(int(settles))),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        for _ in range(PROCESSES)
    ]
    try:
        for racer in started:
            await _read(racer)
        yield started
    finally:
        for racer in started:
            if racer.returncode is None:
                racer.kill()
            await racer.wait()


async def run_race(url: str, microdao: str, calls: int) -> Counter[str]:
    """How often calls ended how: ``passed`` or an error's code."""
    async with racers(url, microdao, calls // PROCESSES, settles=True) as started:
        await _go(started)
        return sum([Counter(await _read(racer)) for racer in started], Counter())


async def request_limit_race(database: Database, url: str) -> None:
    """A limit of 100 lets exactly 100 of 1,000 calls pass."""
    microdao = await _tenant(database)
    await Limits(database).set_limit(_own(microdao), 100, None)
    assert await run_race(url, microdao, 1000) == {"passed": 100, "rate_limit_exceeded": 900}


async def budget_race(database: Database, url: str) -> None:
    """A budget worth 10 calls lets exactly 10 of 200 pass, whoever's budgets are in force beside it."""
    microdao = await _tenant(database)
    limits = Limits(database)
    await limits.set_budget(_own(microdao), "total", 10 * COST)
    await limits.set_budget(_own(microdao), "day", 100 * COST)
    await limits.set_budget(ScopeKey(microdao_id=microdao, scope="agent", id="agent:racer"), "month", 100 * COST)
    assert await run_race(url, microdao, 200) == {"passed": 10, "insufficient_quota": 190}
    await _check_budgets(database, microdao, spent=10 * COST)


async def kill_race(database: Database, url: str) -> None:
    """Processes killed between admission and settlement: after expiry each budget is the sum of the ledger's rows."""
    microdao = await _tenant(database)
    await Limits(database).set_budget(_own(microdao), "total", 1000 * COST)
    async with racers(url, microdao, 5, settles=False) as started:
        await _go(started)
        for racer in started:
            assert await _read(racer) == {"passed": 5}
            racer.kill()
    held = 5 * PROCESSES * COST
    assert [row["reserved_microusd"] for row in await _periods(database, microdao)] == [held]
    await database.run("UPDATE llm_reservation SET expires_at = now() WHERE microdao_id = %s", (microdao,))
    await asyncio.gather(*(settle_orphans(database) for _ in range(3)))
    await _check_budgets(database, microdao, spent=held)


async def until_somebody_waits(database: Database) -> None:
    """Return once a statement of another connection waits for a lock."""
    async with asyncio.timeout(10):
        while not await database.run("SELECT 1 FROM pg_locks WHERE NOT granted"):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def _tenant(database: Database) -> str:
    microdao = f"microdao:{new_id('race')}"
    await database.run(
        "INSERT INTO microdao (microdao_id, name) VALUES (%s, 'Race') ON CONFLICT DO NOTHING", (microdao,)
    )
    await database.run(
        "INSERT INTO agent (microdao_id, agent_id, name, blueprint_code) VALUES (%s, 'agent:racer', 'Racer', 'sofia')"
        " ON CONFLICT DO NOTHING",
        (microdao,),
    )
    return microdao


def _own(microdao: str) -> ScopeKey:
    return ScopeKey(microdao_id=microdao, scope="microdao", id=microdao)


async def _periods(database: Database, microdao: str) -> list[dict[str, Any]]:
    return await database.run("SELECT * FROM llm_budget_period WHERE microdao_id = %s", (microdao,))


async def _check_budgets(database: Database, microdao: str, *, spent: int) -> None:
    (ledger,) = await database.run(
        "SELECT sum(cost_microusd)::int AS sum FROM llm_ledger WHERE microdao_id = %s", (microdao,)
    )
    assert ledger["sum"] == spent
    for period in await _periods(database, microdao):
        assert (period["spent_microusd"], period["reserved_microusd"]) == (spent, 0), period["period"]


async def _go(started: list[Process]) -> None:
    for racer in started:
        assert racer.stdin
        racer.stdin.write(b"go\n")
        await racer.stdin.drain()


async def _read(racer: Process) -> Any:
    assert racer.stdout
    return json.loads(await asyncio.wait_for(racer.stdout.readline(), 60))


async def _race(url: str, microdao: str, calls: int, *, settles: bool) -> None:
    database = Database(url, max_size=8, checkout_timeout_s=60)
    admission, ledger = Admission(database, ttl_s=900), Ledger(database, Outbox(database, {}))
    caller = Caller(microdao_id=microdao, agent_id="agent:racer")

    async def call() -> str:
        try:
            grant = await admission.admit(caller, "cheap", _WORST)
        except ApiError as error:
            return error.code
        if settles:
            await ledger.settle(grant, [_entry(caller)])
        return "passed"

    await database.run("SELECT 1")
    _say("ready")
    await asyncio.to_thread(sys.stdin.readline)
    _say(Counter(await asyncio.gather(*(call() for _ in range(calls)))))
    await asyncio.to_thread(sys.stdin.readline)  # until it is killed, or its input ends


def _say(result: Any) -> None:
    sys.stdout.write(json.dumps(result) + "\n")
    sys.stdout.flush()


def _entry(caller: Caller) -> LedgerEntry:
    return LedgerEntry(
        caller=caller,
        model="cheap",
        provider="openai",
        provider_model="gpt-4.1-mini",
        attempt=1,
        outcome="succeeded",
        error_code=None,
        usage=new_usage(10, 10),
        usage_source="measured",
        prices=_PRICES,
        latency_ms=1,
    )


if __name__ == "__main__":
    _url, _microdao, _calls, _settles = sys.argv[1:]
    asyncio.run(_race(_url, _microdao, int(_calls), settles=_settles == "1"))
