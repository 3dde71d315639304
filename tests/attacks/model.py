"""An attack, what it aims at, and the same program without a sandbox."""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

SECRET_VARIABLE = "DAARION_TEST_SECRET"
NOBODY = 65534

_OUTSIDE = """
import json, sys
args, code = json.loads(sys.argv[1]), sys.argv[2]
namespace = {}
exec(code, namespace)
print("\\x1e" + json.dumps(namespace["run"](args)))
"""


@dataclass
class Target:
    """Things of the host that an attack wants. ``args`` tells it where they are."""

    token: str
    folder: Path
    tcp: socket.socket
    udp: socket.socket
    unix: socket.socket
    victim: "subprocess.Popen[bytes]"

    @property
    def args(self) -> dict[str, Any]:
        return {
            "secret": str(self.folder / "secret"),
            "planted": str(self.folder / "planted"),
            "folder": str(self.folder),
            "tcp": self.tcp.getsockname()[1],
            "udp": self.udp.getsockname()[1],
            "unix": self.token,
            "victim": self.victim.pid,
            "host": os.getpid(),
            "token": self.token,
        }

    @property
    def is_planted(self) -> bool:
        """Whether the file that attacks want to make is there."""
        return (self.folder / "planted").exists()

    @property
    def is_victim_alive(self) -> bool:
        return self.victim.poll() is None

    def received(self, listener: socket.socket) -> bool:
        """Whether anybody reached the listener."""
        listener.settimeout(0.05)
        try:
            if listener.type == socket.SOCK_STREAM:
                listener.accept()[0].close()
            else:
                listener.recv(100)
        except TimeoutError:
            return False
        return True

    def has_leaked(self, value: Any) -> bool:
        """Whether the secret is in what the attack returned."""
        return self.token in json.dumps(value)


@dataclass(frozen=True)
class Attack:
    """``code`` defines ``run(args)``; ``succeeded`` looks at the host and at what the program returned."""

    name: str
    code: str
    succeeded: Callable[[Target, Any], bool]
    group: str = ""
    machine: str = ""
    control_args: dict[str, Any] = field(default_factory=dict)
    """What to scale down where the same program runs without a sandbox."""
    is_control: bool = True
    """Whether it can be shown to work outside: not where it would harm the machine that runs the tests."""

    def __str__(self) -> str:
        return self.name


@contextmanager
def target(folder: Path) -> Iterator[Target]:
    """Everything there is to attack, open to every user of the machine."""
    token = secrets.token_hex(8)
    for parent in (folder, *folder.parents[:3]):
        parent.chmod(parent.stat().st_mode | 0o755)
    folder.chmod(0o777)
    (folder / "secret").write_text(token)
    (folder / "secret").chmod(0o666)
    tcp = socket.create_server(("127.0.0.1", 0))
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(("127.0.0.1", 0))
    unix = socket.socket(socket.AF_UNIX)
    unix.bind(f"\0{token}")
    unix.listen()
    user = NOBODY if os.geteuid() == 0 else None  # the sandbox's own user, so that only the sandbox protects it
    victim = subprocess.Popen(["sleep", "300"], user=user, env={SECRET_VARIABLE: token})
    try:
        yield Target(token, folder, tcp, udp, unix, victim)
    finally:
        for pid in processes_with(f"outside-{token}"):
            os.kill(pid, signal.SIGKILL)
        victim.kill()
        victim.wait()
        for listener in (tcp, udp, unix):
            listener.close()


def run_outside(attack: Attack, aim: Target, timeout_s: float = 30.0) -> Any:
    """What the program does in a plain interpreter; None when it did not end in time."""
    args = json.dumps({**aim.args, **attack.control_args})
    done = _run(
        [sys.executable, "-I", "-c", _OUTSIDE, args, attack.code, f"outside-{aim.token}"],
        env={SECRET_VARIABLE: aim.token},
        pass_fds=[aim.tcp.fileno()],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        cwd=aim.folder,
        timeout=timeout_s,
    )
    if done is None:
        return None
    answer = done.stdout.decode(errors="replace").rpartition("\x1e")[2]
    return json.loads(answer) if answer.strip().startswith(("{", "[", '"', "t", "f", "n", *"-0123456789")) else None


def _run(command: list[str], **options: Any) -> "subprocess.CompletedProcess[bytes] | None":
    try:
        return subprocess.run(command, **options)
    except subprocess.TimeoutExpired:
        return None


def processes_with(text: str) -> list[int]:
    """The processes below this one whose command line has the text, and orphans; a fork has its parent's.

    Other test processes of the machine have such processes, and so have whole stacks that this one started.
    """
    found = {}
    for process in psutil.process_iter(["pid", "ppid", "cmdline"]):
        if text in "\0".join(process.info["cmdline"] or ()):
            found[process.info["pid"]] = process.info["ppid"]
    mine = set(_below(psutil.Process()))
    return sorted(pid for pid, parent in found.items() if pid in mine or parent == 1)


def _below(process: psutil.Process) -> Iterator[int]:
    with suppress(psutil.NoSuchProcess):
        for child in process.children():
            with suppress(psutil.NoSuchProcess):
                if child.cmdline()[-1:] != ["up"]:
                    yield child.pid
                    yield from _below(child)
