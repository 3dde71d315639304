"""The local engine as a process of its own: what template.yaml names exists in it, and invocations reach functions."""

import asyncio
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import aiohttp
import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from localstack.dispatcher import EngineWatch, keep_schedule
from localstack.gateway import READY_PATH
from localstack.process import LOOPBACK, free_port
from localstack.provision import predicted_addresses, provision
from localstack.supervisor import answers
from localstack.wiring import Schedule, read_wiring
from shared.cloud.aws import Aws
from shared.settings import ROOT

REGION = "eu-central-1"


@dataclass
class Functions:
    """An HTTP server in the place of the workers: answers what ``answer`` says and notes what it was sent."""

    answer: Callable[[dict[str, Any]], tuple[int, Any]] = lambda payload: (200, payload)
    seen: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def serve(self) -> ThreadingHTTPServer:
        functions = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                payload = json.loads(self.rfile.read(int(self.headers["content-length"])))
                functions.seen.append((self.path, payload))
                status, answer = functions.answer(payload)
                body = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_request(self, *args: Any) -> None:
                pass

        server = ThreadingHTTPServer((LOOPBACK, 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server


@contextmanager
def engine_process(port: int, functions_port: int) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "localstack.engine", str(port), f"http://{LOOPBACK}:{functions_port}"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + 60
            while not answers(f"http://{LOOPBACK}:{port}{READY_PATH}"):
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.02)
            yield process
        finally:
            process.send_signal(signal.SIGKILL)


@pytest.fixture(scope="module")
def functions() -> Iterator[tuple[Functions, int]]:
    functions = Functions()
    server = functions.serve()
    yield functions, server.server_port
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def endpoint(functions: tuple[Functions, int]) -> Iterator[str]:
    port = free_port()
    with engine_process(port, functions[1]):
        yield f"http://{LOOPBACK}:{port}"


@pytest.fixture(scope="module")
def lambda_client(endpoint: str) -> Any:
    credentials = {"aws_access_key_id": "local", "aws_secret_access_key": "local"}
    config = Config(retries={"total_max_attempts": 1})
    return boto3.client("lambda", region_name=REGION, endpoint_url=endpoint, config=config, **credentials)


@pytest.fixture
def served(functions: tuple[Functions, int]) -> Functions:
    functions[0].seen.clear()
    functions[0].answer = lambda payload: (200, payload)
    return functions[0]


def test_everything_in_the_template_is_there_at_the_predicted_address(endpoint: str):
    wiring = read_wiring()
    aws = Aws(REGION, endpoint)
    before = set(aws.sqs.list_queues()["QueueUrls"])
    addresses = provision(wiring, aws, REGION)  # again: nothing is doubled
    assert addresses == predicted_addresses(wiring, endpoint, REGION)
    assert before == set(aws.sqs.list_queues()["QueueUrls"]) == {addresses[queue.name] for queue in wiring.queues}
    assert len(aws.stepfunctions.list_state_machines()["stateMachines"]) == len(wiring.state_machines)


def test_queues_hide_and_redrive_as_the_template_says(endpoint: str):
    wiring = read_wiring()
    aws = Aws(REGION, endpoint)
    addresses = predicted_addresses(wiring, endpoint, REGION)
    for queue in (one for one in wiring.queues if one.dead_letter):
        found = aws.sqs.get_queue_attributes(QueueUrl=addresses[queue.name], AttributeNames=["All"])["Attributes"]
        assert int(found["VisibilityTimeout"]) == queue.visibility_timeout_s
        redrive = json.loads(found["RedrivePolicy"])
        assert int(redrive["maxReceiveCount"]) == queue.max_receives
        assert redrive["deadLetterTargetArn"].endswith(f"-{queue.dead_letter}")


@pytest.mark.parametrize("name", ["RouterStep", f"arn:aws:lambda:{REGION}:123456789012:function:RouterStep"])
def test_an_invocation_reaches_the_function(lambda_client: Any, served: Functions, name: str):
    served.answer = lambda payload: (200, {"echo": payload["n"]})
    answer = lambda_client.invoke(FunctionName=name, Payload=b'{"n": 7}')
    assert json.loads(answer["Payload"].read()) == {"echo": 7}
    assert "FunctionError" not in answer
    assert served.seen == [("/router_step/events", {"n": 7})]


def test_a_failing_function_is_a_function_error(lambda_client: Any, served: Functions):
    served.answer = lambda _: (500, {"errorType": "Boom", "errorMessage": "no"})
    answer = lambda_client.invoke(FunctionName="RouterStep", Payload=b"{}")
    assert answer["FunctionError"] == "Unhandled"
    assert json.loads(answer["Payload"].read())["errorType"] == "Boom"


def test_an_unknown_function_is_named(lambda_client: Any):
    with pytest.raises(ClientError, match="no function 'Nobody'") as error:
        lambda_client.invoke(FunctionName="Nobody", Payload=b"{}")
    assert error.value.response["Error"]["Code"] == "ResourceNotFoundException"


def test_a_function_host_that_is_down_can_be_retried():
    """``Lambda.ServiceException`` is what the state machine's Retry waits for."""
    port = free_port()
    with engine_process(port, free_port()):
        client = boto3.client(
            "lambda",
            region_name=REGION,
            endpoint_url=f"http://{LOOPBACK}:{port}",
            config=Config(retries={"total_max_attempts": 1}),
            aws_access_key_id="local",
            aws_secret_access_key="local",
        )
        with pytest.raises(ClientError) as error:
            client.invoke(FunctionName="RouterStep", Payload=b"{}")
        assert error.value.response["Error"]["Code"] == "ServiceException"


def test_a_state_machine_sees_a_function_host_that_is_down():
    """As the error that the router's Retry names."""
    port = free_port()
    retry = {"ErrorEquals": ["Lambda.ServiceException"], "IntervalSeconds": 1, "MaxAttempts": 1}
    task = {
        "Type": "Task",
        "Resource": "arn:aws:states:::lambda:invoke",
        "Parameters": {"FunctionName": "RouterStep", "Payload": {}},
        "Retry": [retry],
        "End": True,
    }
    with engine_process(port, free_port()):
        client = Aws(REGION, f"http://{LOOPBACK}:{port}").stepfunctions
        machine = client.create_state_machine(
            name="retrying",
            roleArn="arn:aws:iam::123456789012:role/any",
            definition=json.dumps({"StartAt": "Step", "States": {"Step": task}}),
        )
        execution = client.start_execution(stateMachineArn=machine["stateMachineArn"], input="{}")["executionArn"]
        deadline = time.monotonic() + 60
        while (found := client.describe_execution(executionArn=execution))["status"] == "RUNNING":
            assert time.monotonic() < deadline
            time.sleep(0.2)
        events = client.get_execution_history(executionArn=execution)["events"]
    assert (found["status"], found["error"]) == ("FAILED", "Lambda.ServiceException")
    assert [event["type"] for event in events].count("TaskFailed") == 2


async def test_a_schedule_fires_at_once_and_again_when_the_engine_is_a_new_one():
    port, stop, fired = free_port(), asyncio.Event(), asyncio.Queue[dict[str, Any]]()
    schedule = Schedule("RouterStep", 3600, {"task": "sweep"})
    async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as tasks:
        watch = EngineWatch(session, f"http://{LOOPBACK}:{port}")
        with engine_process(port, free_port()):
            await watch.until_ready(stop)
            tasks.create_task(watch.run(stop))
            tasks.create_task(keep_schedule(schedule, fired.put, watch, stop))
            assert await asyncio.wait_for(fired.get(), 10) == {"task": "sweep", "lost_queue": True}
        with engine_process(port, free_port()):
            assert await asyncio.wait_for(fired.get(), 10) == {"task": "sweep", "lost_queue": True}
        stop.set()
    assert fired.empty()


async def test_a_failed_schedule_is_repeated_soon_with_the_same_payload():
    port, stop, tries = free_port(), asyncio.Event(), asyncio.Queue[dict[str, Any]]()

    async def fail_once(payload: dict[str, Any]) -> None:
        tries.put_nowait(payload)
        if tries.qsize() == 1:
            raise ConnectionError

    async with aiohttp.ClientSession() as session:
        watch = EngineWatch(session, f"http://{LOOPBACK}:{port}")
        with engine_process(port, free_port()):
            await watch.until_ready(stop)
            keeping = asyncio.create_task(keep_schedule(Schedule("Any", 3600, {"task": "x"}), fail_once, watch, stop))
            deadline = time.monotonic() + 20
            while tries.qsize() < 2:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.05)
            stop.set()
            await keeping
    assert [tries.get_nowait(), tries.get_nowait()] == [{"task": "x", "lost_queue": True}] * 2
