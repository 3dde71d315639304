"""The fork server: hands a confined child to each call, ends it at its deadline, and cleans up after it.

A child is kept in stock, so that a call need not wait until one is forked and confined. Server and host speak over one
socket, a JSON message a packet:
    host → {"run": id, "limits": {…}} · {"kill": id}
    us   → {"ready": landlock_abi} or {"failed": why} · {"started": id} with two descriptors (channel, output)
           · {"ended": id, "signal", "exit", "cpu_ms", "by"}
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
from shared.tools.sandbox.jail.children import Child, fork_child, send_signal
from shared.tools.sandbox.jail.confine import CHANNEL, CallLimits, Confinement, prepare
from shared.tools.sandbox.jail.kernel import share_one_heap
from shared.tools.sandbox.jail.watch import overuse

_WATCH_EVERY_S = 0.02
_MAX_MESSAGE = 65_536
_STACK_BYTES = 2 << 20
"""Of a thread; all that a tool may have take a quarter of its memory so. The system's 8 MB would take all of it."""


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
        self._stock: Child | None = None
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
        self._fill_stock()
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
        data = self._control.recv(_MAX_MESSAGE)
        if not data:
            return False
        message = json.loads(data)
        if "kill" in message:
            self._kill(message["kill"], "host")
        else:
            self._start(message["run"], CallLimits(**message["limits"]))
        return True

    def _start(self, call_id: str, limits: CallLimits) -> None:
        child, self._stock = self._stock or self._fork(), None
        if not self._calls:
            self._watch_at = time.monotonic() + _WATCH_EVERY_S
        self._calls[call_id] = _Call(call_id, child.pid, child.folder, time.monotonic() + limits.wall_s, limits)
        child.start(limits)
        self._send({"started": call_id}, child.channel.fileno(), child.output.fileno())
        child.close()

    def _fork(self) -> Child:
        return fork_child(self._pid, self._root, self._shared)

    def _fill_stock(self) -> None:
        """Between calls: making a child takes as long as a short call does."""
        with suppress(OSError):  # whoever needs a child will be told
            self._stock = self._stock or self._fork()

    def _reap(self) -> None:
        for call in list(self._calls.values()):
            pid, status, usage = os.wait4(call.pid, os.WNOHANG)
            if pid:
                del self._calls[call.id]
                workdir.remove_folder(call.folder)
                self._send(_report(call, status, usage.ru_utime + usage.ru_stime))
        if self._stock and os.waitpid(self._stock.pid, os.WNOHANG)[0]:
            self._discard(self._stock)
        elif not self._calls:
            self._fill_stock()

    def _discard(self, child: Child) -> None:
        child.close()
        workdir.remove_folder(child.folder)
        self._stock = None

    def _watch(self) -> None:
        now = time.monotonic()
        if now < self._watch_at:
            return
        self._watch_at = now + _WATCH_EVERY_S
        for call in self._calls.values():
            reason = "wall" if now >= call.deadline else overuse(call.pid, call.folder, call.limits)
            if reason:
                self._kill(call.id, reason)
        if self._calls:
            self._fill_stock()

    def _kill(self, call_id: str, reason: str) -> None:
        call = self._calls.get(call_id)
        if call is not None:
            call.ended_by = call.ended_by or reason
            send_signal(call.pid, signal.SIGKILL)

    def _end_all(self) -> None:
        left = {call.pid: call.folder for call in self._calls.values()}
        if self._stock:
            left[self._stock.pid] = self._stock.folder
        for pid in left:
            send_signal(pid, signal.SIGKILL)
        for pid, folder in left.items():
            os.waitpid(pid, 0)
            workdir.remove_folder(folder)
        workdir.remove_folder(self._root)

    def _send(self, message: dict[str, Any], *descriptors: int) -> None:
        with suppress(BrokenPipeError):  # the host is gone; the next read says so
            socket.send_fds(self._control, [json.dumps(message).encode()], list(descriptors))


def _report(call: _Call, status: int, cpu_s: float) -> dict[str, Any]:
    number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
    return {
        "ended": call.id,
        "signal": number,
        "exit": os.WEXITSTATUS(status) if number is None else None,
        "cpu_ms": round(cpu_s * 1000),
        "by": call.ended_by,
    }


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
