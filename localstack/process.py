"""Child processes that never outlive their parent."""

import ctypes
import os
import signal
import socket
import sys
from collections.abc import Callable

LOOPBACK = "127.0.0.1"

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def dies_with_parent(signum: signal.Signals = signal.SIGTERM) -> Callable[[], None]:
    """A ``preexec_fn`` after which the kernel sends ``signum`` to the child when the thread that started it ends.

    So start children from a thread that lives as long as they should. Elsewhere than on Linux it does nothing.
    Source: prctl(2), PR_SET_PDEATHSIG; a change of uid clears it, and ``preexec_fn`` runs after that change.
    """
    parent = os.getpid()

    def bind() -> None:
        if _libc is not None:
            _libc.prctl(_PR_SET_PDEATHSIG, int(signum))
            if os.getppid() != parent:  # it died before the call
                os._exit(1)

    return bind


def free_port() -> int:
    """A TCP port of the loopback interface that nothing listens on right now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def port_is_free(host: str, port: int) -> bool:
    """Whether a server could listen there."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True
