"""Tenet 1 for tools: whatever is delivered twice, at once, or cut off by a killed process takes effect exactly once."""

import asyncio
import random
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from shared.cloud.outbox import Outbox
from shared.db.database import Database, fetch_all, fetch_one
from shared.policy.policy import Policy
from shared.policy.principal import agent_principal
from shared.tools.model import ToolCallRequest
from shared.tools.toolbox import Toolbox

SOFIA = "agent:sofia"
ROOT = Path(__file__).resolve().parents[2]

_WORKER = """
import asyncio, sys
from shared.cloud.outbox import Outbox
from shared.db.database import Database
from shared.policy.policy import Policy
from shared.tools.toolbox import Toolbox

async def main(url, microdao_id, execution_id, job_id):
    database = Database(url)
    toolbox = Toolbox(database, Outbox(database, {}, inline=True), Policy(Database(url)))
    await toolbox.run_queued(microdao_id, execution_id, None, job_id)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture
async def toolbox(database: Database, microdao: str, policy: Policy) -> Toolbox:
    toolbox = Toolbox(database, Outbox(database, {}, inline=True), policy)
    await toolbox.seed(microdao, SOFIA)
    return toolbox


async def until(condition: Callable[[], Awaitable[object]], *, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < deadline, "the awaited condition did not come about"
        await asyncio.sleep(0.02)


async def count(database: Database, microdao: str, table: str) -> int:
    async with database.tenant(microdao) as connection:
        return len(await fetch_all(connection, f"SELECT 1 FROM {table}"))


async def test_shuffled_duplicates_at_once_run_each_execution_once(database: Database, toolbox: Toolbox, microdao: str):
    sofia = agent_principal(SOFIA, microdao)
    for number in range(50):
        await toolbox.enqueue(
            sofia, ToolCallRequest(microdao, SOFIA, "project.create", {"name": f"Project {number}"}, SOFIA)
        )
    async with database.tenant(microdao) as connection:
        jobs = [row["body"] for row in await fetch_all(connection, "SELECT body FROM outbox WHERE queue = 'tool'")]
    deliveries = jobs * 4
    random.Random(7).shuffle(deliveries)
    waiting = iter(deliveries)

    async def consume() -> list[tuple[str, str]]:
        done = []
        for job in waiting:
            outcome = await toolbox.run_queued(microdao, job["execution_id"], None, job["job_id"])
            done.append((outcome.execution_id, f"{outcome.status} {outcome.result}"))
        return done

    outcomes = [one for done in await asyncio.gather(*(consume() for _ in range(8))) for one in done]
    assert len(outcomes) == 200
    assert len(set(outcomes)) == 50, "each duplicate got the stored outcome"
    assert await count(database, microdao, "project") == 50
    assert await count(database, microdao, "usage_event") == 50
    assert await count(database, microdao, "outbox WHERE queue = 'tool'") == 0
    assert await count(database, microdao, "tool_execution WHERE attempts = 1") == 50


async def test_a_worker_killed_between_effect_and_outcome_leaves_nothing_and_redelivery_finishes(
    database: Database, database_url: str, toolbox: Toolbox, microdao: str
):
    queued = await toolbox.enqueue(
        agent_principal(SOFIA, microdao),
        ToolCallRequest(microdao, SOFIA, "project.create", {"name": "Website"}, SOFIA),
    )
    async with database.tenant(microdao) as connection:
        job = await fetch_one(connection, "SELECT id FROM outbox WHERE queue = 'tool'")
    assert job is not None
    arguments = [database_url, microdao, queued.execution_id, job["id"]]
    async with database.system() as holder:
        # The worker inserts the project, stores the outcome, and then stands before the usage event.
        await holder.execute("LOCK TABLE usage_event IN SHARE MODE")
        worker = subprocess.Popen([sys.executable, "-c", _WORKER, *arguments], cwd=ROOT)  # noqa: ASYNC220
        try:
            await until(lambda: _blocked(database))
        finally:
            worker.send_signal(signal.SIGKILL)
            assert worker.wait(10) == -signal.SIGKILL
    assert await count(database, microdao, "project") == 0
    outcome = await toolbox.run_queued(microdao, queued.execution_id, None, job["id"])
    assert outcome.status == "succeeded"
    for table in ("project", "usage_event", "tool_execution WHERE status = 'succeeded' AND attempts = 1"):
        assert await count(database, microdao, table) == 1, table
    assert await count(database, microdao, "outbox WHERE queue = 'tool'") == 0


async def _blocked(database: Database) -> bool:
    async with database.system() as connection:
        waiting = await fetch_one(
            connection, "SELECT 1 FROM pg_locks WHERE relation = 'usage_event'::regclass AND NOT granted"
        )
    return waiting is not None


async def test_a_worker_killed_after_the_outcome_changes_nothing_for_the_redelivery(
    database: Database, database_url: str, toolbox: Toolbox, microdao: str
):
    queued = await toolbox.submit(
        agent_principal(SOFIA, microdao),
        ToolCallRequest(microdao, SOFIA, "project.create", {"name": "Website"}, SOFIA),
    )
    arguments = [database_url, microdao, queued.execution_id, "job_none"]
    worker = await asyncio.create_subprocess_exec(sys.executable, "-c", _WORKER, *arguments, cwd=ROOT)
    assert await worker.wait() == 0  # it ended before it could acknowledge the message
    again = await toolbox.run_queued(microdao, queued.execution_id, None)
    assert again.status == "succeeded"
    assert await count(database, microdao, "project") == 1
    assert await count(database, microdao, "usage_event") == 1
