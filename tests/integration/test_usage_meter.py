"""The usage meter: every event counts once, whatever the queue does."""

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import orjson
import pytest

from functions.usage_meter.handler import on_batch, on_direct
from shared.bootstrap import Services
from shared.cloud.serve import Message, QueueFunction
from shared.db.database import Database, fetch_all
from shared.ids import new_id
from shared.llm.caller import Caller
from shared.llm.money.admission import Admission, WorstCase
from shared.usage.events import UsageEvent, record
from shared.usage.meter import Meter

EVENTS = Path(__file__).parents[2] / "events"


@pytest.fixture
def meter(database: Database) -> Meter:
    return Meter(database)


async def spend(database: Database, microdao: str, **fields) -> None:
    event = {"id": new_id("use"), "microdao_id": microdao, "kind": "llm", "subject": "gpt-4.1", **fields}
    async with database.tenant(microdao) as connection:
        await record(connection, UsageEvent(**event))


async def queued(database: Database, microdao: str) -> list[dict]:
    async with database.tenant(microdao) as connection:
        rows = await fetch_all(connection, "SELECT body FROM outbox WHERE queue = 'usage' ORDER BY id")
    return [row["body"] for row in rows]


async def totals(database: Database, microdao: str) -> list[dict]:
    async with database.tenant(microdao) as connection:
        return await fetch_all(
            connection,
            "SELECT kind, agent_id, subject, requests, errors, prompt_tokens, cost_microusd FROM usage_daily"
            " ORDER BY kind, agent_id, subject",
        )


async def test_three_deliveries_of_each_event_count_once(meter: Meter, database: Database, microdao: str):
    for number in range(4):
        await spend(database, microdao, prompt_tokens=10, cost_microusd=100, failed=number == 0, agent_id="agent:a")
    await spend(database, microdao, kind="tool", subject="math")
    jobs = await queued(database, microdao) * 3
    applied = await asyncio.gather(*(meter.apply(**job) for job in jobs))
    assert sum(applied) == 5
    assert await queued(database, microdao) == []
    assert await totals(database, microdao) == [
        {
            "kind": "llm",
            "agent_id": "agent:a",
            "subject": "gpt-4.1",
            "requests": 4,
            "errors": 1,
            "prompt_tokens": 40,
            "cost_microusd": 400,
        },
        {
            "kind": "tool",
            "agent_id": "",
            "subject": "math",
            "requests": 1,
            "errors": 0,
            "prompt_tokens": 0,
            "cost_microusd": 0,
        },
    ]


async def test_batches_that_overlap_count_each_event_once(meter: Meter, database: Database, microdao: str):
    for number in range(20):
        await spend(database, microdao, prompt_tokens=1, cost_microusd=10, subject=f"model-{number % 3}")
    jobs = [(job["job_id"], microdao) for job in await queued(database, microdao)]
    batches = [jobs[:10], jobs[10:], jobs[15:4:-1], jobs[::-1], [*jobs[:3], *jobs[:3]]]
    assert sum(await asyncio.gather(*(meter.apply_all(batch) for batch in batches))) == 20
    assert [row["requests"] for row in await totals(database, microdao)] == [7, 7, 6]
    assert await queued(database, microdao) == []


async def test_a_batch_is_one_transaction(meter: Meter, database: Database, microdao: str):
    for _ in range(10):
        await spend(database, microdao)
    jobs = await queued(database, microdao)
    messages = [Message(f"m{number}", job) for number, job in enumerate(jobs)]
    services = cast(Services, SimpleNamespace(meter=meter))
    assert await on_batch(services, messages) == set()
    query = "SELECT count(DISTINCT xmin::text) AS n, count(*) AS events FROM usage_event WHERE metered_at IS NOT NULL"
    assert await database.run(query, microdao_id=microdao) == [{"n": 1, "events": 10}]


async def test_an_event_whose_job_vanished_is_queued_again_and_counts_once(
    meter: Meter, database: Database, microdao: str
):
    await spend(database, microdao)
    (lost,) = await queued(database, microdao)
    async with database.tenant(microdao) as connection:
        await connection.execute("DELETE FROM outbox")
    assert await meter.sweep() >= 1
    assert await meter.sweep() == 0
    (job,) = await queued(database, microdao)
    assert job["event_id"] == lost["event_id"]
    assert await meter.apply(**job)
    assert not await meter.apply(**lost)
    assert [row["requests"] for row in await totals(database, microdao)] == [1]


async def test_a_call_that_is_taken_back_leaves_the_other_totals(meter: Meter, database: Database, microdao: str):
    await spend(database, microdao, prompt_tokens=10, cost_microusd=100)
    await spend(database, microdao, prompt_tokens=90, cost_microusd=900, failed=True)
    await spend(database, microdao, prompt_tokens=-90, cost_microusd=-900, failed=True, calls=-1)
    for job in await queued(database, microdao):
        assert await meter.apply(**job)
    (total,) = await totals(database, microdao)
    assert (total["requests"], total["errors"], total["prompt_tokens"], total["cost_microusd"]) == (1, 0, 10, 100)


async def test_the_schedule_settles_calls_whose_process_died(settings, database: Database, microdao: str):
    services = Services(settings)
    try:
        admission = Admission(database, ttl_s=0)
        await admission.admit(
            Caller(microdao_id=microdao), "cheap", WorstCase(prompt_tokens=9, completion_tokens=1, cost_microusd=33)
        )
        assert (await call(services, {"task": "sweep"}))[0] == 200
        (job,) = await queued(database, microdao)
        assert await services.meter.apply(**job)
        (total,) = await totals(database, microdao)
        assert (total["subject"], total["errors"], total["cost_microusd"]) == ("cheap", 1, 33)
    finally:
        await services.close()


async def test_another_tenants_name_on_the_message_changes_nothing(meter: Meter, database: Database, microdao: str):
    await spend(database, microdao)
    (job,) = await queued(database, microdao)
    assert not await meter.apply(job["job_id"], "microdao:somebody-else", job["event_id"])
    assert await meter.apply(**job)


async def call(services: Services, event: dict) -> tuple[int, dict]:
    app = QueueFunction("usage_meter", lambda: services, on_batch=on_batch, on_direct=on_direct)
    sent: list[dict] = []

    async def receive():
        return {"type": "http.request", "body": orjson.dumps(event)}

    async def send(message):
        sent.append(message)

    await app({"type": "http", "method": "POST", "path": "/events"}, receive, send)
    return sent[0]["status"], orjson.loads(sent[1]["body"])


async def test_the_function_answers_its_events(settings, database: Database, microdao: str):
    services = Services(settings)
    try:
        await spend(database, microdao)
        (job,) = await queued(database, microdao)
        event = json.loads((EVENTS / "usage_meter.sqs.json").read_text())
        (record_,) = event["Records"]
        bodies = [record_["body"], json.dumps(job), json.dumps({"job_id": "job_1"})]
        event["Records"] = [{**record_, "messageId": f"m{number}", "body": body} for number, body in enumerate(bodies)]
        assert await call(services, event) == (200, {"batchItemFailures": [{"itemIdentifier": "m2"}]})
        assert [row["requests"] for row in await totals(database, microdao)] == [1]
        schedule = json.loads((EVENTS / "usage_meter.schedule.json").read_text())
        assert await call(services, schedule) == (200, {"requeued": 0})
        assert (await call(services, {"task": "dance"}))[0] == 500
    finally:
        await services.close()
