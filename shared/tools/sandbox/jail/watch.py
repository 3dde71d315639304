"""Whether a running call uses more than it may, by what the kernel and its folder say."""

import os
import signal

from shared.tools.sandbox.jail import workdir
from shared.tools.sandbox.jail.children import send_signal
from shared.tools.sandbox.jail.confine import CallLimits

_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


def overuse(pid: int, folder: str, limits: CallLimits) -> str | None:
    """The limit that is passed: ``threads``, ``cpu``, ``files`` or ``disk``; else None."""
    threads, cpu_s = _use_of(pid)
    if threads > limits.threads:
        return "threads"
    if cpu_s > limits.cpu_s:
        return "cpu"
    try:
        over = workdir.overuse(folder, limits.workdir_bytes, limits.files)
    except workdir.Vanished:
        over = _overuse_while_stopped(pid, folder, limits)
    if over is None and workdir.hidden_bytes(pid) > limits.workdir_bytes:
        return "disk"
    return over


def _overuse_while_stopped(pid: int, folder: str, limits: CallLimits) -> str | None:
    """Count again with the tool held still, so that it cannot move its files out of sight."""
    send_signal(pid, signal.SIGSTOP)
    try:
        return workdir.overuse(folder, limits.workdir_bytes, limits.files)
    except workdir.Vanished:
        return None  # not yet still; the next look comes soon
    finally:
        send_signal(pid, signal.SIGCONT)


def _use_of(pid: int) -> tuple[int, float]:
    """Its threads and its seconds of processor time. proc(5): fields 20, 14 and 15 of stat, counted after its name."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return 0, 0.0
    return int(fields[17]), (int(fields[11]) + int(fields[12])) / _TICKS_A_SECOND
