"""Landlock: which files a process may touch, from here on and for good.

Source: docs.kernel.org/userspace-api/landlock.html. The three calls have the same numbers on every architecture.
"""

import ctypes
import os
import stat
import struct
from collections.abc import Iterable
from typing import Final

from shared.tools.sandbox.jail.kernel import check, libc

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION_FLAG, _PATH_BENEATH = 1, 1

WRITE_FILE: Final = 1 << 1
READ_FILE: Final = 1 << 2
READ_DIR: Final = 1 << 3
_REMOVE_DIR, _REMOVE_FILE, _MAKE_DIR, _MAKE_REG = 1 << 4, 1 << 5, 1 << 7, 1 << 8
_REFER, _TRUNCATE, _IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15

READ: Final = READ_FILE | READ_DIR
FILE: Final = READ_FILE | WRITE_FILE
WORK: Final = READ | WRITE_FILE | _REMOVE_DIR | _REMOVE_FILE | _MAKE_DIR | _MAKE_REG | _REFER | _TRUNCATE
"""What a tool may do in its folder: no links, sockets, pipes or devices."""

_FILE_RIGHTS = READ_FILE | WRITE_FILE | _TRUNCATE
_FIRST_RIGHTS = (1 << 13) - 1
_BIND_AND_CONNECT_TCP = 3
_ABSTRACT_SOCKETS_AND_SIGNALS = 3


def landlock_abi() -> int:
    """The kernel's version of Landlock; 0 where it has none or it is switched off."""
    return max(0, int(libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION_FLAG)))


def handled_rights(abi: int) -> int:
    """Every right over files that this version can deny."""
    return (
        _FIRST_RIGHTS | (_REFER if abi >= 2 else 0) | (_TRUNCATE if abi >= 3 else 0) | (_IOCTL_DEV if abi >= 5 else 0)
    )


def ruleset_attributes(abi: int) -> bytes:
    """struct landlock_ruleset_attr {u64 files; u64 net; u64 scoped;}, as long as this version knows it."""
    fields = [handled_rights(abi)]
    if abi >= 4:
        fields.append(_BIND_AND_CONNECT_TCP)
    if abi >= 6:
        fields.append(_ABSTRACT_SOCKETS_AND_SIGNALS)
    return struct.pack(f"={len(fields)}Q", *fields)


def open_ruleset(abi: int, rules: Iterable[tuple[int, int]]) -> int:
    """A descriptor of a ruleset that denies all but the rights given beneath each (path descriptor, rights).

    Raises OSError.
    """
    attributes = ruleset_attributes(abi)
    ruleset = check(
        libc.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0), "landlock_create_ruleset"
    )
    for path, rights in rules:
        rule = struct.pack("=Qi", _fitting(path, rights) & handled_rights(abi), path)
        check(libc.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0), "landlock_add_rule")
    return ruleset


def restrict(ruleset: int) -> None:
    """Put this thread, and what it starts, under the ruleset; an earlier one stays in force. Raises OSError."""
    check(libc.syscall(_RESTRICT_SELF, ruleset, 0), "landlock_restrict_self")


def open_path(path: str) -> int:
    """A descriptor that only names the file, for a rule. Raises OSError."""
    return os.open(path, os.O_PATH | os.O_CLOEXEC)


def _fitting(path: int, rights: int) -> int:
    """A rule about a file may hold only rights that files have."""
    return rights if stat.S_ISDIR(os.fstat(path).st_mode) else rights & _FILE_RIGHTS
