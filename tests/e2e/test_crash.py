"""kill -9 in the middle of work, then start again: everything finishes, nothing runs twice, nothing is left behind."""

import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import pytest

from tests.e2e.conftest import Stack, eventually, free_port, say


@pytest.fixture
def own_stack(session_folder: Path, models: Path) -> Iterator[Stack]:
    running = Stack(session_folder / "crash", free_port(), models)
    running.start()
    yield running
    if running.process is not None and running.process.poll() is None:
        running.stop()


def test_a_killed_stack_finishes_its_flow_and_its_indexing(own_stack: Stack) -> None:
    steps = [
        {"id": f"step{number}", "type": "tool", "tool": "project.create", "args": {"name": f"P{number}"}}
        for number in range(8)
    ]
    with own_stack.client() as client:
        flow_id = client.post("/internal/router/flows", json={"input": "x", "steps": steps}).json()["flow_id"]
        for number in range(20):
            content = {"text": f"Memory number {number} about gardens."}
            client.post("/internal/agent-memory/store", json={"agent_id": "agent:sofia", "content": content})
        eventually(
            lambda: any(
                step["state"] == "succeeded" for step in client.get(f"/internal/router/flows/{flow_id}").json()["steps"]
            )
        )
        flow = client.get(f"/internal/router/flows/{flow_id}").json()
    own_stack.kill()
    assert flow["state"] not in ("DONE", "FAILED"), "the flow had ended before the kill: make it longer"
    own_stack.start()
    with own_stack.client() as client:
        done = eventually(lambda: _ended(client, flow_id), within_s=60)
        assert done["state"] == "DONE", done
        assert [step["state"] for step in done["steps"]] == ["succeeded"] * 8
        projects = client.post("/internal/tools/call", json={"tool_name": "projects.list", "agent_id": "agent:sofia"})
        names = [project["name"] for project in projects.json()["result"]["projects"]]
        assert sorted(names) == [f"P{number}" for number in range(8)]
        stats = eventually(lambda: _indexed(client), within_s=60)
        assert stats["items"]["mid_term"] == 20
        assert stats["failed"] == 0


def test_one_dead_process_is_restarted_and_takes_nobody_along(own_stack: Stack) -> None:
    family = {process.pid for process in own_stack.family()}
    for process in own_stack.family()[1:]:
        with suppress(psutil.NoSuchProcess):
            if "postgres" not in process.name():
                process.kill()
    with own_stack.client() as client:
        eventually(lambda: _answers(client), within_s=60)
        assert say(client, "What is 3 * 3?")["choices"][0]["message"]["content"]
        flow = {"input": "x", "steps": [{"type": "tool", "tool": "math", "args": {"expression": "1 + 1"}}]}
        done = eventually(lambda: _ran(client, flow), within_s=60)
        assert done["state"] == "DONE"
    assert own_stack.process is not None
    assert own_stack.process.pid in family


def test_stop_leaves_nothing_running(own_stack: Stack) -> None:
    family = own_stack.family()
    with own_stack.client() as client:
        talking = threading.Thread(target=lambda: say(client, "Hello"))
        talking.start()
        talking.join()
    assert own_stack.stop() < 5
    assert not [process for process in family if process.is_running() and process.status() != "zombie"]


def _ended(client: httpx.Client, flow_id: str) -> dict | None:
    flow = client.get(f"/internal/router/flows/{flow_id}").json()
    return flow if flow["state"] in ("DONE", "FAILED", "ABORTED") else None


def _indexed(client: httpx.Client) -> dict | None:
    stats = client.get("/internal/agent-memory/agents/agent:sofia/stats").json()
    return stats if stats["pending"] == 0 else None


def _answers(client: httpx.Client) -> bool:
    try:
        return client.get("/readyz").status_code == 200
    except httpx.HTTPError:
        return False


def _ran(client: httpx.Client, flow: dict) -> dict | None:
    try:
        done = client.post("/internal/router/flows?wait=20", json=flow).json()
    except httpx.HTTPError:
        return None
    return done if done.get("state") == "DONE" else None
