"""The fork server: forks a confined child per call, ends it at its deadline, and cleans up after it.

It speaks with its host over one socket, a JSON message a packet:
    host → {"run": id, "limits": {…}} with two descriptors (channel, output) · {"kill": id}
    us   → {"ready": landlock_abi} or {"failed": why} · {"ended": id, "signal", "exit", "cpu_ms", "by"}
It never sees code, arguments or results: those go between host and child. When the host is gone, so are we.
"""

import fcntl
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from shared.tools.sandbox.jail import workdir
from shared.tools.sandbox.jail.confine import CHANNEL, CallLimits, Confinement, confine, prepare
from shared.tools.sandbox.jail.frames import write_frame
from shared.tools.sandbox.jail.kernel import share_one_heap
from shared.tools.sandbox.jail.program import serve

_WATCH_EVERY_S = 0.02
_MAX_MESSAGE = 65_536
_STACK_BYTES = 2 << 20
"""Of a thread; all that a tool may have take a quarter of its memory so. The system's 8 MB would take all of it."""
_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(slots=True)
class _Call:
    id: str
    pid: int
    folder: str
    deadline: float
    limits: CallLimits
    ended_by: str | None = None


class Zygote:
    """Single-threaded, so that a fork copies no lock in the middle of use."""

    def __init__(self, control: socket.socket, root: str, shared: Confinement) -> None:
        self._control = control
        self._root = root
        self._shared = shared
        self._calls: dict[str, _Call] = {}
        self._watch_at = 0.0
        self._pid = os.getpid()
        self._wake, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)

    def serve(self) -> None:
        """Until the host closes its end."""
        poller = select.poll()
        poller.register(self._control, select.POLLIN)
        poller.register(self._wake, select.POLLIN)
        while True:
            ready = {descriptor for descriptor, _ in poller.poll(self._timeout_ms())}
            if self._wake in ready:
                os.read(self._wake, 4096)
            if self._control.fileno() in ready and not self._take_message():
                break
            self._reap()
            self._watch()
        self._end_all()

    def _timeout_ms(self) -> int | None:
        return int(_WATCH_EVERY_S * 1000) if self._calls else None

    def _take_message(self) -> bool:
        data, descriptors, _, _ = socket.recv_fds(self._control, _MAX_MESSAGE, 2)
        if not data:
            return False
        message = json.loads(data)
        if "kill" in message:
            self._kill(message["kill"], "host")
        else:
            self._fork(message["run"], CallLimits(**message["limits"]), *descriptors)
        return True

    def _fork(self, call_id: str, limits: CallLimits, channel: int, output: int) -> None:
        folder = workdir.make_folder(self._root, self._shared.user)
        deadline = time.monotonic() + limits.wall_s
        pid = os.fork()
        if pid == 0:
            _child(self._pid, folder, self._shared, limits, channel, output)
        os.close(channel)
        os.close(output)
        if not self._calls:
            self._watch_at = time.monotonic() + _WATCH_EVERY_S
        self._calls[call_id] = _Call(call_id, pid, folder, deadline, limits)

    def _reap(self) -> None:
        for call in list(self._calls.values()):
            pid, status, usage = os.wait4(call.pid, os.WNOHANG)
            if pid:
                del self._calls[call.id]
                workdir.remove_folder(call.folder)
                self._send(_report(call, status, usage.ru_utime + usage.ru_stime))

    def _watch(self) -> None:
        now = time.monotonic()
        if now < self._watch_at:
            return
        self._watch_at = now + _WATCH_EVERY_S
        for call in self._calls.values():
            reason = "wall" if now >= call.deadline else _overuse(call)
            if reason:
                self._kill(call.id, reason)

    def _kill(self, call_id: str, reason: str) -> None:
        call = self._calls.get(call_id)
        if call is not None:
            call.ended_by = call.ended_by or reason
            _signal(call.pid, signal.SIGKILL)

    def _end_all(self) -> None:
        for call in self._calls.values():
            _signal(call.pid, signal.SIGKILL)
        for call in self._calls.values():
            os.waitpid(call.pid, 0)
            workdir.remove_folder(call.folder)
        workdir.remove_folder(self._root)

    def _send(self, message: dict[str, Any]) -> None:
        with suppress(BrokenPipeError):  # the host is gone; the next read says so
            self._control.send(json.dumps(message).encode())


def _report(call: _Call, status: int, cpu_s: float) -> dict[str, Any]:
    number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
    return {
        "ended": call.id,
        "signal": number,
        "exit": os.WEXITSTATUS(status) if number is None else None,
        "cpu_ms": round(cpu_s * 1000),
        "by": call.ended_by,
    }


def _overuse(call: _Call) -> str | None:
    threads, cpu_s = _use_of(call.pid)
    if threads > call.limits.threads:
        return "threads"
    if cpu_s > call.limits.cpu_s:
        return "cpu"
    try:
        over = workdir.overuse(call.folder, call.limits.workdir_bytes, call.limits.files)
    except workdir.Vanished:
        over = _overuse_while_stopped(call)
    if over is None and workdir.hidden_bytes(call.pid) > call.limits.workdir_bytes:
        return "disk"
    return over


def _overuse_while_stopped(call: _Call) -> str | None:
    """Count again with the tool held still, so that it cannot move its files out of sight."""
    _signal(call.pid, signal.SIGSTOP)
    try:
        return workdir.overuse(call.folder, call.limits.workdir_bytes, call.limits.files)
    except workdir.Vanished:
        return None  # not yet still; the next look comes soon
    finally:
        _signal(call.pid, signal.SIGCONT)


def _use_of(pid: int) -> tuple[int, float]:
    """Its threads and its seconds of processor time. proc(5): fields 20, 14 and 15 of stat, counted after its name."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return 0, 0.0
    return int(fields[17]), (int(fields[11]) + int(fields[12])) / _TICKS_A_SECOND


def _signal(pid: int, number: int) -> None:
    """Not yet reaped, so the number cannot belong to another process."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)  # missing until the child has made its own group
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _child(parent: int, folder: str, shared: Confinement, limits: CallLimits, channel: int, output: int) -> None:
    """Never returns."""
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        _place_descriptors(channel, output)
        try:
            confine(parent, folder, shared, limits)
        except OSError as error:
            write_frame(CHANNEL, {"broken": str(error)})
            os._exit(1)
        serve(CHANNEL, folder)
        os._exit(0)
    except BaseException:
        os._exit(1)


def _place_descriptors(channel: int, output: int) -> None:
    """The two that came are above 3, which ``main`` took."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0, inheritable=False)
    os.dup2(output, 1, inheritable=False)
    os.dup2(output, 2, inheritable=False)
    os.dup2(channel, CHANNEL, inheritable=False)


def main(arguments: str) -> None:
    """``arguments``: JSON of control (descriptor), preload and modules (names), path and readable, landlock (bool)."""
    config = json.loads(arguments)
    os.environ.clear()
    control = _free_channel(config["control"])
    try:
        _preload(config["preload"], config["modules"], config["path"])
        share_one_heap()
        threading.stack_size(_STACK_BYTES)
        root, _ = workdir.make_root()
        shared = prepare(root, config["readable"], with_landlock=config["landlock"])
    except Exception as error:
        control.send(json.dumps({"failed": f"{type(error).__name__}: {error}"}).encode())
        return
    gc.collect()
    gc.freeze()
    control.send(json.dumps({"ready": shared.landlock_abi}).encode())
    Zygote(control, root, shared).serve()


def _free_channel(control: int) -> socket.socket:
    """Our control socket above the descriptor that children take for their channel; that one holds nothing of ours."""
    moved = fcntl.fcntl(control, fcntl.F_DUPFD_CLOEXEC, CHANNEL + 1)
    os.close(control)
    os.dup2(0, CHANNEL)
    return socket.socket(fileno=moved)


def _preload(preload: list[str], modules: list[str], path: list[str]) -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace", line_buffering=True)  # type: ignore[union-attr]
    for name in preload:
        importlib.import_module(name)
    sys.path.extend(path)
    for name in modules:
        importlib.import_module(name)
    sys.path.remove(sys.argv[1])  # our own code is of no use to a tool
    if threading.active_count() > 1:
        raise RuntimeError(
            "a module that was imported in advance started a thread; a forked copy of it would be broken"
        )
