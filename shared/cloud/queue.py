"""SQS, as far as the platform needs it. Message bodies carry ids only."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import orjson

from shared.cloud.aws import Aws, in_thread

SEND_BATCH = 10  # SQS takes at most ten messages a call


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to send; ``id`` is the outbox row's.

    ``tenant`` is whose it is: SQS delivers those of quiet tenants before the backlog of a busy one (fair queues).
    """

    id: str
    tenant: str
    body: dict[str, Any]


class Queue:
    """Sends to one queue by its URL."""

    def __init__(self, aws: Aws, url: str) -> None:
        self._aws = aws
        self.url = url

    async def send(self, messages: Sequence[Outgoing]) -> set[str]:
        """Send in batches; the ids that the service accepted."""
        accepted: set[str] = set()
        for start in range(0, len(messages), SEND_BATCH):
            entries: Any = [
                {
                    "Id": str(index),
                    "MessageBody": orjson.dumps(message.body).decode(),
                    "MessageGroupId": _group(message.tenant),
                }
                for index, message in enumerate(messages[start : start + SEND_BATCH])
            ]
            answer = await in_thread(self._aws.sqs.send_message_batch, QueueUrl=self.url, Entries=entries)
            accepted |= {messages[start + int(sent["Id"])].id for sent in answer.get("Successful", [])}
        return accepted


def _group(tenant: str) -> str:
    """A name that SQS takes: not every character of a tenant's id may stand in it, nor 128 of them."""
    return sha256(tenant.encode()).hexdigest()[:32]
