"""Runs queued tool calls, tells the waiting flow how they ended, and sends again what was lost on the way.

Messages carry ids only: from the outbox ``{"job_id", "microdao_id", "execution_id"}``, from the router's state machine
``{"task_token", "job": {"microdao_id", "flow_id", "execution_id", …}}``. The schedule sends ``{"task": "sweep"}``.
"""

from typing import Any

from shared.bootstrap import Services, open_services
from shared.cloud.serve import QueueFunction, each_message
from shared.observability import correlated

SWEEP_AFTER_S = 60.0


async def run_message(services: Services, body: dict[str, Any]) -> None:
    """Run one execution. Raises when it could not be run at all, so that the message is delivered again."""
    if "task_token" in body:
        await _run_step(services, body["task_token"], body["job"])
    else:
        await services.toolbox.run_queued(body["microdao_id"], body["execution_id"], None, body["job_id"])


async def _run_step(services: Services, task_token: str, job: dict[str, Any]) -> None:
    """Run a flow's tool step and answer its task token; a late answer is left to the flow's own recovery."""
    with correlated(job["flow_id"]):
        outcome = await services.toolbox.run_queued(job["microdao_id"], job["execution_id"], task_token)
        if outcome.status == "succeeded":
            output = {"execution_id": outcome.execution_id, "status": outcome.status}
            await services.workflow.succeed_task(task_token, output)
        else:
            error = outcome.error_code or outcome.status
            await services.workflow.fail_task(task_token, error, f"execution {outcome.execution_id}")


async def run_task(services: Services, event: dict[str, Any]) -> dict[str, Any]:
    """``{"task": "sweep"}``: send again what nobody acted on for a minute, or with ``lost_queue`` everything.

    Sessions whose process died in a turn are failed.
    """
    if event.get("task") != "sweep":
        raise ValueError("tool_executor knows the task 'sweep' only")
    older_than_s = 0.0 if event.get("lost_queue") else SWEEP_AFTER_S
    requeued = await services.outbox.sweep("tool", older_than_s=older_than_s)
    await services.agents.sweep()
    return {"requeued": requeued}


app = QueueFunction("tool_executor", open_services, on_batch=each_message(run_message), on_direct=run_task)
