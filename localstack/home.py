"""The data folder (DAARION_HOME): what lies where, the lock that keeps a second stack out, and the secret key."""

import fcntl
import json
import os
import secrets
import shutil
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import IO


class StartError(Exception):
    """The stack cannot start; the message is one line that says what to do. Exit code 2."""


@dataclass(frozen=True, slots=True)
class RunningStack:
    """Where the parts of a running stack are, for the command line."""

    process_id: int
    api_url: str
    database_url: str
    engine_url: str


class Home:
    """One data folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self._lock: IO[str] | None = None

    @property
    def postgres(self) -> Path:
        """The database's folder."""
        return self.folder / "postgres"

    @property
    def logs(self) -> Path:
        """One log file a child."""
        return self.folder / "logs"

    @property
    def bytecode(self) -> Path:
        """Compiled modules, where Python is told not to write them beside the sources."""
        return self.folder / "bytecode"

    @property
    def _stack_file(self) -> Path:
        return self.folder / "stack.json"

    def prepare(self) -> None:
        """Make the folder. Raises StartError when it cannot be written to."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.logs.mkdir(mode=0o700, exist_ok=True)
            (self.folder / "lock").touch(mode=0o600)
        except OSError as error:
            reason = error.strerror or str(error)
            raise StartError(
                f"cannot write to {self.folder} ({reason}); set DAARION_HOME to a folder you own"
            ) from None

    def lock(self) -> None:
        """Keep other stacks out until :meth:`release` or the end of this process, however it ends.

        Raises StartError when one is running.
        """
        lock = (self.folder / "lock").open("a")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            running = self.running()
            where = f" (process {running.process_id}, {running.api_url})" if running else ""
            raise StartError(
                f"a stack already runs on {self.folder}{where}; stop it or set another DAARION_HOME"
            ) from None
        self._lock = lock

    def release(self) -> None:
        """Let another stack in."""
        if self._lock is not None:
            self._lock.close()

    @cached_property
    def secret_key(self) -> str:
        """Keys the hashes of API keys; made once."""
        file = self.folder / "secret_key"
        if not file.exists():
            _write_private(file, secrets.token_urlsafe(48))
        return file.read_text(encoding="utf-8").strip()

    def announce(self, stack: RunningStack) -> None:
        """Tell the command line where the stack is."""
        _write_private(self._stack_file, json.dumps(asdict(stack)))

    def withdraw(self) -> None:
        """The stack is down."""
        self._stack_file.unlink(missing_ok=True)

    def running(self) -> RunningStack | None:
        """The stack that runs on this folder."""
        try:
            stack = RunningStack(**json.loads(self._stack_file.read_text(encoding="utf-8")))
            os.kill(stack.process_id, 0)
        except (OSError, ValueError, TypeError):
            return None
        return stack

    def delete(self) -> bool:
        """Delete the folder; whether there was one. Raises StartError while a stack runs on it."""
        if not self.folder.exists():
            return False
        self.lock()
        shutil.rmtree(self.folder)
        return True


def _write_private(file: Path, text: str) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    unfinished = file.with_suffix(".new")
    unfinished.unlink(missing_ok=True)
    with open(os.open(unfinished, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w", encoding="utf-8") as handle:
        handle.write(text)
    unfinished.replace(file)
