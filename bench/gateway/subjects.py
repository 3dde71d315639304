"""What is measured: each subject started as its users start it, one worker, logs at error, the same upstream."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

from bench.gateway.load import Target
from localstack.postgres import EmbeddedPostgres
from localstack.process import free_port
from shared.settings import ROOT

LITELLM_KEY = "sk-bench-0123456789abcdef0123456789abcdef"
OUR_KEY, OUR_ADMIN_KEY = "sk-bench-member", "sk-bench-admin"
MODEL = "gpt-4.1-mini"


@dataclass(slots=True)
class Subject:
    """A server under test, and the processes whose CPU time and memory count as its own."""

    name: str
    target: Target
    process: subprocess.Popen[bytes] | None = None
    ready_s: float = 0.0
    ready_cpu_s: float = 0.0
    beside: list[int] = field(default_factory=list)

    def cpu_s(self) -> float:
        """User and system time of the server's process tree so far."""
        return sum(_cpu(process) for process in self._tree())

    def beside_cpu_s(self) -> float:
        """The same of what works for it in other processes: Postgres."""
        return sum(_cpu(child) for pid in self.beside for child in _family(pid))

    def memory_mb(self) -> float:
        """Resident memory of the process tree."""
        return sum(process.memory_info().rss for process in self._tree()) / 1e6

    def _tree(self) -> list[psutil.Process]:
        return _family(self.process.pid) if self.process else []


def _family(pid: int) -> list[psutil.Process]:
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _cpu(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system + times.children_user + times.children_system)


@contextmanager
def upstream() -> Iterator[str]:
    """The mock provider's base URL."""
    port = free_port()
    with _running([sys.executable, "-m", "bench.gateway.upstream", str(port)], {}):
        yield f"http://127.0.0.1:{port}/v1"


@contextmanager
def passthrough(upstream_url: str) -> Iterator[Subject]:
    """The bare pass-through."""
    port = free_port()
    command = [sys.executable, *_uvicorn("bench.gateway.passthrough:app", port)]
    with _running(command, {"UPSTREAM": upstream_url}) as process:
        subject = Subject("pass-through", Target(f"http://127.0.0.1:{port}/v1", "none", MODEL), process)
        _await_ready(subject, f"http://127.0.0.1:{port}/", {404})
        yield subject


@contextmanager
def litellm(python: Path, upstream_url: str, folder: Path) -> Iterator[Subject]:
    """LiteLLM's proxy without a database: master key, no limits, no budget, no ledger."""
    port = free_port()
    config = folder / "litellm.yaml"
    config.write_text(
        f"model_list:\n  - model_name: {MODEL}\n    litellm_params:\n      model: openai/{MODEL}\n"
        f"      api_base: {upstream_url}\n      api_key: sk-mock\n"
        f"litellm_settings:\n  num_retries: 0\n  callbacks: []\ngeneral_settings:\n  master_key: {LITELLM_KEY}\n"
    )
    environment = {
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_MODE": "PRODUCTION",
        "LITELLM_LOG": "ERROR",
        "NO_DOCS": "True",
    }
    listen = ("--host", "127.0.0.1", "--port", str(port), "--num_workers", "1")
    command = [str(python.with_name("litellm")), "--config", str(config), *listen]
    with _running(command, environment) as process:
        subject = Subject("LiteLLM, no database", Target(f"http://127.0.0.1:{port}/v1", LITELLM_KEY, MODEL), process)
        _await_ready(subject, f"http://127.0.0.1:{port}/health/liveliness", {200})
        yield subject


@contextmanager
def ours(upstream_url: str, folder: Path) -> Iterator[Subject]:
    """The chat function with everything on: keys, rate limits, a budget and the ledger in Postgres."""
    postgres = EmbeddedPostgres(folder / "postgres")
    postgres.start()
    port = free_port()
    environment = {
        "DATABASE_URL": postgres.runtime_url,
        "DAARION_SECRET_KEY": "bench-secret-key-of-enough-length",
        "DAARION_API_KEY": OUR_KEY,
        "DAARION_ADMIN_KEY": OUR_ADMIN_KEY,
        "DAARION_HOME": str(folder / "home"),
        "OPENAI_API_KEY": "sk-mock",
        "OPENAI_BASE_URL": upstream_url,
        "LOCAL_LLM_BASE_URL": "none",
        "LOG_LEVEL": "ERROR",
    }
    try:
        subprocess.run([sys.executable, "-m", "bench.gateway.seed"], env=os.environ | environment, check=True, cwd=ROOT)
        models = [sys.executable, "-m", "shared.memory.embedding.e5", str(folder / "home" / "models")]
        subprocess.run(
            models, check=True, cwd=ROOT, stderr=subprocess.DEVNULL
        )  # as the container image does, so that no start builds it
        with _running([sys.executable, *_uvicorn("functions.chat.app:app", port)], environment) as process:
            target = Target(f"http://127.0.0.1:{port}/v1", OUR_KEY, MODEL)
            subject = Subject("DAARION, everything on", target, process, beside=[postgres.process.pid])
            _await_ready(subject, f"http://127.0.0.1:{port}/healthz", {200})
            _set_limits(f"http://127.0.0.1:{port}")
            yield subject
    finally:
        postgres.stop()


def _set_limits(url: str) -> None:
    """Limits and a budget that are checked on every call and never reached."""
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {OUR_ADMIN_KEY}"}) as client:
        for scope, identifier in (("microdao", "microdao:daarion"), ("platform", None)):
            limits = {"requests_per_minute": 10**9, "tokens_per_minute": 10**9}
            client.put("/admin/limits", json={"scope": scope, "id": identifier, **limits}).raise_for_status()
        budget = {"scope": "microdao", "id": "microdao:daarion", "period": "month", "limit_microusd": 10**15}
        client.put("/admin/budgets", json=budget).raise_for_status()


def _uvicorn(app: str, port: int) -> list[str]:
    return ["-m", "uvicorn", app, "--host", "127.0.0.1", "--port", str(port), "--no-access-log", "--log-level", "error"]


@contextmanager
def _running(command: list[str], environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    process = subprocess.Popen(command, env=kept | environment, cwd=ROOT, stdout=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(20)


def _await_ready(subject: Subject, url: str, accepted: set[int]) -> None:
    began = time.monotonic()
    while time.monotonic() - began < 180:
        try:
            if httpx.get(url).status_code in accepted:
                subject.ready_s, subject.ready_cpu_s = time.monotonic() - began, subject.cpu_s()
                return
        except httpx.TransportError:
            time.sleep(0.05)
    raise TimeoutError(f"{subject.name} did not start")
