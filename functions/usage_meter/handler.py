"""Adds usage events to the totals; on its schedule settles calls whose process died, and queues again what was left."""

from shared.bootstrap import Services, open_services
from shared.cloud.serve import Message, Payload, QueueFunction, each_message
from shared.errors import Unavailable
from shared.llm.money.orphans import settle_orphans
from shared.observability import Log

QUEUE = "usage"
_SWEEP_AFTER_S = 60.0
_log = Log("usage_meter")


async def on_message(services: Services, body: Payload) -> None:
    """Meter one event."""
    await services.meter.apply(str(body["job_id"]), str(body["microdao_id"]), str(body["event_id"]))


async def on_batch(services: Services, messages: list[Message]) -> set[str]:
    """Meter a batch in one transaction; when that fails, each of its events alone, so that one spoils no other."""
    try:
        await services.meter.apply_all([(str(one.body["job_id"]), str(one.body["microdao_id"])) for one in messages])
    except Unavailable:
        raise
    except Exception as error:
        _log.warning("metering the events one by one", messages=len(messages), error=type(error).__name__)
        return await each_message(on_message)(services, messages)
    return set()


async def on_direct(services: Services, payload: Payload) -> Payload:
    """``{"task": "sweep"}``; with ``"lost_queue": true`` (a queue that forgot its messages) nothing is waited for."""
    if payload.get("task") != "sweep":
        raise ValueError(f"unknown task {payload.get('task')!r}; usage_meter knows: sweep")
    age_s = 0.0 if payload.get("lost_queue") is True else _SWEEP_AFTER_S
    await settle_orphans(services.database)  # before the events' sweep, which queues theirs
    await services.meter.sweep()
    await services.response_cache.sweep()
    await services.idempotency.sweep()
    await services.policy.denials.sweep()
    return {"requeued": await services.outbox.sweep(QUEUE, older_than_s=age_s)}


app = QueueFunction("usage_meter", open_services, on_batch=on_batch, on_direct=on_direct)
