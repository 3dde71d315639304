"""The memory indexer as deployed: events in, batch failures out; lost messages and killed processes."""

import asyncio
import json
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import orjson
import pytest
from moto.server import ThreadedMotoServer

from functions.memory_indexer.handler import on_batch, on_direct
from shared.bootstrap import Services
from shared.cloud.serve import QueueFunction
from shared.db.database import Database, fetch_all, fetch_one
from shared.memory.model import MemoryQuery, NewMemory

EVENTS = Path(__file__).parents[2] / "events"
AGENT = "agent:sofia"

_INDEX_IN_A_PROCESS = """
import asyncio, sys
from pathlib import Path
from shared.bootstrap import Services
from shared.memory.model import IndexJob
from shared.settings import Settings

async def main():
    url, home, *job = sys.argv[1:]
    services = Services(Settings(database_url=url, home=Path(home)))
    await services.memory.index([IndexJob("message", *job[:2], (job[2],))])

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def engine():
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
async def services(settings, engine: str, microdao: str, empty_outbox: None):
    services = Services(replace(settings, aws_endpoint_url=engine))
    queue_url = services.aws.sqs.create_queue(QueueName=f"memory-{time.monotonic_ns()}")["QueueUrl"]
    services.settings = replace(services.settings, memory_queue_url=queue_url)
    yield services
    await services.close()


async def call(services: Services, event: dict) -> tuple[int, dict]:
    """What ``POST /events`` answers."""
    app = QueueFunction("memory_indexer", lambda: services, on_batch=on_batch, on_direct=on_direct)
    sent: list[dict] = []

    async def read():
        return {"type": "http.request", "body": orjson.dumps(event)}

    async def send(message):
        sent.append(message)

    await app({"type": "http", "method": "POST", "path": "/events"}, read, send)
    return sent[0]["status"], orjson.loads(sent[1]["body"])


def golden(name: str) -> dict:
    return json.loads((EVENTS / f"memory_indexer.{name}.json").read_text())


def batch(*bodies: object) -> dict:
    (record,) = golden("sqs")["Records"]
    return {
        "Records": [
            {**record, "messageId": f"message-{number}", "body": body if isinstance(body, str) else json.dumps(body)}
            for number, body in enumerate(bodies)
        ]
    }


async def remember(services: Services, microdao: str, text: str = "Tea is served at five.") -> str:
    item = NewMemory(microdao_id=microdao, agent_id=AGENT, tier="mid_term", content={"text": text})
    return (await services.memory.store(item)).id


async def receive(services: Services, item_id: str) -> dict:
    """The message about the item, taken from the queue."""
    url, sqs = services.settings.memory_queue_url, services.aws.sqs
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        answer = await asyncio.to_thread(sqs.receive_message, QueueUrl=url, WaitTimeSeconds=1)
        for message in answer.get("Messages", []):
            await asyncio.to_thread(sqs.delete_message, QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
            body = json.loads(message["Body"])
            if body.get("item_ids") == [item_id]:
                return body
    raise AssertionError("no message about the item came")


async def state_of(database: Database, microdao: str, item_id: str) -> tuple[str, int, int]:
    """State, embeddings and jobs left."""
    async with database.tenant(microdao) as connection:
        row = await fetch_one(
            connection,
            "SELECT state, (SELECT count(*) FROM memory_embedding WHERE item = i.number) AS embeddings,"
            " (SELECT count(*) FROM outbox WHERE body ? 'item_ids') AS jobs FROM memory_item i WHERE id = %s",
            (item_id,),
        )
    assert row is not None
    return row["state"], row["embeddings"], row["jobs"]


async def sends_of(database: Database, job_id: str) -> int:
    async with database.system() as connection:
        row = await fetch_one(connection, "SELECT sends FROM outbox WHERE id = %s", (job_id,))
    assert row is not None
    return row["sends"]


async def test_from_the_queue_to_an_answer(services: Services, database: Database, microdao: str):
    item_id = await remember(services, microdao)
    body = await receive(services, item_id)
    assert set(body) == {"job_id", "microdao_id", "item_ids"}
    assert await call(services, batch(body, body)) == (200, {"batchItemFailures": []})
    assert await state_of(database, microdao, item_id) == ("ready", 1, 0)
    query = MemoryQuery(microdao_id=microdao, agent_id=AGENT, query="When do we drink something hot?")
    assert [one.id for one in await services.memory.query(query)] == [item_id]


async def test_a_lost_message_is_sent_again(services: Services, database: Database, microdao: str):
    item_id = await remember(services, microdao)
    lost = await receive(services, item_id)
    status, answer = await call(services, golden("schedule"))
    assert (status, list(answer)) == (200, ["requeued"])
    assert await sends_of(database, lost["job_id"]) == 1, "it may still be on its way"
    status, answer = await call(services, {**golden("schedule"), "lost_queue": True})
    assert status == 200
    assert answer["requeued"] >= 1
    assert await sends_of(database, lost["job_id"]) == 2
    assert await receive(services, item_id) == lost
    assert await call(services, batch(lost)) == (200, {"batchItemFailures": []})
    assert await state_of(database, microdao, item_id) == ("ready", 1, 0)


async def test_bad_messages_fail_alone(services: Services, database: Database, microdao: str):
    item_id = await remember(services, microdao)
    good = await receive(services, item_id)
    status, answer = await call(services, batch("not json", {"job_id": "job_1"}, good))
    assert status == 200
    assert answer == {"batchItemFailures": [{"itemIdentifier": "message-0"}, {"itemIdentifier": "message-1"}]}
    assert await state_of(database, microdao, item_id) == ("ready", 1, 0)


async def test_the_golden_batch_names_an_item_long_gone(services: Services):
    assert await call(services, golden("sqs")) == (200, {"batchItemFailures": []})


async def test_an_unknown_task_is_an_error(services: Services):
    status, answer = await call(services, {"task": "dance"})
    assert (status, answer["errorType"]) == (500, "ValueError")


async def test_killed_between_embedding_and_commit(services: Services, database: Database, microdao: str):
    """The job's row is locked, so the other process embeds, begins to commit and waits; there it is killed."""
    item_id = await remember(services, microdao)
    await services.memory.warm()
    body = await receive(services, item_id)
    job = (body["job_id"], body["microdao_id"], body["item_ids"][0])
    settings = services.settings
    command = [sys.executable, "-c", _INDEX_IN_A_PROCESS, settings.database_url, str(settings.home), *job]
    async with database.system() as connection:
        await fetch_all(connection, "SELECT 1 FROM outbox WHERE id = %s FOR UPDATE", (body["job_id"],))
        process = await asyncio.create_subprocess_exec(*command)
        try:
            await _until_a_lock_is_waited_for(database)
        finally:
            process.kill()
        assert await process.wait() == -signal.SIGKILL
    assert await state_of(database, microdao, item_id) == ("pending", 0, 1)

    assert await call(services, batch(body)) == (200, {"batchItemFailures": []})
    assert await state_of(database, microdao, item_id) == ("ready", 1, 0)


async def _until_a_lock_is_waited_for(database: Database) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        async with database.system() as connection:
            if await fetch_all(connection, "SELECT 1 FROM pg_locks WHERE NOT granted"):
                return
        await asyncio.sleep(0.02)
    raise AssertionError("the other process never reached its commit")
