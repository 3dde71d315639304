"""Admission and settlement against Postgres: limits, budgets, holds, corrections."""

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import pytest

from shared.cloud.outbox import Outbox
from shared.db.database import Database, Row, fetch_all, fetch_one
from shared.errors import InsufficientQuota, InvalidApiKey, NotFound, RateLimitExceeded
from shared.ids import new_id
from shared.llm.caller import Caller
from shared.llm.money.admission import Admission, Grant, WorstCase
from shared.llm.money.ledger import Ledger, LedgerEntry
from shared.llm.money.limits import Limits, Listing
from shared.llm.money.orphans import settle_orphans
from shared.llm.money.pricing import UnitPrices
from shared.llm.money.scopes import ScopeKey
from shared.policy.keys import Keys
from shared.wire.chat import new_usage
from tests.races import until_somebody_waits

PRICES = UnitPrices(
    input=Decimal(1),
    output=Decimal(2),
    cached_input=Decimal("0.1"),
    cache_creation=Decimal("1.25"),
    cache_creation_1h=Decimal(2),
)
WORST = WorstCase(prompt_tokens=100, completion_tokens=50, cost_microusd=200)
ACTUAL = 80  # of an entry: 40 prompt and 20 completion tokens


@pytest.fixture
def caller(microdao: str) -> Caller:
    return Caller(microdao_id=microdao, agent_id="agent:sofia", key_id=new_id("key"), flow_id=new_id("flow"))


@pytest.fixture
async def admission(database: Database) -> AsyncIterator[Admission]:
    admission = Admission(database, ttl_s=900)
    yield admission
    await admission.close()


@pytest.fixture
async def ledger(database: Database) -> AsyncIterator[Ledger]:
    ledger = Ledger(database, Outbox(database, {}))
    yield ledger
    await ledger.close()


@pytest.fixture
def limits(database: Database) -> Limits:
    return Limits(database)


def scope_key(caller: Caller, scope: Any = "microdao") -> ScopeKey:
    ids = {"microdao": caller.microdao_id, "agent": caller.agent_id, "key": caller.key_id, "flow": caller.flow_id}
    return ScopeKey(microdao_id=caller.microdao_id, scope=scope, id=str(ids[scope]))


def entry(caller: Caller, **more: Any) -> LedgerEntry:
    values = {
        "caller": caller,
        "model": "cheap",
        "provider": "openai",
        "provider_model": "gpt-4.1-mini",
        "attempt": 1,
        "outcome": "succeeded",
        "error_code": None,
        "usage": new_usage(40, 20),
        "usage_source": "measured",
        "prices": PRICES,
        "latency_ms": 7,
    }
    return LedgerEntry(**{**values, **more})


def failure(caller: Caller, **more: Any) -> LedgerEntry:
    lost = {"outcome": "failed", "error_code": "upstream_error", "usage": None, "usage_source": "none"}
    return entry(caller, **{**lost, **more})


async def rows(database: Database, query: str, *params: Any) -> list[Row]:
    async with database.system() as connection:
        return await fetch_all(connection, query, params)


async def budget(limits: Limits, caller: Caller) -> tuple[int, int]:
    """What is spent and reserved of the microDAO's one budget."""
    (row,) = await limits.list_budgets(Listing(microdao_id=caller.microdao_id, with_platform=False, after="", limit=9))
    return row["spent_microusd"], row["reserved_microusd"]


async def ledger_sum(database: Database, caller: Caller) -> int:
    (row,) = await rows(
        database, "SELECT sum(cost_microusd)::int AS sum FROM llm_ledger WHERE microdao_id = %s", caller.microdao_id
    )
    return row["sum"] or 0


async def expire(database: Database, grant: Grant) -> None:
    await rows(
        database, "UPDATE llm_reservation SET expires_at = now() - interval '1 s' WHERE id = %s RETURNING id", grant.id
    )


async def test_without_limits_everything_passes_and_is_held(admission, database, caller):
    grant = await admission.admit(caller, "cheap", WORST)
    assert grant.headers == {}
    (hold,) = await rows(database, "SELECT * FROM llm_reservation WHERE id = %s", grant.id)
    assert (hold["cost_microusd"], hold["agent_id"], hold["model"]) == (200, "agent:sofia", "cheap")
    assert (hold["expires_at"] - hold["admitted_at"]).total_seconds() == 900


@pytest.mark.parametrize("scope", ["microdao", "agent", "key", "flow"])
async def test_each_scope_has_its_own_window(admission, limits, database, caller, scope):
    if scope in ("key", "flow"):
        await make_scopes(database, caller)
    await limits.set_limit(scope_key(caller, scope), 2, None)
    for left in ("1", "0"):
        headers = (await admission.admit(caller, "cheap", WORST)).headers
        assert headers["x-ratelimit-limit-requests"] == "2"
        assert headers["x-ratelimit-remaining-requests"] == left
    with pytest.raises(RateLimitExceeded, match=f"{scope}.*2 requests per minute") as refused:
        await admission.admit(caller, "cheap", WORST)
    assert 1 <= int(refused.value.headers["retry-after"]) <= 60
    assert 59_000 < int(refused.value.headers["retry-after-ms"]) <= 60_000
    elsewhere = Caller(microdao_id=caller.microdao_id, agent_id="agent:other")
    if scope != "microdao":
        await admission.admit(elsewhere, "cheap", WORST)


async def make_scopes(database: Database, caller: Caller) -> None:
    async with database.system() as connection:
        await connection.execute(
            "INSERT INTO api_key (id, microdao_id, name, key_hash, hint, roles)"
            " VALUES (%s, %s, '', %s, '', '{member}')",
            (caller.key_id, caller.microdao_id, str(caller.key_id).encode()),
        )
        await connection.execute(
            "INSERT INTO flow (id, microdao_id, agent_id, requested_by, state, mode, request, transitions)"
            " VALUES (%s, %s, 'agent:sofia', '', 'INIT', 'auto', '{}', '{}')",
            (caller.flow_id, caller.microdao_id),
        )


async def test_a_minute_that_is_over_begins_anew(admission, limits, database, caller):
    await limits.set_limit(scope_key(caller), 1, None)
    await admission.admit(caller, "cheap", WORST)
    aged = "UPDATE llm_window SET started_at = started_at - interval '1 minute' WHERE microdao_id = %s RETURNING id"
    await rows(database, aged, caller.microdao_id)
    await admission.admit(caller, "cheap", WORST)
    with pytest.raises(RateLimitExceeded):
        await admission.admit(caller, "cheap", WORST)


async def test_tokens_are_held_at_the_worst_case_and_given_back(admission, ledger, limits, caller):
    await limits.set_limit(scope_key(caller), None, 250)
    grant = await admission.admit(caller, "cheap", WORST)
    assert grant.headers["x-ratelimit-remaining-tokens"] == "100"
    assert "x-ratelimit-limit-requests" not in grant.headers
    with pytest.raises(RateLimitExceeded, match="250 tokens per minute"):
        await admission.admit(caller, "cheap", WORST)
    await ledger.settle(grant, [entry(caller)])
    assert (await admission.admit(caller, "cheap", WORST)).headers["x-ratelimit-remaining-tokens"] == "40"


async def test_a_call_larger_than_the_limit_is_not_worth_a_retry(admission, limits, caller):
    await limits.set_limit(scope_key(caller), None, 149)
    with pytest.raises(RateLimitExceeded, match="150 tokens") as refused:
        await admission.admit(caller, "cheap", WORST)
    assert refused.value.headers["x-should-retry"] == "false"
    assert "retry-after" not in refused.value.headers


async def test_a_budget_holds_the_worst_case_and_is_charged_the_actual_cost(
    admission, ledger, limits, database, caller
):
    await limits.set_budget(scope_key(caller), "month", 450)
    first, second = [await admission.admit(caller, "cheap", WORST) for _ in range(2)]
    assert await budget(limits, caller) == (0, 400)
    with pytest.raises(InsufficientQuota, match=r"month budget of microdao .* limit 0\.000450 USD") as refused:
        await admission.admit(caller, "cheap", WORST)
    assert refused.value.headers == {"x-should-retry": "false"}
    assert "It resets at " in refused.value.message
    await ledger.settle(first, [failure(caller), entry(caller, attempt=2)])
    assert await budget(limits, caller) == (ACTUAL, 200)
    await ledger.settle(second, [])
    assert await budget(limits, caller) == (ACTUAL, 0) == (await ledger_sum(database, caller), 0)
    await admission.admit(caller, "cheap", WORST)


async def test_free_calls_pass_an_empty_budget(admission, limits, caller):
    await limits.set_budget(scope_key(caller), "total", 0)
    await admission.admit(caller, "offline", WorstCase(prompt_tokens=9, completion_tokens=9, cost_microusd=0))
    with pytest.raises(InsufficientQuota, match="does not reset"):
        await admission.admit(caller, "cheap", WORST)


async def test_a_refusal_holds_nothing_anywhere(admission, limits, database, caller):
    await limits.set_limit(scope_key(caller), 5, 1000)
    await limits.set_budget(scope_key(caller), "total", 199)
    with pytest.raises(InsufficientQuota):
        await admission.admit(caller, "cheap", WORST)
    (window,) = await rows(database, "SELECT * FROM llm_window WHERE microdao_id = %s", caller.microdao_id)
    assert (window["requests"], window["tokens"]) == (0, 0)
    assert await budget(limits, caller) == (0, 0)
    assert await rows(database, "SELECT 1 FROM llm_reservation WHERE microdao_id = %s", caller.microdao_id) == []


async def test_settling_writes_every_attempt_and_one_event_once(admission, ledger, database, caller):
    grant = await admission.admit(caller, "cheap", WORST)
    usage = new_usage(40, 20, cached=10, cache_creation=20, cache_creation_1h=5, reasoning=3)
    attempts = [failure(caller), entry(caller, attempt=2, usage=usage)]
    await asyncio.gather(*(ledger.settle(grant, attempts) for _ in range(3)))
    await ledger.settle(grant, attempts)
    lost, won = await rows(
        database, "SELECT * FROM llm_ledger WHERE microdao_id = %s ORDER BY attempt", caller.microdao_id
    )
    assert (lost["outcome"], lost["error_code"], lost["cost_microusd"]) == ("failed", "upstream_error", 0)
    assert won["cost_microusd"] == 80  # 10 plain, 10 × 0.1 read, 15 × 1.25 and 5 × 2 written, 20 × 2 out: 79.75
    assert (won["cached_tokens"], won["cache_creation_tokens"], won["cache_creation_1h_tokens"]) == (10, 20, 5)
    assert (won["cache_creation_usd_per_mtok"], won["output_usd_per_mtok"]) == (Decimal("1.25"), Decimal(2))
    (event,) = await rows(database, "SELECT * FROM usage_event WHERE microdao_id = %s", caller.microdao_id)
    assert (event["subject"], event["provider"], event["cost_microusd"]) == ("cheap", "openai", 80)
    assert (event["failed"], event["latency_ms"], event["reasoning_tokens"]) == (False, 14, 3)
    (job,) = await rows(database, "SELECT * FROM outbox WHERE microdao_id = %s", caller.microdao_id)
    assert job["body"] == {"job_id": job["id"], "microdao_id": caller.microdao_id, "event_id": event["id"]}


async def test_an_orphan_is_settled_at_its_estimate_once(admission, limits, database, caller):
    await limits.set_budget(scope_key(caller), "day", 1000)
    grant = await admission.admit(caller, "cheap", WORST)
    await expire(database, grant)
    await settle_orphans(database)
    await settle_orphans(database)
    assert await budget(limits, caller) == (200, 0) == (await ledger_sum(database, caller), 0)
    (row,) = await rows(database, "SELECT * FROM llm_ledger WHERE microdao_id = %s", caller.microdao_id)
    assert (row["outcome"], row["usage_source"], row["prompt_tokens"]) == ("orphaned", "estimated", 100)
    (event,) = await rows(database, "SELECT * FROM usage_event WHERE microdao_id = %s", caller.microdao_id)
    assert (event["cost_microusd"], event["failed"]) == (200, True)


async def test_an_orphan_that_is_settled_late_costs_what_it_cost(admission, ledger, limits, database, caller):
    await limits.set_budget(scope_key(caller, "agent"), "day", 1000)
    grant = await admission.admit(caller, "cheap", WORST)
    await expire(database, grant)
    await settle_orphans(database)
    for _ in range(2):
        await ledger.settle(grant, [entry(caller)])
    assert await budget(limits, caller) == (ACTUAL, 0) == (await ledger_sum(database, caller), 0)
    (sums,) = await rows(
        database,
        "SELECT sum(calls)::int AS calls, sum(cost_microusd)::int AS cost, sum(prompt_tokens)::int AS prompt"
        " FROM usage_event WHERE microdao_id = %s",
        caller.microdao_id,
    )
    assert sums == {"calls": 1, "cost": ACTUAL, "prompt": 40}


async def test_a_hold_that_the_database_lost_is_still_charged(admission, ledger, limits, database, caller):
    await limits.set_budget(scope_key(caller), "total", 1000)
    grant = await admission.admit(caller, "cheap", WORST)
    await rows(database, "DELETE FROM llm_reservation WHERE id = %s RETURNING id", grant.id)
    await rows(
        database,
        "UPDATE llm_budget_period SET reserved_microusd = 0 WHERE microdao_id = %s RETURNING id",
        caller.microdao_id,
    )
    await ledger.settle(grant, [entry(caller)])
    assert await budget(limits, caller) == (ACTUAL, 0)


async def test_a_new_budget_counts_what_was_spent_and_what_is_in_flight(admission, ledger, limits, caller):
    before = await admission.admit(caller, "cheap", WORST)
    await ledger.settle(before, [entry(caller)])
    in_flight = await admission.admit(caller, "cheap", WORST)
    await limits.set_budget(scope_key(caller, "agent"), "month", 1000)
    assert await budget(limits, caller) == (ACTUAL, 200)
    await ledger.settle(in_flight, [entry(caller)])
    assert await budget(limits, caller) == (2 * ACTUAL, 0)
    await limits.set_budget(scope_key(caller, "agent"), "month", 100)
    assert await budget(limits, caller) == (2 * ACTUAL, 0)
    await limits.set_budget(scope_key(caller, "agent"), "month", None)
    await admission.admit(caller, "cheap", WORST)


async def test_a_call_over_midnight_stays_in_the_day_it_was_admitted_in(admission, ledger, limits, database, caller):
    await limits.set_budget(scope_key(caller), "day", 1000)
    grant = await admission.admit(caller, "cheap", WORST)
    for table, column in (("llm_reservation", "admitted_at"), ("llm_budget_period", "starts_at")):
        await rows(
            database,
            f"UPDATE {table} SET {column} = {column} - interval '1 day' WHERE microdao_id = %s RETURNING id",
            caller.microdao_id,
        )
    (hold,) = await rows(database, "SELECT admitted_at FROM llm_reservation WHERE id = %s", grant.id)
    yesterday = Grant(id=grant.id, caller=caller, model="cheap", admitted_at=hold["admitted_at"].isoformat())
    await ledger.settle(yesterday, [entry(caller)])
    assert await budget(limits, caller) == (0, 0)
    (period,) = await rows(database, "SELECT * FROM llm_budget_period WHERE microdao_id = %s", caller.microdao_id)
    assert (period["spent_microusd"], period["reserved_microusd"]) == (ACTUAL, 0)


async def test_a_revoked_key_admits_nothing(admission, database, microdao):
    keys = Keys(database, "secret")
    key = await keys.create(microdao, ["member"], "test")
    caller = Caller(microdao_id=microdao, key_id=key.id)
    await admission.admit(caller, "cheap", WORST)
    await keys.revoke(microdao, key.id)
    with pytest.raises(InvalidApiKey):
        await admission.admit(caller, "cheap", WORST)
    with pytest.raises(InvalidApiKey):
        await keys.authenticate(key.secret)


async def test_the_platform_limits_everybody(admission, limits, caller):
    platform = ScopeKey(microdao_id="*", scope="platform", id="*")
    await limits.set_budget(platform, "total", 0)
    try:
        with pytest.raises(InsufficientQuota, match=r"budget of the platform has no room for this call\. It does"):
            await admission.admit(caller, "cheap", WORST)
    finally:
        await limits.set_budget(platform, "total", None)
    await admission.admit(caller, "cheap", WORST)


async def test_a_caller_that_leaves_while_it_waits_holds_nothing(admission, limits, database, caller):
    await limits.set_limit(scope_key(caller), 10, None)
    async with database.system() as connection:
        await fetch_one(connection, "SELECT 1 FROM llm_window WHERE microdao_id = %s FOR UPDATE", (caller.microdao_id,))
        waiting = asyncio.create_task(admission.admit(caller, "cheap", WORST))
        await until_somebody_waits(database)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    await admission.close()
    assert await rows(database, "SELECT 1 FROM llm_reservation WHERE microdao_id = %s", caller.microdao_id) == []


async def test_limits_of_unknown_and_foreign_things_are_refused(limits, database, caller, microdao):
    for scope, identifier in (("agent", "agent:nobody"), ("key", "key_x"), ("flow", "flow_x"), ("microdao", "m")):
        with pytest.raises(NotFound, match=identifier):
            await limits.set_limit(ScopeKey(microdao_id=microdao, scope=scope, id=identifier), 1, None)
