"""A flow as the API shows it."""

from datetime import datetime
from typing import Any

from shared.clock import rfc3339
from shared.db.database import Row


def flow_view(flow: Row, steps: list[Row], usd_per_1t: float) -> dict[str, Any]:
    """The flow with its steps in order; ``result`` is the output of the last step that has one."""
    outputs = [step["output"] for step in steps if step["state"] == "succeeded"]
    return {
        "flow_id": flow["id"],
        "microdao_id": flow["microdao_id"],
        "agent_id": flow["agent_id"],
        "state": flow["state"],
        "mode": flow["mode"],
        "steps": [_step_view(step) for step in steps],
        "result": outputs[-1] if outputs and flow["state"] == "DONE" else None,
        "error": flow["error"],
        "estimated_microusd": flow["estimated_microusd"],
        "cost_microusd": flow["cost_microusd"],
        "cost_1t": flow["cost_microusd"] / 1_000_000 / usd_per_1t,
        "transitions": flow["transitions"],
        "created_at": rfc3339(flow["created_at"]),
        "finished_at": _time(flow["finished_at"]),
    }


def _step_view(step: Row) -> dict[str, Any]:
    error = step["error"]
    view = {
        "id": step["step_id"],
        "type": step["type"],
        "state": step["state"],
        "attempts": step["attempts"],
        "started_at": _time(step["started_at"]),
        "ms": _ms(step["started_at"], step["finished_at"]),
        "cost_microusd": step["cost_microusd"],
        "output": step["output"],
        "error": error and {"code": error["code"], "message": error["message"]},
    }
    return view | {"path": step["path"]} if step["path"] else view


def _time(moment: datetime | None) -> str | None:
    return rfc3339(moment) if moment else None


def _ms(started: datetime | None, finished: datetime | None) -> int | None:
    return round((finished - started).total_seconds() * 1000) if started and finished else None
