"""The subject: the embedded Postgres as the product starts it, and the HTTP API in a process of its own."""

import asyncio
import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from localstack.postgres import EmbeddedPostgres
from localstack.process import free_port
from shared.bootstrap import Services
from shared.settings import ROOT, Settings

AGENT = "agent:bench"
SECRET = "bench-secret-key-of-enough-length"
_HEALTHY_WITHIN_S = 60.0
_IDLE_S = 2.0  # the server closes connections that are idle for five seconds


@dataclass(slots=True)
class Api:
    """A connection to the API, kept open, with one tenant's key."""

    port: int
    key: str
    _connection: http.client.HTTPConnection | None = field(default=None, repr=False)
    _used_at: float = 0.0

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The answer to a body. Raises RuntimeError unless it is a success."""
        if self._connection is None or time.monotonic() - self._used_at > _IDLE_S:
            self._connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        headers = {"authorization": f"Bearer {self.key}", "content-type": "application/json"}
        self._connection.request("POST", path, json.dumps(body).encode(), headers)
        answer = self._connection.getresponse()
        data = answer.read()
        self._used_at = time.monotonic()
        if answer.status not in (200, 201):
            raise RuntimeError(f"{path}: {answer.status} {data[:300]!r}")
        return dict(json.loads(data))

    def query(self, question: str, *, mode: str = "hybrid", k: int = 10) -> list[dict[str, Any]]:
        """The memories found, best first."""
        body = {"agent_id": AGENT, "query": question, "k": k, "mode": mode}
        return list(self.post("/internal/agent-memory/query", body)["memories"])


@dataclass(frozen=True, slots=True)
class Stack:
    """A running subject and the clients of its database."""

    settings: Settings
    services: Services
    postgres: EmbeddedPostgres
    port: int

    async def tenant(self, microdao: str) -> Api:
        """A microDAO with the agent ``AGENT``, and a member's connection."""
        await self.ensure_agent(microdao)
        return Api(self.port, (await self.services.keys.create(microdao, ["member"], "bench")).secret)

    async def ensure_agent(self, microdao: str) -> None:
        """Make the microDAO and the agent, unless they are there."""
        await self.services.tenants.ensure(microdao, microdao)
        async with self.services.database.system() as connection:
            await connection.execute(
                "INSERT INTO agent (microdao_id, agent_id, name, blueprint_code) VALUES (%s, %s, 'Bench', 'sofia')"
                " ON CONFLICT DO NOTHING",
                (microdao, AGENT),
            )


@contextmanager
def running_stack(folder: Path) -> Iterator[Stack]:
    """Start over this folder, stop at the end of the block."""
    postgres = EmbeddedPostgres(folder / "postgres")
    postgres.start()
    settings = Settings(
        database_url=postgres.runtime_url, home=folder / "home", secret_key=SECRET, local_llm_base_url="none"
    )
    port = free_port()
    try:
        with _api_process(settings, port):
            services = Services(settings)
            try:
                yield Stack(settings, services, postgres, port)
            finally:
                run(services.close())
    finally:
        postgres.stop()


@contextmanager
def _api_process(settings: Settings, port: int) -> Iterator[None]:
    environment = {
        "DATABASE_URL": settings.database_url,
        "DAARION_SECRET_KEY": settings.secret_key,
        "DAARION_HOME": str(settings.home),
        "LOCAL_LLM_BASE_URL": settings.local_llm_base_url,
        "LOG_LEVEL": "ERROR",
    }
    command = ["-m", "uvicorn", "functions.chat.app:app", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--no-access-log", "--log-level", "error"]
    process = subprocess.Popen([sys.executable, *command], env=os.environ | environment, cwd=ROOT)
    try:
        _await_healthy(port)
        yield
    finally:
        process.terminate()
        process.wait(20)


def _await_healthy(port: int) -> None:
    deadline = time.monotonic() + _HEALTHY_WITHIN_S
    while time.monotonic() < deadline:
        with suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/healthz")
            if connection.getresponse().status == 200:
                return
        time.sleep(0.05)
    raise TimeoutError("the API did not start")


def load_average() -> str:
    """How busy the machine is: runnable processes, mean of the last minute and of the last five."""
    one, five, _ = psutil.getloadavg()
    return f"{one:.1f} (1 min), {five:.1f} (5 min)"


def run(coroutine: Any) -> Any:
    """Run a coroutine to its end in the one event loop of this process, which the pool belongs to."""
    return _LOOP.run_until_complete(coroutine)


_LOOP = asyncio.new_event_loop()
