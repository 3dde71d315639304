"""The seccomp filter: an allow-list as classic BPF, put together by hand for x86-64 and arm64.

Source: docs.kernel.org/userspace-api/seccomp_filter.html; struct seccomp_data {int nr; u32 arch; u64 ip; u64 args[6];}
Both architectures are little-endian: the low half of argument ``i`` is at 16 + 8 i.
"""

import ctypes
import struct
from collections.abc import Callable
from errno import ENOSYS, EPERM
from typing import Final, NamedTuple

from shared.tools.sandbox.jail.kernel import check, libc
from shared.tools.sandbox.jail.syscalls import ALLOWED, PATHS, Numbers

AUDIT_ARCH: Final = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
X32_BIT: Final = 0x40000000

KILL: Final = 0x80000000
ALLOW: Final = 0x7FFF0000
ERRNO: Final = 0x00050000

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCH, _ARGUMENTS = 0, 4, 16

_CLONE_THREAD = 0x00010000
_O_TMPFILE = 0o20000000
_F_SETLKW, _F_DUPFD_CLOEXEC = 7, 1030
_TCGETS, _FIONCLEX, _FIOCLEX = 0x5401, 0x5450, 0x5451

_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2


class Instruction(NamedTuple):
    """One BPF instruction; jumps count from the next one."""

    code: int
    if_true: int
    if_false: int
    k: int


Block = list[Instruction]
"""Instructions that always end in a return."""

_DENY: Final = Instruction(_RETURN, 0, 0, ERRNO | EPERM)
_PERMIT: Final = Instruction(_RETURN, 0, 0, ALLOW)


def build_filter(machine: str, pid: int, *, has_paths: bool = True) -> Block:
    """The filter of the process ``pid`` on ``x86_64`` or ``aarch64``; without paths no call may name a file.

    Raises KeyError for another machine.
    """
    program = [*_check_arch(machine), _load(_NUMBER)]
    if machine == "x86_64":
        program += [Instruction(_AT_LEAST, 0, 1, X32_BIT), Instruction(_RETURN, 0, 0, KILL)]
    for name, numbers in ALLOWED.items():
        number = _number(numbers, machine)
        if number is not None and (has_paths or name not in PATHS):
            body = _RULES.get(name, _permit)(pid)
            program += [Instruction(_EQUAL, 0, len(body), number), *body]
    return [*program, _DENY]


def pack(program: Block) -> bytes:
    """As the kernel reads it: struct sock_filter {u16 code; u8 jt; u8 jf; u32 k;}."""
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)


def install(packed: bytes) -> None:
    """Put this thread, and what it starts, under the filter for good. Raises OSError."""
    code = ctypes.create_string_buffer(packed, len(packed))
    program = _FilterProgram(len(packed) // 8, ctypes.cast(code, ctypes.c_void_p))
    check(libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0), "seccomp")


class _FilterProgram(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def _number(numbers: Numbers, machine: str) -> int | None:
    return numbers.x86_64 if machine == "x86_64" else numbers.arm64


def _check_arch(machine: str) -> Block:
    return [
        _load(_ARCH),
        Instruction(_EQUAL, 1, 0, AUDIT_ARCH[machine]),
        Instruction(_RETURN, 0, 0, KILL),
    ]


def _load(offset: int) -> Instruction:
    return Instruction(_LOAD, 0, 0, offset)


def _low(argument: int) -> int:
    return _ARGUMENTS + 8 * argument


def _permit(_: int) -> Block:
    return [_PERMIT]


def _one_of(argument: int, *values: int) -> Block:
    """Allow when the low half of the argument is one of the values; the kernel takes these arguments as 32 bits."""
    tests = [Instruction(_EQUAL, len(values) - position, 0, value) for position, value in enumerate(values)]
    return [_load(_low(argument)), *tests, _DENY, _PERMIT]


def _own_pid(pid: int) -> Block:
    return _one_of(0, pid)


def _threads_only(_: int) -> Block:
    return [_load(_low(0)), Instruction(_ANY_BIT, 0, 1, _CLONE_THREAD), _PERMIT, _DENY]


def _absent(_: int) -> Block:
    """The C library falls back to ``clone``, whose flags a filter can read."""
    return [Instruction(_RETURN, 0, 0, ERRNO | ENOSYS)]


def _no_unnamed_files(argument: int) -> Block:
    return [_load(_low(argument)), Instruction(_ANY_BIT, 0, 1, _O_TMPFILE), _DENY, _PERMIT]


def _read_own_limits(_: int) -> Block:
    """prlimit64(pid 0, resource, new = NULL, old): a pointer has two halves."""
    return [
        _load(_low(0)),
        Instruction(_EQUAL, 0, 4, 0),
        _load(_low(2)),
        Instruction(_EQUAL, 0, 2, 0),
        _load(_low(2) + 4),
        Instruction(_EQUAL, 1, 0, 0),
        _DENY,
        _PERMIT,
    ]


_RULES: Final[dict[str, Callable[[int], Block]]] = {
    "clone": _threads_only,
    "clone3": _absent,
    "kill": _own_pid,
    "tgkill": _own_pid,
    "open": lambda _: _no_unnamed_files(1),
    "openat": lambda _: _no_unnamed_files(2),
    "prlimit64": _read_own_limits,
    "fcntl": lambda _: _one_of(1, *range(_F_SETLKW + 1), _F_DUPFD_CLOEXEC),
    "ioctl": lambda _: _one_of(1, _TCGETS, _FIOCLEX, _FIONCLEX),
}
