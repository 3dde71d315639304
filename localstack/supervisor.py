"""Keeps child processes running: each has a thread that starts it, logs what it says and starts it again when it dies.

The kernel ends a child when its thread ends, so nothing outlives the supervisor, not even a kill -9 of it.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Protocol
from urllib.error import URLError
from urllib.request import urlopen

import orjson

from localstack.postgres import EmbeddedPostgres
from localstack.process import dies_with_parent
from shared.settings import ROOT

Tell = Callable[[str], None]
"""Shows one line to the person at the terminal."""

_BACKOFF_S = (0.1, 0.5, 1, 2, 5)
_STEADY_S = 30.0  # a child that ran this long starts again without delay
_HOPELESS_ENDS = 3
_POLL_S = 0.02
_TELL_AGAIN_S = 60.0
_DRAIN_S = 2.5
_MAX_LOG_BYTES = 100_000_000


class Service(Protocol):
    """Something that runs until it dies or is stopped."""

    name: str

    def start(self) -> "subprocess.Popen[bytes]":
        """Start it; the process to wait for."""

    def is_ready(self) -> bool:
        """Whether it does its work."""

    def stop(self) -> None:
        """Stop it for good."""


class PostgresService:
    """The embedded Postgres as a service; ready when its schema is."""

    name = "postgres"

    def __init__(self, server: EmbeddedPostgres) -> None:
        self._server = server
        self._ready = False

    def start(self) -> "subprocess.Popen[bytes]":
        """Start the server and bring its schema up to date."""
        self._ready = False
        self._server.start()
        self._ready = True
        return self._server.process

    def is_ready(self) -> bool:
        """Whether the schema is up to date."""
        return self._ready

    def stop(self) -> None:
        """Fast shutdown."""
        self._server.stop()


@dataclass(frozen=True, slots=True)
class Command:
    """How to run a Python child, and the URL that answers 2xx once it is ready."""

    name: str
    arguments: Sequence[str]
    environment: Mapping[str, str]
    ready_url: str
    log_file: Path


class CommandService:
    """A Python child process that logs into its own file; warnings also reach the terminal."""

    def __init__(self, command: Command, tell: Tell) -> None:
        self.name = command.name
        self._command = command
        self._tell = tell
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> "subprocess.Popen[bytes]":
        """Start the process."""
        self._end_group()
        self._process = subprocess.Popen(
            [sys.executable, *self._command.arguments],
            env=dict(self._command.environment),
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            process_group=0,  # Ctrl-C reaches the supervisor only, which stops children in order
            preexec_fn=dies_with_parent(signal.SIGKILL),
        )
        threading.Thread(target=self._pump, args=(self._process,), daemon=True).start()
        return self._process

    def is_ready(self) -> bool:
        """Whether its URL answers."""
        return answers(self._command.ready_url)

    def stop(self) -> None:
        """SIGTERM, then SIGKILL when draining takes over 2.5 s."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_DRAIN_S)
        self._end_group()

    def _end_group(self) -> None:
        """End the process, if it still runs, with every process that it started itself."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def _pump(self, process: "subprocess.Popen[bytes]") -> None:
        assert process.stdout is not None  # noqa: S101
        log = RollingLog(self._command.log_file)
        told: dict[str, float] = {}
        with process.stdout as output:
            for line in output:
                log.write(line)
                notice = worth_telling(line)
                if notice and time.monotonic() - told.get(notice, -_TELL_AGAIN_S) >= _TELL_AGAIN_S:
                    told[notice] = time.monotonic()
                    self._tell(f"{self.name}: {notice}")
        log.close()


class RollingLog:
    """A log file that keeps at most one predecessor of 100 MB."""

    def __init__(self, path: Path, max_bytes: int = _MAX_LOG_BYTES) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._file = path.open("ab", buffering=0)

    def write(self, line: bytes) -> None:
        """Append a line."""
        if self._file.tell() + len(line) > self._max_bytes:
            self._file.close()
            self._path.replace(self._path.with_suffix(".log.1"))
            self._file = self._path.open("ab", buffering=0)
        self._file.write(line)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def worth_telling(line: bytes) -> str | None:
    """The message of a JSON log line of level WARNING or above."""
    if not line.startswith(b'{"level":"') or line.startswith((b'{"level":"INFO"', b'{"level":"DEBUG"')):
        return None
    try:
        return str(orjson.loads(line)["message"])
    except (ValueError, KeyError):
        return None


def answers(url: str) -> bool:
    """Whether a GET gets a 2xx answer now."""
    try:
        with urlopen(url, timeout=2) as response:  # noqa: S310 (our own http URL)
            return 200 <= int(response.status) < 300
    except (URLError, OSError, HTTPException):
        return False


class Keeper(threading.Thread):
    """The thread of one service."""

    def __init__(self, service: Service, tell: Tell) -> None:
        super().__init__(name=service.name, daemon=True)
        self.service = service
        self.failure: Exception | None = None
        self.ends = 0
        self._tell = tell
        self._stopping = threading.Event()
        self._starting = threading.Lock()

    def run(self) -> None:
        """Start the service, wait for its end, start it again."""
        failures = 0
        while not self._stopping.is_set():
            started = time.monotonic()
            if process := self._start():
                process.wait()
            if self._stopping.is_set():
                return
            self.ends += 1
            failures = 0 if time.monotonic() - started > _STEADY_S else failures + 1
            self._tell(f"{self.service.name} ended{_how(process)}; starting it again")
            self._stopping.wait(_BACKOFF_S[min(failures, len(_BACKOFF_S) - 1)])

    def stop(self) -> None:
        """Stop the service and the thread."""
        self._stopping.set()
        with self._starting:
            self.service.stop()
        self.join(1)

    def _start(self) -> "subprocess.Popen[bytes] | None":
        with self._starting:
            if self._stopping.is_set():
                return None
            try:
                return self.service.start()
            except Exception as error:
                self.failure = error
                self._tell(f"{self.service.name}: {error}")
                return None


def _how(process: "subprocess.Popen[bytes] | None") -> str:
    return f" with exit code {process.returncode}" if process is not None else ""


class Supervisor:
    """A handful of services, started together and stopped in the reverse order of their stages."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._keepers: list[Keeper] = []

    def start(self, service: Service) -> Keeper:
        """Keep a service running from now on."""
        keeper = Keeper(service, self._tell)
        self._keepers.append(keeper)
        keeper.start()
        return keeper

    def wait_ready(self, keeper: Keeper, timeout_s: float, interrupted: threading.Event) -> None:
        """Return when the service is ready or ``interrupted`` is set.

        Raises the error of a service that could not start at all, TimeoutError when it takes too long.
        """
        deadline = time.monotonic() + timeout_s
        while not interrupted.is_set() and not keeper.service.is_ready():
            if keeper.failure is not None:
                raise keeper.failure
            if keeper.ends >= _HOPELESS_ENDS:
                raise RuntimeError(f"{keeper.service.name} ends again and again")
            if time.monotonic() > deadline:
                raise TimeoutError(f"{keeper.service.name} was not ready after {timeout_s:.0f} s")
            interrupted.wait(_POLL_S)

    def stop(self, *names: str) -> None:
        """Stop the named services at the same time, or all."""
        chosen = [keeper for keeper in self._keepers if not names or keeper.service.name in names]
        stopping = [threading.Thread(target=keeper.stop) for keeper in chosen]
        for thread in stopping:
            thread.start()
        for thread in stopping:
            thread.join()
