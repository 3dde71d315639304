"""System calls that Python has no function for."""

import ctypes
import os
from typing import Final

libc: Final = ctypes.CDLL(None, use_errno=True)

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38
_M_ARENA_MAX = -8


def check(answer: int, what: str) -> int:
    """The answer of a call of the C library. Raises OSError where it is negative."""
    if answer < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return answer


def die_with_parent(signal: int) -> None:
    """Have the kernel send this process ``signal`` when the thread that forked it ends."""
    check(libc.prctl(_PR_SET_PDEATHSIG, signal, 0, 0, 0), "PR_SET_PDEATHSIG")


def forbid_new_privileges() -> None:
    """No set-uid program can raise this process again."""
    check(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "PR_SET_NO_NEW_PRIVS")


def hide_memory() -> None:
    """No process of the same user may trace this one or read its /proc files."""
    check(libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0), "PR_SET_DUMPABLE")


def share_one_heap() -> None:
    """Give threads no heap of their own: each would take 64 MB of address space, of which little is used.

    Does nothing with a C library other than glibc, which has no such heaps.
    """
    if hasattr(libc, "mallopt"):
        libc.mallopt(_M_ARENA_MAX, 1)
