"""Stands where Lambda's event source mapping stands: polls a queue and posts batches to a function's ``/events``.

Beside a container run ``python -m shared.cloud.poller`` with QUEUE_URL and FUNCTION_URL; the local stack runs one
poller for each mapping in template.yaml.
"""

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

from shared.cloud.aws import Aws, in_thread
from shared.errors import SettingError
from shared.observability import Log, configure_logging

_log = Log("poller")

Deliver = Callable[[dict[str, Any]], Awaitable[object]]
"""Posts an event and returns the function's decoded answer; raises when there is none."""

HOLD_S = 30
"""How long a received message stays hidden. Renewed while the function works, so a dead poller frees it soon."""
_RETRY_BACKOFF_S = (1, 2, 5, 10, 20)
_IDLE_WAIT_S = 1


@dataclass(frozen=True, slots=True)
class EventSource:
    """One event source mapping."""

    queue_url: str
    batch_size: int = 10
    concurrency: int = 2


class Poller:
    """Receives, delivers, deletes what succeeded. The queue's redrive policy moves poison to its dead-letter queue."""

    def __init__(self, aws: Aws, source: EventSource, deliver: Deliver) -> None:
        self._aws = aws
        self._source = source
        self._deliver = deliver

    async def run(self, stop: asyncio.Event) -> None:
        """Poll until ``stop`` is set, then finish the batches at work."""
        async with asyncio.TaskGroup() as workers:
            for _ in range(self._source.concurrency):
                workers.create_task(self._work(stop))

    async def _work(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            try:
                if messages := await self._receive():
                    await self._handle(messages)
            except Exception as error:
                _log.warning("polling failed; trying again", queue=self._source.queue_url, error=type(error).__name__)
                with suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), 1)

    async def _receive(self) -> list[dict[str, Any]]:
        answer = await in_thread(
            self._aws.sqs.receive_message,
            QueueUrl=self._source.queue_url,
            MaxNumberOfMessages=self._source.batch_size,
            WaitTimeSeconds=_IDLE_WAIT_S,
            VisibilityTimeout=HOLD_S,
            AttributeNames=["ApproximateReceiveCount"],
        )
        return answer.get("Messages", [])  # type: ignore[return-value]

    async def _handle(self, messages: list[dict[str, Any]]) -> None:
        async with self._held(messages):
            failed = await self._attempt(messages)
        await self._delete([message for message in messages if message["MessageId"] not in failed])
        for message in messages:
            if message["MessageId"] in failed:
                receives = int(message.get("Attributes", {}).get("ApproximateReceiveCount", "1"))
                await self._hide([message], _RETRY_BACKOFF_S[min(receives, len(_RETRY_BACKOFF_S)) - 1])

    async def _attempt(self, messages: list[dict[str, Any]]) -> set[str]:
        ids = {message["MessageId"] for message in messages}
        try:
            return failed_ids(await self._deliver(sqs_event(messages)), ids)
        except Exception as error:
            _log.warning("batch failed", queue=self._source.queue_url, messages=len(ids), error=type(error).__name__)
            return ids

    @asynccontextmanager
    async def _held(self, messages: list[dict[str, Any]]) -> AsyncIterator[None]:
        heartbeat = asyncio.create_task(self._renew(messages))
        try:
            yield
        finally:
            heartbeat.cancel()

    async def _renew(self, messages: list[dict[str, Any]]) -> None:
        while True:
            await asyncio.sleep(HOLD_S / 3)
            await self._hide(messages, HOLD_S)

    async def _hide(self, messages: list[dict[str, Any]], seconds: int) -> None:
        entries: Any = [
            {"Id": str(index), "ReceiptHandle": message["ReceiptHandle"], "VisibilityTimeout": seconds}
            for index, message in enumerate(messages)
        ]
        await in_thread(self._aws.sqs.change_message_visibility_batch, QueueUrl=self._source.queue_url, Entries=entries)

    async def _delete(self, messages: list[dict[str, Any]]) -> None:
        entries: Any = [
            {"Id": str(index), "ReceiptHandle": message["ReceiptHandle"]} for index, message in enumerate(messages)
        ]
        if entries:
            await in_thread(self._aws.sqs.delete_message_batch, QueueUrl=self._source.queue_url, Entries=entries)


def sqs_event(messages: list[dict[str, Any]]) -> dict[str, Any]:
    """Received messages in the shape that Lambda gives a function."""
    return {
        "Records": [
            {
                "messageId": message["MessageId"],
                "receiptHandle": message["ReceiptHandle"],
                "body": message["Body"],
                "attributes": message.get("Attributes", {}),
                "eventSource": "aws:sqs",
            }
            for message in messages
        ]
    }


def failed_ids(answer: object, sent: set[str]) -> set[str]:
    """Which messages to deliver again, by Lambda's rules for ReportBatchItemFailures.

    No failures listed (or null) means success; an empty, null, unknown or misnamed identifier, or an answer that is
    not an object, means that the whole batch failed.
    Source: docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html
    """
    if not isinstance(answer, dict):
        return sent
    failures = answer.get("batchItemFailures")
    if not failures:
        return set()
    if not isinstance(failures, list):
        return sent
    listed = [failure.get("itemIdentifier") if isinstance(failure, dict) else None for failure in failures]
    return {str(one) for one in listed} if all(isinstance(one, str) and one in sent for one in listed) else sent


async def _run_beside_container() -> None:
    import os

    import aiohttp

    from shared.settings import current_settings

    settings = current_settings()
    configure_logging(settings.log_level, "poller")
    queue_url, function_url = os.environ.get("QUEUE_URL"), os.environ.get("FUNCTION_URL")
    if not queue_url or not function_url:
        raise SettingError("the poller needs QUEUE_URL and FUNCTION_URL")
    stop = asyncio.Event()
    for signum in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(signum, stop.set)
    async with aiohttp.ClientSession() as session:
        source = EventSource(queue_url)
        await Poller(
            Aws(settings.aws_region, settings.aws_endpoint_url), source, http_deliver(session, function_url)
        ).run(stop)


def http_deliver(session: Any, function_url: str) -> Deliver:
    """Deliver over HTTP to ``{function_url}/events`` with an aiohttp session."""

    async def deliver(event: dict[str, Any]) -> object:
        async with session.post(f"{function_url}/events", json=event) as response:
            response.raise_for_status()
            return await response.json()

    return deliver


if __name__ == "__main__":
    asyncio.run(_run_beside_container())
