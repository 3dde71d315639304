"""Runs queued tool calls, tells the waiting flow how they ended, and sends again what was lost on the way.

Messages carry ids only: from the outbox ``{"job_id", "microdao_id"}`` with the ``execution_id`` of a tool call, the
``notification_id`` of what is to be said in a channel, or the ``delivery_id`` of what a webhook is to be told; from the
router's state machine ``{"task_token", "job": {"microdao_id", "flow_id", "execution_id", …}}``. The schedule sends
``{"task": "sweep"}``.
"""

from typing import Any

from shared.bootstrap import Services, open_services
from shared.cloud.serve import QueueFunction, each_message
from shared.observability import correlated
from shared.tools.model import ToolOutcome

SWEEP_AFTER_S = 60.0


async def run_message(services: Services, body: dict[str, Any]) -> None:
    """Do what one message asks: run an execution and tell the step that waits for it, say or deliver a notification.

    Raises when it could not be done at all, so that the message is delivered again.
    """
    job = body.get("job", body)
    if "delivery_id" in job:
        await services.webhooks.deliver(job["microdao_id"], job["delivery_id"], job.get("job_id"))
        return
    if "notification_id" in job:
        await services.notifications.say_in_channel(job["microdao_id"], job["notification_id"], job.get("job_id"))
        return
    with correlated(job.get("flow_id", "")):
        outcome = await services.toolbox.run_queued(
            job["microdao_id"], job["execution_id"], body.get("task_token"), body.get("job_id")
        )
        if outcome.task_token is not None:
            await _answer_step(services, outcome.task_token, outcome)


async def _answer_step(services: Services, task_token: str, outcome: ToolOutcome) -> None:
    """Answer a flow's step; a late answer is left to the flow's own recovery."""
    if outcome.status == "succeeded":
        output = {"execution_id": outcome.execution_id, "status": outcome.status}
        await services.workflow.succeed_task(task_token, output)
    elif outcome.status != "running":
        error = outcome.error_code or outcome.status
        await services.workflow.fail_task(task_token, error, f"execution {outcome.execution_id}")


async def run_task(services: Services, event: dict[str, Any]) -> dict[str, Any]:
    """``{"task": "sweep"}``: send again what nobody acted on for a minute, or with ``lost_queue`` everything.

    Executions whose runner died are settled, follow-ups that are due fire, sessions whose process died in a turn are
    failed, old notifications and executions are removed.
    ``{"task": "refresh_imports"}``: look at the sources of imported tools whose time has come.
    """
    if event.get("task") == "refresh_imports":
        return {"refreshed": await services.imports.refresh_due()}
    if event.get("task") != "sweep":
        raise ValueError("tool_executor knows the tasks 'sweep' and 'refresh_imports' only")
    older_than_s = 0.0 if event.get("lost_queue") else SWEEP_AFTER_S
    requeued = await services.outbox.sweep("tool", older_than_s=older_than_s)
    requeued += await services.toolbox.sweep()
    await services.followups.fire_due()
    await services.agents.sweep()
    await services.pruning.sweep()
    await services.execution_pruning.sweep()
    return {"requeued": requeued}


app = QueueFunction(
    "tool_executor",
    open_services,
    on_batch=each_message(run_message),
    on_direct=run_task,
    also_ready=Services.sandbox_view,
)
