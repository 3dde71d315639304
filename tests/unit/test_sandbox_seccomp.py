"""The seccomp program on both architectures, run by a small interpreter of classic BPF."""

import ctypes
import re
import struct
import subprocess
from errno import ENOSYS, EPERM
from pathlib import Path

import pytest

from shared.tools.sandbox.jail.seccomp import ALLOW, AUDIT_ARCH, ERRNO, KILL, X32_BIT, build_filter, pack
from shared.tools.sandbox.jail.syscalls import ALLOWED, PATHS

MACHINES = ["x86_64", "aarch64"]
PID = 4321
DENIED = ERRNO | EPERM
CLONE_VM, CLONE_THREAD, CLONE_NEWUSER, SIGCHLD = 0x100, 0x10000, 0x10000000, 17
POINTER = 0x7F00_0000_1000

FORBIDDEN = {
    "socket": (41, 198),
    "socketpair": (53, 199),
    "connect": (42, 203),
    "execve": (59, 221),
    "execveat": (322, 281),
    "ptrace": (101, 117),
    "unshare": (272, 97),
    "mount": (165, 40),
    "io_uring_setup": (425, 425),
    "bpf": (321, 280),
    "keyctl": (250, 219),
    "userfaultfd": (323, 282),
    "memfd_create": (319, 279),
    "process_vm_readv": (310, 270),
    "perf_event_open": (298, 241),
    "pidfd_open": (434, 434),
    "fork": (57, None),
    "vfork": (58, None),
    "symlinkat": (266, 36),
    "linkat": (265, 37),
    "mknodat": (259, 33),
    "fchmodat": (268, 53),
    "setuid": (105, 146),
    "prctl": (157, 167),
    "seccomp": (317, 277),
    "chroot": (161, 51),
    "sendmsg": (46, 211),
}


def number(name: str, machine: str) -> int | None:
    """Of an allowed or a forbidden call."""
    numbers = ALLOWED[name] if name in ALLOWED else FORBIDDEN[name]
    return numbers[MACHINES.index(machine)]


def evaluate(program, nr: int, args: tuple[int, ...] = (), arch: int | None = None, machine: str = "x86_64") -> int:
    """What the kernel would do: RET's value. Checks every jump as the kernel's verifier does."""
    arch = AUDIT_ARCH[machine] if arch is None else arch
    data = struct.pack("=IIQ6Q", nr & 0xFFFFFFFF, arch, 0, *(args + (0,) * 6)[:6])
    at, accumulator = 0, 0
    while True:
        code, if_true, if_false, k = program[at]
        at += 1
        if code == 0x20:
            assert k % 4 == 0
            assert k < len(data)
            accumulator = struct.unpack_from("=I", data, k)[0]
        elif code == 0x06:
            return k
        else:
            holds = {0x15: accumulator == k, 0x35: accumulator >= k, 0x45: bool(accumulator & k)}[code]
            at += if_true if holds else if_false
        assert at < len(program)


@pytest.fixture(params=MACHINES)
def machine(request) -> str:
    return request.param


@pytest.fixture
def decide(machine):
    program = build_filter(machine, PID)

    def decide(name: str, *args: int) -> int:
        nr = number(name, machine)
        assert nr is not None
        return evaluate(program, nr, args, machine=machine)

    return decide


def test_the_program_is_well_formed(machine):
    program = build_filter(machine, PID)
    assert len(program) < 4096  # BPF_MAXINSNS
    assert len(pack(program)) == 8 * len(program)
    for position, (code, if_true, if_false, _) in enumerate(program):
        if code not in (0x20, 0x06):
            assert position + 1 + max(if_true, if_false) < len(program)
            assert max(if_true, if_false) < 256


def test_every_number_that_is_not_allowed_is_denied(machine):
    program = build_filter(machine, PID)
    allowed = {number(name, machine) for name in ALLOWED}
    for nr in range(1024):
        verdict = evaluate(program, nr, machine=machine)
        assert nr in allowed or verdict == DENIED, nr


@pytest.mark.parametrize("name", FORBIDDEN)
def test_forbidden(machine, decide, name):
    if number(name, machine) is not None:
        assert decide(name) == DENIED


def test_another_architecture_is_killed(machine):
    program = build_filter(machine, PID)
    for arch in (0x40000003, 0x40000028, *(AUDIT_ARCH[other] for other in MACHINES if other != machine), 0):
        assert evaluate(program, number("read", machine) or 0, arch=arch) == KILL


def test_x32_is_killed():
    program = build_filter("x86_64", PID)
    for nr in (X32_BIT, X32_BIT | 39, 0xFFFFFFFF):
        assert evaluate(program, nr) == KILL


def test_threads_but_no_processes(decide):
    assert decide("clone", CLONE_VM | CLONE_THREAD) == ALLOW
    for flags in (0, SIGCHLD, CLONE_VM | SIGCHLD, CLONE_NEWUSER | SIGCHLD):
        assert decide("clone", flags) == DENIED
    assert decide("clone3", POINTER, 88) == ERRNO | ENOSYS


def test_signals_to_itself_only(decide):
    for name in ("kill", "tgkill"):
        assert decide(name, PID, PID, 9) == ALLOW
        for other in (1, 0, 0xFFFFFFFF, PID + 1):
            assert decide(name, other, PID, 9) == DENIED


def test_limits_are_read_not_set(decide):
    assert decide("prlimit64", 0, 7, 0, POINTER) == ALLOW
    assert decide("prlimit64", 0, 7, POINTER, 0) == DENIED
    assert decide("prlimit64", 0, 7, POINTER & ~0xFFFFFFFF, 0) == DENIED
    assert decide("prlimit64", 1, 7, 0, POINTER) == DENIED


def test_descriptors_cannot_signal_or_seal(decide):
    for command in (0, 1, 2, 3, 4, 5, 6, 7, 1030):
        assert decide("fcntl", 3, command) == ALLOW
    for command in (8, 10, 15, 1024, 1026, 1031, 1033):  # SETOWN, SETSIG, SETOWN_EX, SETLEASE, NOTIFY, pipe size, seals
        assert decide("fcntl", 3, command) == DENIED
    assert decide("ioctl", 1, 0x5401) == ALLOW
    for command in (0x5412, 0x5413, 0x8901, 0x40049409):  # TIOCSTI, TIOCGWINSZ, FIOSETOWN, FICLONE
        assert decide("ioctl", 1, command) == DENIED


def test_no_unnamed_files(machine, decide):
    assert decide("openat", 3, POINTER, 0o2) == ALLOW
    assert decide("openat", 3, POINTER, 0o20200002) == DENIED
    if machine == "x86_64":
        assert decide("open", POINTER, 0o20200002) == DENIED


def test_without_paths_no_call_names_a_file(machine):
    program = build_filter(machine, PID, has_paths=False)
    for name in PATHS:
        nr = number(name, machine)
        assert nr is None or evaluate(program, nr, machine=machine) == DENIED
    assert evaluate(program, number("read", machine) or 0, machine=machine) == ALLOW


HEADERS = {
    "x86_64": "#include <asm/unistd_64.h>\n",
    "aarch64": "#define __BITS_PER_LONG 64\n#define __ARCH_WANT_SET_GET_RLIMIT\n#define __ARCH_WANT_RENAMEAT\n"
    "#define __ARCH_WANT_SYS_CLONE3\n#define __ARCH_WANT_NEW_STAT\n#include <asm-generic/unistd.h>\n",
}


def test_the_numbers_are_those_of_the_kernel_headers(machine):
    names = {**ALLOWED, **FORBIDDEN}
    source = HEADERS[machine] + "".join(f"\n#ifdef __NR_{name}\nHAS {name} __NR_{name}\n#endif\n" for name in names)
    try:
        done = subprocess.run(["cc", "-E", "-P", "-"], input=source, capture_output=True, text=True, check=True)
    except (FileNotFoundError, subprocess.CalledProcessError):
        pytest.skip("a C compiler with the kernel's headers is not installed")
    found = {name: int(nr) for name, nr in re.findall(r"HAS (\w+) (\d+)", done.stdout)}
    if machine == "x86_64" and "fork" not in found:
        pytest.skip("the headers are of another architecture")
    for name in names:
        assert found.get(name) == number(name, machine), name


def test_pointers_fit_the_filter_program():
    assert ctypes.sizeof(ctypes.c_void_p) == 8


def test_the_jail_imports_nothing_but_the_standard_library():
    folder = Path("shared/tools/sandbox/jail")
    for path in folder.glob("*.py"):
        text = path.read_text()
        for module in re.findall(r"^(?:from|import) (shared\.\S+)", text, re.MULTILINE):
            assert module.startswith("shared.tools.sandbox.jail"), path
