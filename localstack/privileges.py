"""Root starts Postgres, which refuses to be root: what the child does between fork and exec to become somebody else."""

import ctypes
import os
import sys
from collections.abc import Callable

_PR_SET_KEEPCAPS = 8
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE = 47, 2
_CAP_DAC_OVERRIDE = 1
_CAPABILITY_VERSION_3 = 0x20080522

CAN_KEEP_FILE_ACCESS = sys.platform == "linux"


class _CapabilityHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _CapabilitySets(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


def become(uid: int, gid: int, then: Callable[[], None], *, keep_file_access: bool) -> Callable[[], None]:
    """A ``preexec_fn`` that gives up root for this account and then calls ``then``.

    With ``keep_file_access`` the program may still enter folders that only root may, such as a checkout under /root: it
    keeps the one capability CAP_DAC_OVERRIDE as an ambient one and loses all others. Source: capabilities(7).
    """
    libc = ctypes.CDLL(None, use_errno=True)  # loaded before the fork: loading takes locks

    def change() -> None:
        if keep_file_access:
            libc.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0)
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
        if keep_file_access:
            _keep_only_file_access(libc)
        then()

    return change


def _keep_only_file_access(libc: ctypes.CDLL) -> None:
    mask = 1 << _CAP_DAC_OVERRIDE
    header = _CapabilityHeader(_CAPABILITY_VERSION_3, 0)
    sets = (_CapabilitySets * 2)(_CapabilitySets(mask, mask, mask), _CapabilitySets(0, 0, 0))
    kept = libc.capset(ctypes.byref(header), ctypes.byref(sets)) == 0
    if not kept or libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, _CAP_DAC_OVERRIDE, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "root's access to files could not be handed on")
