"""The whole stack, started as a user starts it: `daarion up` in a folder of its own, driven over HTTP."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from shared.settings import ROOT

API_KEY = "sk-test-member-key"
ADMIN_KEY = "sk-test-admin-key"
READY_WITHIN_S = 90


@dataclass
class Stack:
    """One running `daarion up`. ``models`` lends it an embedding model that is built already."""

    home: Path
    port: int
    models: Path | None = None
    env: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[str] | None = None
    output: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> float:
        """Start it and return the seconds until `DAARION ready`."""
        if self.models and not self.home.exists():
            self.home.mkdir(parents=True)
            (self.home / "models").symlink_to(self.models)
        started = time.monotonic()
        ready = threading.Event()
        self.process = subprocess.Popen(
            [str(Path(sys.executable).with_name("daarion")), "up"],
            cwd=ROOT,
            env=self._environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        threading.Thread(target=self._read, args=(self.process, ready), daemon=True).start()
        assert ready.wait(READY_WITHIN_S), f"not ready in {READY_WITHIN_S} s:\n{''.join(self.output)}"
        assert self.process.poll() is None, "".join(self.output)
        return time.monotonic() - started

    def stop(self) -> float:
        """Stop it as Ctrl-C does and return the seconds that took."""
        assert self.process is not None
        started = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(20)
        return time.monotonic() - started

    def kill(self) -> None:
        """kill -9 of everything that belongs to it, at once."""
        assert self.process is not None
        family = [*psutil.Process(self.process.pid).children(recursive=True), psutil.Process(self.process.pid)]
        for process in family:
            try:
                process.send_signal(signal.SIGKILL)
            except psutil.NoSuchProcess:
                continue
        self.process.wait(20)

    def family(self) -> list[psutil.Process]:
        """Every process of the stack, the supervisor first."""
        assert self.process is not None
        supervisor = psutil.Process(self.process.pid)
        return [supervisor, *supervisor.children(recursive=True)]

    def client(self, key: str = API_KEY) -> httpx.Client:
        return httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {key}"}, timeout=60)

    def _environment(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
        own = {
            "DAARION_HOME": str(self.home),
            "PORT": str(self.port),
            "DAARION_API_KEY": API_KEY,
            "DAARION_ADMIN_KEY": ADMIN_KEY,
            "LOCAL_LLM_BASE_URL": "none",
        }
        return {**kept, **own, **self.env}

    def _read(self, process: subprocess.Popen[str], ready: threading.Event) -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                self.output.append(line)
                if line.strip() == "DAARION ready":
                    ready.set()
        ready.set()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def eventually(check: Any, within_s: float = 30.0) -> Any:
    """Call ``check`` until it returns something true, and return that."""
    deadline = time.monotonic() + within_s
    while True:
        value = check()
        if value:
            return value
        assert time.monotonic() < deadline, f"did not come true within {within_s} s"
        time.sleep(0.05)


def say(client: httpx.Client, text: str, **more: Any) -> dict[str, Any]:
    """One question to the agent; the whole answer."""
    body = {"model": "sofia", "messages": [{"role": "user", "content": text}], **more}
    response = client.post("/v1/chat/completions", json=body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def events(response: httpx.Response) -> list[dict[str, Any]]:
    """The JSON of each server-sent event, without the terminator."""
    lines = [line[6:] for line in response.text.splitlines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


@pytest.fixture(scope="session")
def stack(session_folder: Path, models: Path) -> Iterator[Stack]:
    """A stack that tests share; they must not stop it."""
    running = Stack(session_folder / "stack", free_port(), models)
    running.start()
    yield running
    if running.process is not None and running.process.poll() is None:
        running.stop()


@pytest.fixture
def member(stack: Stack) -> Iterator[httpx.Client]:
    with stack.client() as client:
        yield client


@pytest.fixture
def admin(stack: Stack) -> Iterator[httpx.Client]:
    with stack.client(ADMIN_KEY) as client:
        yield client
