"""Opening a file beneath a folder so that no link, ``..`` or race can lead out of it.

``openat2`` has the kernel hold to that; where it is missing each step of the path is opened by itself, without links.
"""

import ctypes
import errno
import os
import struct
import sys
from functools import cache
from typing import Final

_OPENAT2: Final = 437
"""On every architecture. Source: openat2(2); struct open_how {u64 flags; u64 mode; u64 resolve;}"""
_NO_XDEV, _NO_MAGICLINKS, _NO_SYMLINKS, _BENEATH = 1, 2, 4, 8
_RESOLVE = _NO_XDEV | _NO_MAGICLINKS | _NO_SYMLINKS | _BENEATH
_TRIES = 8
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def open_beneath(folder: int, path: str, flags: int) -> int:
    """A descriptor of ``path`` beneath the open ``folder``. Raises OSError, also for any way out of the folder."""
    flags |= os.O_NOFOLLOW | os.O_CLOEXEC
    if _has_openat2():
        return _openat2(folder, path, flags)
    return _step_by_step(folder, path, flags)


def make_folders(folder: int, path: str) -> int:
    """A descriptor of the folder ``path`` beneath ``folder``, made with those above it. Raises OSError."""
    current = os.dup(folder)
    for name in _names(path):
        try:
            os.mkdir(name, 0o700, dir_fd=current)
        except FileExistsError:
            pass
        except OSError:
            os.close(current)
            raise
        current = _descend(current, name)
    return current


@cache
def _has_openat2() -> bool:
    if sys.platform != "linux":
        return False
    here = os.open(".", _FOLDER)
    try:
        os.close(_openat2(here, ".", _FOLDER))
    except OSError:
        return False
    finally:
        os.close(here)
    return True


def _openat2(folder: int, path: str, flags: int) -> int:
    how = struct.pack("=QQQ", flags, 0o600 if flags & os.O_CREAT else 0, _RESOLVE)
    name = ctypes.c_char_p(os.fsencode(path))
    for _ in range(_TRIES):
        opened = int(_libc().syscall(_OPENAT2, folder, name, how, ctypes.c_size_t(len(how))))
        if opened >= 0:
            return opened
        if ctypes.get_errno() != errno.EAGAIN:  # something was renamed while the kernel looked
            break
    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), path)


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _step_by_step(folder: int, path: str, flags: int) -> int:
    names = _names(path)
    if not names:
        return os.open(".", flags, dir_fd=folder)
    current = os.dup(folder)
    for name in names[:-1]:
        current = _descend(current, name)
    try:
        return os.open(names[-1], flags, 0o600, dir_fd=current)
    finally:
        os.close(current)


def _descend(current: int, name: str) -> int:
    """The folder ``name`` in ``current``, which is closed."""
    try:
        return os.open(name, _FOLDER, dir_fd=current)
    finally:
        os.close(current)


def _names(path: str) -> list[str]:
    names = [name for name in path.split("/") if name not in ("", ".")]
    if path.startswith("/") or ".." in names:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), path)
    return names
