"""Makes memories and tools findable by meaning; on its schedules queues again what was left, and keeps retention."""

from shared.bootstrap import Services, open_services
from shared.cloud.serve import Message, Payload, QueueFunction
from shared.memory.model import IndexJob
from shared.observability import Log
from shared.tools.search.model import IndexToolsJob

QUEUE = "memory"
_SWEEP_AFTER_S = 60.0
_MAINTAIN_FOR_S = 40.0
"""Less than the function's time-out by a batch and the wait for a model that does not answer."""

_log = Log("memory_indexer")


async def on_batch(services: Services, messages: list[Message]) -> set[str]:
    """Embed a batch of items and tools; the messages to deliver again."""
    jobs: list[IndexJob] = []
    tool_jobs: list[IndexToolsJob] = []
    malformed = set()
    for message in messages:
        try:
            if "tool_ids" in message.body:
                tool_jobs.append(_tool_job(message))
            else:
                jobs.append(_job(message))
        except KeyError as error:
            _log.warning("a message lacks a field", message_id=message.id, field=str(error))
            malformed.add(message.id)
    again = await services.memory.index(jobs) if jobs else set()
    if tool_jobs:
        again = again | await services.tool_indexer.index(tool_jobs)
    return malformed | again


async def on_direct(services: Services, payload: Payload) -> Payload:
    """``{"task": "sweep"}``; with ``"lost_queue": true`` (a queue that forgot its messages) nothing is waited for.

    ``{"task": "maintain"}`` prunes and consolidates as policies say; what it has no time for is the next call's.
    """
    if payload.get("task") == "maintain":
        return await services.memory.retention.maintain(_MAINTAIN_FOR_S)
    if payload.get("task") != "sweep":
        raise ValueError(f"unknown task {payload.get('task')!r}; memory_indexer knows: sweep, maintain")
    age_s = 0.0 if payload.get("lost_queue") is True else _SWEEP_AFTER_S
    await services.memory.channels.index_history()
    await services.memory.sweep()
    await services.tool_indexer.sweep()
    return {"requeued": await services.outbox.sweep(QUEUE, older_than_s=age_s)}


def _job(message: Message) -> IndexJob:
    body = message.body
    item_ids = tuple(map(str, body["item_ids"]))
    return IndexJob(message.id, str(body["job_id"]), str(body["microdao_id"]), item_ids, body.get("reindex_id"))


def _tool_job(message: Message) -> IndexToolsJob:
    body = message.body
    return IndexToolsJob(message.id, str(body["job_id"]), str(body["microdao_id"]), tuple(map(str, body["tool_ids"])))


app = QueueFunction("memory_indexer", open_services, on_batch=on_batch, on_direct=on_direct)
