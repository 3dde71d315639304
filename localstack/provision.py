"""Creates the wiring's queues and state machines in an AWS engine, as a deployment would."""

import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from localstack.wiring import QueueSpec, StateMachine, Wiring
from shared.cloud.aws import Aws

STACK = "daarion"
LOCAL_ACCOUNT = "123456789012"  # moto's


def predicted_addresses(wiring: Wiring, endpoint_url: str, region: str) -> dict[str, str]:
    """The queue URLs and ARNs that :func:`provision` will give in our own engine, known before it is up."""
    queues = {queue.name: f"{endpoint_url}/{LOCAL_ACCOUNT}/{STACK}-{queue.name}" for queue in wiring.queues}
    machines = {
        machine.name: f"arn:aws:states:{region}:{LOCAL_ACCOUNT}:stateMachine:{STACK}-{machine.name}"
        for machine in wiring.state_machines
    }
    return queues | machines


def provision(wiring: Wiring, aws: Aws, region: str) -> dict[str, str]:
    """Create or update everything; the address of each queue (URL) and state machine (ARN) by its logical id."""
    addresses: dict[str, str] = {}
    for queue in sorted(wiring.queues, key=lambda queue: queue.dead_letter is not None):  # dead-letter queues first
        addresses[queue.name] = _create_queue(aws, queue, addresses)
    account = urlsplit(next(iter(addresses.values()))).path.split("/")[1]
    for machine in wiring.state_machines:
        addresses[machine.name] = _create_state_machine(aws, machine, region, account)
    return addresses


def _create_queue(aws: Aws, queue: QueueSpec, addresses: dict[str, str]) -> str:
    attributes: Any = {
        "VisibilityTimeout": str(queue.visibility_timeout_s),
        "MessageRetentionPeriod": str(queue.retention_s),
    }
    if queue.dead_letter:
        target = aws.sqs.get_queue_attributes(QueueUrl=addresses[queue.dead_letter], AttributeNames=["QueueArn"])
        redrive = {"deadLetterTargetArn": target["Attributes"]["QueueArn"], "maxReceiveCount": queue.max_receives}
        attributes["RedrivePolicy"] = json.dumps(redrive)
    # Without attributes an existing queue is simply returned; with changed ones it would be refused.
    url = aws.sqs.create_queue(QueueName=f"{STACK}-{queue.name}")["QueueUrl"]
    aws.sqs.set_queue_attributes(QueueUrl=url, Attributes=attributes)
    return url


def _create_state_machine(aws: Aws, machine: StateMachine, region: str, account: str) -> str:
    name = f"{STACK}-{machine.name}"
    definition = substituted(machine.definition_file, machine.substitutions, region, account)
    role = f"arn:aws:iam::{account}:role/{name}"
    client = aws.stepfunctions
    for known in client.list_state_machines()["stateMachines"]:
        if known["name"] == name:
            client.update_state_machine(stateMachineArn=known["stateMachineArn"], definition=definition, roleArn=role)
            return known["stateMachineArn"]
    created = client.create_state_machine(name=name, definition=definition, roleArn=role, type="STANDARD")
    return created["stateMachineArn"]


def substituted(definition_file: Path, substitutions: dict[str, str], region: str, account: str) -> str:
    """The definition with each ``${Placeholder}`` replaced by the ARN of its function."""
    text = definition_file.read_text(encoding="utf-8")
    for placeholder, function in substitutions.items():
        text = text.replace(f"${{{placeholder}}}", f"arn:aws:lambda:{region}:{account}:function:{function}")
    return text
