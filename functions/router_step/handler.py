"""The router's brain: one turn of a flow for the state machine; from the schedule, new executions for lost flows.

The state machine sends ``{"phase", "microdao_id", "flow_id", "revision", "last"}``, the schedule ``{"task": "sweep"}``.
"""

from typing import Any

from shared.bootstrap import Services, open_services
from shared.cloud.serve import Message, QueueFunction
from shared.observability import Log

_log = Log("router_step")


async def take_turn(services: Services, event: dict[str, Any]) -> dict[str, Any]:
    """Answer the state machine or the schedule. Raises InvalidRequest for anything else."""
    if event.get("task") == "sweep":
        return {"resumed": await services.flows.resume_lost()}
    return await services.flows.step(event)


async def refuse_batch(services: Services, messages: list[Message]) -> set[str]:
    """No queue is mapped to this function: a message that arrives here goes back, and to the dead-letter queue."""
    _log.warning("router_step takes no queue messages", messages=len(messages))
    return {message.id for message in messages}


app = QueueFunction("router_step", open_services, on_batch=refuse_batch, on_direct=take_turn)
