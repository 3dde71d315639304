"""The embedded Postgres: what was acknowledged survives a kill -9, and nothing of it outlives its parent."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from localstack.home import StartError
from localstack.postgres import EmbeddedPostgres
from localstack.stack import migrate_configured
from shared.settings import Settings


@pytest.fixture
def server(session_folder: Path, request: pytest.FixtureRequest) -> Iterator[EmbeddedPostgres]:
    folder = session_folder / request.node.name
    folder.mkdir(mode=0o711)
    server = EmbeddedPostgres(folder / "postgres")
    yield server
    server.stop()


def wait_gone(process_id: int) -> None:
    deadline = time.monotonic() + 10
    while psutil.pid_exists(process_id):
        assert time.monotonic() < deadline, "still there after 10 s"
        time.sleep(0.02)


def count_numbers(url: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT count(*) FROM number").fetchone()
    assert row is not None
    return int(row[0])


def test_acknowledged_rows_survive_a_kill(server: EmbeddedPostgres):
    server.start()
    url = server.admin_url
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE number (value integer)")
        for value in range(200):
            connection.execute("INSERT INTO number VALUES (%s)", (value,))
        server.process.kill()
    server.start()
    assert server.admin_url == url  # the same port, so that others find it again
    assert count_numbers(url) == 200


def test_it_never_runs_as_root_and_keeps_passwords_to_itself(server: EmbeddedPostgres):
    server.start()
    assert psutil.Process(server.process.pid).uids().effective != 0
    assert server.data_dir.stat().st_mode & 0o777 == 0o700
    for file in server.data_dir.parent.iterdir():
        assert file == server.data_dir or file.stat().st_mode & 0o777 == 0o600


def test_it_wants_a_password(server: EmbeddedPostgres):
    server.start()
    password = server.runtime_url.split(":")[2].split("@")[0]
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(server.runtime_url.replace(password, "wrong"))


def test_the_runtime_login_owns_nothing(server: EmbeddedPostgres):
    server.start()
    with psycopg.connect(server.runtime_url) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute("SELECT * FROM microdao")


def test_a_pid_file_of_something_else_is_in_nobodys_way(server: EmbeddedPostgres):
    server.start()
    pid_file = server.data_dir / "postmaster.pid"
    text = pid_file.read_text()
    server.process.kill()
    server.process.wait()
    pid_file.write_text(text.replace(str(server.process.pid), str(os.getpid()), 1))
    server.start()
    assert server.process.poll() is None


def test_a_server_left_behind_is_stopped_first(server: EmbeddedPostgres):
    server.start()
    second = EmbeddedPostgres(server.data_dir)
    second.start()
    assert server.process.wait(5) == 0
    second.stop()


@pytest.mark.skipif(os.getuid() != 0, reason="only root hands the server to another account")
def test_it_runs_in_a_folder_that_only_its_owner_may_enter(tmp_path: Path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    server = EmbeddedPostgres(closed / "postgres")
    server.start()
    try:
        status = Path(f"/proc/{server.process.pid}/status").read_text()
    finally:
        server.stop()
    assert "Uid:\t0" not in status
    effective = int(status.partition("CapEff:\t")[2].split()[0], 16)
    assert effective in (0, 1 << 1), "of root's powers at most access to files is left"


def test_it_dies_with_its_parent(server: EmbeddedPostgres):
    code = (
        "import sys; from pathlib import Path; from localstack.postgres import EmbeddedPostgres;"
        "server = EmbeddedPostgres(Path(sys.argv[1])); server.start(); print(server.process.pid, flush=True);"
        "sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(server.data_dir)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        process_id = int(parent.stdout.readline())
        parent.send_signal(signal.SIGKILL)
    wait_gone(process_id)


def test_without_a_database_of_ones_own_migrate_says_who_migrates():
    with pytest.raises(StartError, match=r"DATABASE_URL is not set.*daarion up"):
        migrate_configured(Settings())
