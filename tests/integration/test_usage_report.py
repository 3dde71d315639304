"""The usage report's figures, groups and periods."""

from datetime import UTC, datetime, timedelta

import pytest

from shared.clock import utc_now
from shared.db.database import Database, fetch_all
from shared.errors import InvalidRequest
from shared.ids import new_id
from shared.usage.events import UsageEvent, record
from shared.usage.meter import Meter
from shared.usage.report import UsageFilter, parse_period, usage_report

USD_PER_1T = 0.01


@pytest.fixture
async def spent(database: Database, microdao: str) -> str:
    """Four metered model calls on two days, one tool run, and a call not metered yet."""
    await _spend(database, microdao, "gpt-4.1", "agent:a", prompt_tokens=100, completion_tokens=20, cost_microusd=5000)
    await _spend(database, microdao, "gpt-4.1", "agent:b", prompt_tokens=50, cached_tokens=40, latency_ms=300)
    await _spend(database, microdao, "offline", None, reasoning_tokens=7, latency_ms=200, flow_id="flow_1")
    await _spend(database, microdao, "offline", "agent:a", failed=True, latency_ms=1000)
    await _spend(database, microdao, "math", "agent:a", kind="tool", latency_ms=9000)
    async with database.tenant(microdao) as connection:
        rows = await fetch_all(connection, "SELECT body FROM outbox WHERE queue = 'usage'")
        await connection.execute(
            "UPDATE usage_event SET occurred_at = '2026-01-01T23:59:59Z' WHERE subject = 'gpt-4.1' AND kind = 'llm'"
        )
        await connection.execute(
            "UPDATE usage_event SET occurred_at = '2026-01-02T00:00:00Z' WHERE subject = 'offline'"
        )
    for row in rows:
        assert await Meter(database).apply(**row["body"])
    await _spend(database, microdao, "gpt-4.1", "agent:a", prompt_tokens=999)
    return microdao


async def _spend(database: Database, microdao: str, subject: str, agent_id: str | None, **fields) -> None:
    values = {"kind": "llm", "latency_ms": 100, **fields}
    event = UsageEvent(id=new_id("use"), microdao_id=microdao, subject=subject, agent_id=agent_id, **values)
    async with database.tenant(microdao) as connection:
        await record(connection, event)


async def _report(database: Database, microdao: str, **wanted):
    return await usage_report(database, microdao, UsageFilter(**wanted), usd_per_1t=USD_PER_1T)


async def test_totals(database: Database, spent: str):
    assert await _report(database, spent) == {
        "total": {
            "requests": 4,
            "errors": 1,
            "prompt_tokens": 150,
            "completion_tokens": 20,
            "cached_tokens": 40,
            "reasoning_tokens": 7,
            "total_tokens": 170,
            "cost_microusd": 5000,
            "cost_1t": pytest.approx(0.5),
            "latency_ms_p50": 250,
            "latency_ms_p95": 895,
        },
        "groups": [],
    }


async def test_groups_add_up_to_the_total(database: Database, spent: str):
    report = await _report(database, spent, group_by=("day", "model"))
    keys = [(group["day"], group["model"], group["requests"]) for group in report["groups"]]
    assert keys == [("2026-01-01", "gpt-4.1", 2), ("2026-01-02", "offline", 2)]
    by_agent = await _report(database, spent, group_by=("agent_id",))
    assert {group["agent_id"]: group["requests"] for group in by_agent["groups"]} == {
        "agent:a": 2,
        "agent:b": 1,
        None: 1,
    }
    for key in ("requests", "total_tokens", "cost_microusd"):
        assert sum(group[key] for group in by_agent["groups"]) == report["total"][key]


async def test_groups_by_provider_and_flow(database: Database, microdao: str):
    await _spend(database, microdao, "cheap", None, provider="openai", flow_id="flow_1", cost_microusd=9)
    await _spend(database, microdao, "cheap", None, provider="openai", cost_microusd=-9, calls=-1, latency_ms=10_000)
    async with database.tenant(microdao) as connection:
        rows = await fetch_all(connection, "SELECT body FROM outbox WHERE queue = 'usage'")
    for row in rows:
        assert await Meter(database).apply(**row["body"])
    (by_provider,) = (await _report(database, microdao, group_by=("provider",)))["groups"]
    assert (by_provider["provider"], by_provider["requests"], by_provider["cost_microusd"]) == ("openai", 0, 0)
    assert by_provider["latency_ms_p95"] == 100
    by_flow = await _report(database, microdao, group_by=("flow_id",))
    assert [(group["flow_id"], group["requests"]) for group in by_flow["groups"]] == [("flow_1", 1), (None, -1)]


@pytest.mark.parametrize(
    ("wanted", "requests"),
    [
        ({"agent_id": "agent:a"}, 2),
        ({"model": "offline"}, 2),
        ({"flow_id": "flow_1"}, 1),
        ({"since": datetime(2026, 1, 2, tzinfo=UTC)}, 2),
        ({"until": datetime(2026, 1, 2, tzinfo=UTC)}, 2),
        ({"model": "nothing"}, 0),
    ],
)
async def test_filters(database: Database, spent: str, wanted: dict, requests: int):
    report = await _report(database, spent, **wanted)
    assert report["total"]["requests"] == requests
    assert isinstance(report["total"]["latency_ms_p95"], int)


async def test_an_unknown_key_is_refused(database: Database, microdao: str):
    with pytest.raises(InvalidRequest):
        await _report(database, microdao, group_by=("prompt",))


def test_periods():
    assert parse_period("2026-01-01..2026-02-01") == (
        datetime(2026, 1, 1, tzinfo=UTC),
        datetime(2026, 2, 1, tzinfo=UTC),
    )
    assert parse_period("2026-01-01") == (datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC))
    for text, length in (("30d", timedelta(days=30)), ("24h", timedelta(hours=24))):
        since, until = parse_period(text)
        assert until - since == length
        assert abs(utc_now() - until) < timedelta(minutes=1)


@pytest.mark.parametrize(
    "text",
    [
        *("", "30", "d", "0d", "-1d", "99999d", "1w", "٣d", "2026-13-01", "2026-1-1", "20260101", "..", "2026-01-01.."),
        *("2026-02-01..2026-01-01", "2026-01-01..2026-01-01", "2026-01-01T00:00:00Z", "9999-12-31", "30d\n"),
    ],
)
def test_garbage_is_no_period(text: str):
    with pytest.raises(InvalidRequest):
        parse_period(text)
