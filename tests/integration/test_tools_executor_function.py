"""The tool executor as it is deployed: its ASGI app, its golden events, a state machine that waits for it."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from functions.tool_executor.handler import run_message, run_task
from localstack.process import free_port
from shared.bootstrap import Services
from shared.cloud.aws import Aws, in_thread
from shared.cloud.outbox import enqueue
from shared.cloud.poller import sqs_event
from shared.cloud.serve import QueueFunction, each_message
from shared.db.database import Database, fetch_all, fetch_one
from shared.policy.principal import agent_principal
from shared.settings import Settings
from shared.tools.model import ToolCallRequest, ToolOutcome

SOFIA = "agent:sofia"
ROOT = Path(__file__).resolve().parents[2]

_ENGINE = """
import sys
from localstack.engine import make_engine
from localstack.wiring import Wiring
make_engine(int(sys.argv[1]), "http://127.0.0.1:9", Wiring((), (), (), (), (), {}))[0].serve_forever()
"""


@pytest.fixture(scope="module")
def engine_url() -> Iterator[str]:
    """The local AWS engine with nothing in it, in its own process."""
    port = free_port()
    process = subprocess.Popen([sys.executable, "-c", _ENGINE, str(port)], cwd=ROOT)
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                httpx.get(f"http://127.0.0.1:{port}/_localstack/health")
                break
            except httpx.TransportError:
                assert time.monotonic() < deadline, "the engine did not start"
                time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def tool_queue_url(engine_url: str) -> str:
    return Aws("eu-central-1", engine_url).sqs.create_queue(QueueName="tool-queue")["QueueUrl"]


@pytest.fixture
async def services(
    engine_url: str, tool_queue_url: str, settings: Settings, empty_outbox: None
) -> AsyncIterator[Services]:
    services = Services(
        Settings(
            database_url=settings.database_url,
            aws_endpoint_url=engine_url,
            tool_queue_url=tool_queue_url,
            inline_outbox=True,
        )
    )
    yield services
    await services.close()


@pytest.fixture
async def client(services: Services, microdao: str) -> AsyncIterator[httpx.AsyncClient]:
    await services.toolbox.seed(microdao, SOFIA)
    app = QueueFunction("tool_executor", lambda: services, on_batch=each_message(run_message), on_direct=run_task)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://tool_executor") as client:
        yield client


@pytest.fixture(params=["tool_executor.sqs.json", "tool_executor.sqs_task_token.json"])
def golden_batch(request: pytest.FixtureRequest) -> dict[str, Any]:
    return json.loads((ROOT / "events" / request.param).read_text())


async def submit(services: Services, microdao: str, name: str = "Website") -> ToolOutcome:
    request = ToolCallRequest(microdao, SOFIA, "project.create", {"name": name}, SOFIA)
    return await services.toolbox.submit(agent_principal(SOFIA, microdao), request)


async def receive(services: Services) -> list[dict[str, Any]]:
    """The next message, as the poller takes it from the queue."""
    url = services.settings.tool_queue_url
    answer = await in_thread(
        services.aws.sqs.receive_message,
        QueueUrl=url,
        WaitTimeSeconds=10,
        MessageSystemAttributeNames=["MessageGroupId"],
    )
    for message in answer["Messages"]:
        await in_thread(services.aws.sqs.delete_message, QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    return answer["Messages"]


async def test_messages_say_whose_they_are_and_no_more(services: Services, microdao: str, other_microdao: str):
    """So that SQS can put a quiet tenant's before a busy one's backlog."""
    for tenant in (microdao, other_microdao, microdao):
        async with services.database.tenant(tenant) as connection:
            await enqueue(connection, tenant, "tool", {})
    await services.outbox.committed()
    groups: dict[str, set[str]] = {}
    for _ in range(3):
        (message,) = await receive(services)
        tenant = json.loads(message["Body"])["microdao_id"]
        groups.setdefault(tenant, set()).add(message["Attributes"]["MessageGroupId"])
    (one,), (other,) = groups[microdao], groups[other_microdao]
    assert one != other
    assert microdao not in one


async def test_golden_batches_are_understood(
    client: httpx.AsyncClient, services: Services, microdao: str, golden_batch: dict[str, Any], database: Database
):
    queued = await submit(services, microdao)
    (record,) = golden_batch["Records"]
    body = json.loads(record["body"])
    body.get("job", body).update(microdao_id=microdao, execution_id=queued.execution_id)
    record["body"] = json.dumps(body)
    answer = await client.post("/events", json=golden_batch)
    assert (answer.status_code, answer.json()) == (200, {"batchItemFailures": []})
    async with database.tenant(microdao) as connection:
        row = await fetch_one(connection, "SELECT status, task_token FROM tool_execution")
    assert row == {"status": "succeeded", "task_token": body.get("task_token")}


async def test_golden_batches_with_unknown_executions_are_delivered_again(
    client: httpx.AsyncClient, golden_batch: dict[str, Any]
):
    answer = await client.post("/events", json=golden_batch)
    failed = [{"itemIdentifier": golden_batch["Records"][0]["messageId"]}]
    assert (answer.status_code, answer.json()) == (200, {"batchItemFailures": failed})


async def test_one_bad_message_does_not_spoil_the_batch(
    client: httpx.AsyncClient, services: Services, microdao: str, database: Database
):
    bodies = ["garbage", "{}", '{"task_token": "t"}', '{"task_token": "t", "job": {}}']
    queued = [await submit(services, microdao, name) for name in ("a", "b")]
    bodies += [
        json.dumps({"job_id": "job_1", "microdao_id": microdao, "execution_id": one.execution_id}) for one in queued
    ]
    records = [{"messageId": str(index), "body": body} for index, body in enumerate(bodies)]
    answer = await client.post("/events", json={"Records": records})
    assert answer.json() == {"batchItemFailures": [{"itemIdentifier": str(index)} for index in range(4)]}
    async with database.tenant(microdao) as connection:
        assert len(await fetch_all(connection, "SELECT 1 FROM project")) == 2


async def test_from_enqueue_through_the_queue_to_the_row(
    client: httpx.AsyncClient, services: Services, microdao: str, database: Database
):
    request = ToolCallRequest(microdao, SOFIA, "project.create", {"name": "Secret plan"}, SOFIA)
    queued = await services.toolbox.enqueue(agent_principal(SOFIA, microdao), request)
    messages = await receive(services)
    assert "Secret plan" not in messages[0]["Body"]
    answer = await client.post("/events", json=sqs_event(messages))
    assert answer.json() == {"batchItemFailures": []}
    async with database.tenant(microdao) as connection:
        row = await fetch_one(connection, "SELECT status FROM tool_execution WHERE id = %s", (queued.execution_id,))
        jobs = await fetch_all(connection, "SELECT 1 FROM outbox WHERE queue = 'tool'")
    assert row == {"status": "succeeded"}
    assert jobs == []


async def test_sweep_sends_again_what_was_lost(client: httpx.AsyncClient, services: Services, microdao: str):
    golden = json.loads((ROOT / "events" / "tool_executor.schedule.json").read_text())
    request = ToolCallRequest(microdao, SOFIA, "project.create", {"name": "Website"}, SOFIA)
    queued = await services.toolbox.enqueue(agent_principal(SOFIA, microdao), request)
    await receive(services)  # and lose it
    assert (await client.post("/events", json=golden)).json() == {"requeued": 0}
    assert (await client.post("/events", json={**golden, "lost_queue": True})).json() == {"requeued": 1}
    (message,) = await receive(services)
    assert json.loads(message["Body"])["execution_id"] == queued.execution_id
    await client.post("/events", json=sqs_event([message]))
    assert (await client.post("/events", json={**golden, "lost_queue": True})).json() == {"requeued": 0}


async def test_a_message_that_never_left_is_sent_by_the_sweep(
    client: httpx.AsyncClient, services: Services, microdao: str, database: Database
):
    queued = await submit(services, microdao)
    async with database.tenant(microdao) as connection:
        await enqueue(connection, microdao, "tool", {"execution_id": queued.execution_id})
    assert (await client.post("/events", json={"task": "sweep"})).json() == {"requeued": 1}
    await client.post("/events", json=sqs_event(await receive(services)))
    assert (await services.toolbox.executions(microdao))[0]["status"] == "succeeded"


@pytest.mark.parametrize("event", [{"task": "dance"}, {}])
async def test_an_unknown_direct_task_is_a_function_error(client: httpx.AsyncClient, event: dict[str, Any]):
    answer = await client.post("/events", json=event)
    assert answer.status_code == 500
    assert answer.json()["errorType"] == "ValueError"


@pytest.mark.parametrize(
    ("taken", "status", "error"), [(False, "SUCCEEDED", None), (True, "FAILED", "tool_failed")], ids=["good", "failed"]
)
async def test_a_waiting_state_machine_is_told_the_outcome(
    client: httpx.AsyncClient, services: Services, microdao: str, taken: bool, status: str, error: str | None
):
    if taken:
        first = await submit(services, microdao)
        await services.toolbox.run_queued(microdao, first.execution_id, None)
    queued = await submit(services, microdao)
    execution_arn = await _start_waiting(services, {"microdao_id": microdao, "execution_id": queued.execution_id})
    messages = await receive(services)
    event = sqs_event(messages)
    assert (await client.post("/events", json=event)).json() == {"batchItemFailures": []}
    ended = await _ended(services, execution_arn)
    assert ended["status"] == status
    assert ended.get("error") == error
    if error is None:
        assert json.loads(ended["output"]) == {"execution_id": queued.execution_id, "status": "succeeded"}
    late = await client.post("/events", json=event)  # the same message again: the token was answered
    assert late.json() == {"batchItemFailures": []}


async def _start_waiting(services: Services, ids: dict[str, str]) -> str:
    """An execution that sends a job with its task token, as the router's state machine does."""
    definition = {
        "StartAt": "WAIT_TOOL",
        "States": {
            "WAIT_TOOL": {
                "Type": "Task",
                "Resource": "arn:aws:states:::sqs:sendMessage.waitForTaskToken",
                "TimeoutSeconds": 60,
                "Parameters": {
                    "QueueUrl": services.settings.tool_queue_url,
                    "MessageBody": {"task_token.$": "$$.Task.Token", "job.$": "$.job"},
                },
                "End": True,
            }
        },
    }
    client = services.aws.stepfunctions
    machine = await in_thread(
        client.create_state_machine,
        name=f"wait-{ids['execution_id']}"[:80],
        definition=json.dumps(definition),
        roleArn="arn:aws:iam::123456789012:role/router",
    )
    job = {"kind": "tool", "flow_id": "flow_1", **ids}
    started = await in_thread(
        client.start_execution, stateMachineArn=machine["stateMachineArn"], input=json.dumps({"job": job})
    )
    return started["executionArn"]


async def _ended(services: Services, execution_arn: str) -> dict[str, Any]:
    deadline = time.monotonic() + 20
    while True:
        answer = await in_thread(services.aws.stepfunctions.describe_execution, executionArn=execution_arn)
        if answer["status"] != "RUNNING":
            return dict(answer)
        assert time.monotonic() < deadline, "the execution did not end"
        await asyncio.sleep(0.05)
