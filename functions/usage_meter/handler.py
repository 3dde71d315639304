"""Adds usage events to the totals; on its schedule settles calls whose process died, and queues again what was left."""

from shared.bootstrap import Services, open_services
from shared.cloud.serve import Payload, QueueFunction, each_message
from shared.llm.orphans import settle_orphans

QUEUE = "usage"
_SWEEP_AFTER_S = 60.0


async def on_message(services: Services, body: Payload) -> None:
    """Meter one event."""
    await services.meter.apply(str(body["job_id"]), str(body["microdao_id"]), str(body["event_id"]))


async def on_direct(services: Services, payload: Payload) -> Payload:
    """``{"task": "sweep"}``; with ``"lost_queue": true`` (a queue that forgot its messages) nothing is waited for."""
    if payload.get("task") != "sweep":
        raise ValueError(f"unknown task {payload.get('task')!r}; usage_meter knows: sweep")
    age_s = 0.0 if payload.get("lost_queue") is True else _SWEEP_AFTER_S
    await settle_orphans(services.database)  # before the events' sweep, which queues theirs
    await services.meter.sweep()
    await services.response_cache.sweep()
    await services.idempotency.sweep()
    return {"requeued": await services.outbox.sweep(QUEUE, older_than_s=age_s)}


app = QueueFunction("usage_meter", open_services, on_batch=each_message(on_message), on_direct=on_direct)
