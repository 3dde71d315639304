"""The processes that tools run in: forked and confined ahead of the call that takes them, used for one call."""

import os
import signal
import socket
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import NoReturn

from shared.tools.sandbox.jail import workdir
from shared.tools.sandbox.jail.confine import CHANNEL, CallLimits, Confinement, confine, seal
from shared.tools.sandbox.jail.frames import read_frame, write_frame
from shared.tools.sandbox.jail.program import serve


@dataclass(frozen=True, slots=True)
class Child:
    """A process that waits to be told its limits; ``channel`` and ``output`` are the host's ends, its own until then.

    It has seen nothing of any call, and its folder is empty.
    """

    pid: int
    folder: str
    channel: socket.socket
    output: socket.socket

    def start(self, limits: CallLimits) -> None:
        """Let it wait for the host's request, under these limits. If it is dead its end will say so."""
        with suppress(BrokenPipeError, ConnectionResetError):
            write_frame(self.channel.fileno(), asdict(limits))

    def close(self) -> None:
        """Let go of the host's ends: it ends itself unless the host has them."""
        self.channel.close()
        self.output.close()


def fork_child(parent: int, root: str, shared: Confinement) -> Child:
    """A child of the process ``parent``, which is this one. Raises OSError."""
    folder = workdir.make_folder(root, shared.user)
    channel, channel_end = socket.socketpair()
    output, output_end = socket.socketpair()
    with channel_end, output_end:
        pid = os.fork()
        if pid == 0:
            _live(parent, folder, shared, channel_end.fileno(), output_end.fileno())
    return Child(pid, folder, channel, output)


def send_signal(pid: int, number: int) -> None:
    """Send a signal to a child and all that it started. It was not reaped: its number belongs to no other process."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)  # missing until the child has made its own group
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _live(parent: int, folder: str, shared: Confinement, channel: int, output: int) -> NoReturn:
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        _place_descriptors(channel, output)
        try:
            confine(parent, folder, shared)
            seal(shared, CallLimits(**read_frame(CHANNEL)))
        except OSError as error:
            write_frame(CHANNEL, {"broken": str(error)})
            os._exit(1)
        serve(CHANNEL, folder)
        os._exit(0)
    except BaseException:
        os._exit(1)


def _place_descriptors(channel: int, output: int) -> None:
    """The two are above 3, which the fork server took."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0, inheritable=False)
    os.dup2(output, 1, inheritable=False)
    os.dup2(output, 2, inheritable=False)
    os.dup2(channel, CHANNEL, inheritable=False)
