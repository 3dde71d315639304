"""The tool executor as it is deployed, for one event."""

from typing import Any

import httpx

from functions.tool_executor.handler import run_message, run_task
from shared.bootstrap import Services
from shared.cloud.serve import QueueFunction, each_message


async def executed(services: Services, event: dict[str, Any]) -> dict[str, Any]:
    """What it answers to the event."""
    app = QueueFunction("tool_executor", lambda: services, on_batch=each_message(run_message), on_direct=run_task)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://tool_executor") as client:
        answer: dict[str, Any] = (await client.post("/events", json=event)).json()
    return answer
