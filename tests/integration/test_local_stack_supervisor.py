"""Children, their logs, the functions' host and the data folder."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from localstack.home import Home, RunningStack, StartError
from localstack.process import LOOPBACK, free_port, port_is_free
from localstack.supervisor import Command, CommandService, Keeper, RollingLog, Supervisor, worth_telling
from localstack.workers import FunctionHost
from shared.cloud.serve import QueueFunction

SERVER = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
    def log_request(self, *args): pass
print('{"level":"WARNING","message":"hello from the child"}', flush=True)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def eventually(check: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not check():
        assert time.monotonic() < deadline, "did not come true within 20 s"
        time.sleep(0.02)


class Told(list[str]):
    """What the supervisor told the terminal."""

    def has(self, text: str) -> bool:
        return any(text in line for line in self)


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def supervisor(told: Told) -> Iterator[Supervisor]:
    supervisor = Supervisor(told.append)
    yield supervisor
    supervisor.stop()


def start(supervisor: Supervisor, told: Told, code: str, folder: Path) -> tuple[Keeper, CommandService]:
    port = free_port()
    command = Command("child", ("-c", code, str(port)), os.environ, f"http://{LOOPBACK}:{port}/", folder / "child.log")
    service = CommandService(command, told.append)
    return supervisor.start(service), service


def test_a_killed_child_comes_back_and_the_terminal_says_so(supervisor: Supervisor, told: Told, tmp_path: Path):
    keeper, service = start(supervisor, told, SERVER, tmp_path)
    supervisor.wait_ready(keeper, 20, threading.Event())
    (child,) = [one for one in psutil.Process().children() if SERVER in one.cmdline()]
    child.send_signal(signal.SIGKILL)
    eventually(lambda: told.has("child ended with exit code -9"))
    eventually(service.is_ready)
    supervisor.stop()
    assert not service.is_ready()


def test_what_a_child_started_ends_with_it(supervisor: Supervisor, told: Told, tmp_path: Path):
    code = "import subprocess, time; print(subprocess.Popen(['sleep', '60']).pid, flush=True); time.sleep(60)"
    start(supervisor, told, code, tmp_path)
    log = tmp_path / "child.log"
    eventually(lambda: log.exists() and log.read_text().endswith("\n"))
    helper = int(log.read_text())
    supervisor.stop()
    eventually(lambda: not psutil.pid_exists(helper) or psutil.Process(helper).status() == psutil.STATUS_ZOMBIE)


def test_what_a_child_says_is_logged_and_its_warnings_shown_once(supervisor: Supervisor, told: Told, tmp_path: Path):
    line = '{"level":"WARNING","message":"again"}'
    code = f"import time; [print('{line}', flush=True) for _ in range(3)]; time.sleep(60)"
    start(supervisor, told, code, tmp_path)
    eventually(lambda: (tmp_path / "child.log").exists() and (tmp_path / "child.log").read_text().count("again") == 3)
    eventually(lambda: told == ["child: again"])


def test_a_child_that_cannot_live_is_given_up_at_the_start(supervisor: Supervisor, told: Told, tmp_path: Path):
    keeper, _ = start(supervisor, told, "raise SystemExit(3)", tmp_path)
    with pytest.raises(RuntimeError, match="again and again"):
        supervisor.wait_ready(keeper, 20, threading.Event())


def test_logs_keep_one_predecessor(tmp_path: Path):
    log = RollingLog(tmp_path / "x.log", max_bytes=10)
    for number in range(5):
        log.write(b"%d-----\n" % number)
    log.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.log", "x.log.1"]
    assert (tmp_path / "x.log").read_bytes() == b"4-----\n"


@pytest.mark.parametrize(
    ("line", "notice"),
    [
        (b'{"level":"WARNING","message":"careful"}\n', "careful"),
        (b'{"level":"ERROR","message":"broken"}\n', "broken"),
        (b'{"level":"INFO","message":"fine"}\n', None),
        (b"plain text\n", None),
        (b'{"level":"ERROR", cut', None),
    ],
)
def test_only_warnings_reach_the_terminal(line: bytes, notice: str | None):
    assert worth_telling(line) == notice


class Nothing:
    """What a function that needs nothing works with."""

    closed = False

    async def missing(self) -> list[str]:
        return []

    async def close(self) -> None:
        self.closed = True


async def echo(_: Nothing, payload: dict[str, object]) -> dict[str, object]:
    return {"echo": payload}


async def test_the_host_serves_each_function_under_its_folder():
    async def no_batch(_: Nothing, messages: object) -> set[str]:
        return set()

    app = QueueFunction("one", Nothing, on_batch=no_batch, on_direct=echo)
    transport = httpx.ASGITransport(app=FunctionHost({"one": app}))
    async with httpx.AsyncClient(transport=transport, base_url="http://host") as client:
        assert (await client.post("/one/events", json={"n": 1})).json() == {"echo": {"n": 1}}
        assert (await client.get("/one/healthz")).json()["function"] == "one"
        assert (await client.get("/healthz")).status_code == 200
        assert (await client.post("/two/events", json={})).status_code == 404


async def test_the_host_closes_its_functions():
    opened: list[Nothing] = []

    def open_nothing() -> Nothing:
        opened.append(Nothing())
        return opened[-1]

    async def no_batch(_: Nothing, messages: object) -> set[str]:
        return set()

    host = FunctionHost({"one": QueueFunction("one", open_nothing, on_batch=no_batch, on_direct=echo)})
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=host), base_url="http://host") as client:
        await client.post("/one/events", json={})
    sent: list[str] = []
    stages = iter(("lifespan.startup", "lifespan.shutdown"))

    async def receive() -> dict[str, str]:
        return {"type": next(stages)}

    async def send(message: object) -> None:
        assert isinstance(message, dict)
        sent.append(message["type"])

    await host({"type": "lifespan"}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert [one.closed for one in opened] == [True]


def test_one_folder_takes_one_stack(tmp_path: Path):
    first, second = Home(tmp_path), Home(tmp_path)
    first.prepare()
    first.lock()
    first.announce(RunningStack(os.getpid(), "http://here", "postgresql://x", "http://engine"))
    with pytest.raises(StartError, match=r"already runs on .*http://here"):
        second.lock()
    first.release()
    second.lock()
    second.release()


def test_a_folder_is_deleted_only_while_no_stack_runs_on_it(tmp_path: Path):
    running, other = Home(tmp_path / "home"), Home(tmp_path / "home")
    running.prepare()
    running.lock()
    with pytest.raises(StartError, match="already runs"):
        other.delete()
    running.release()
    assert other.delete()
    other.release()
    assert not (tmp_path / "home").exists()
    assert not other.delete()


def test_a_stack_that_died_is_not_running(tmp_path: Path):
    home = Home(tmp_path)
    home.prepare()
    assert home.running() is None
    home.announce(RunningStack(2**22 + 1, "http://here", "postgresql://x", "http://engine"))
    assert home.running() is None


def test_secrets_are_made_once_and_for_the_owner_only(tmp_path: Path):
    home = Home(tmp_path)
    home.prepare()
    assert home.secret_key == Home(tmp_path).secret_key
    assert len(home.secret_key) >= 32
    assert (tmp_path / "secret_key").stat().st_mode & 0o777 == 0o600


def test_a_folder_that_cannot_be_made_is_one_clear_line(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(StartError, match="set DAARION_HOME"):
        Home(tmp_path / "file" / "home").prepare()


def test_a_taken_port_is_noticed():
    import socket

    with socket.socket() as taken:
        taken.bind((LOOPBACK, 0))
        taken.listen()
        assert not port_is_free(LOOPBACK, taken.getsockname()[1])
