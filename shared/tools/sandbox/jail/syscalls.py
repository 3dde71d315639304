"""The system calls that a tool may make, with their numbers on each architecture.

Sources: linux arch/x86/entry/syscalls/syscall_64.tbl; include/uapi/asm-generic/unistd.h with what
arch/arm64/include/uapi/asm/unistd.h switches on (renameat, clone3, getrlimit).
"""

from typing import Final, NamedTuple


class Numbers(NamedTuple):
    """One call's number on x86-64 and on arm64; None where the architecture lacks it."""

    x86_64: int | None
    arm64: int | None


def _table(rows: dict[str, tuple[int | None, int | None]]) -> dict[str, Numbers]:
    return {name: Numbers(*numbers) for name, numbers in rows.items()}


DESCRIPTORS: Final = _table(
    {
        "read": (0, 63),
        "write": (1, 64),
        "readv": (19, 65),
        "writev": (20, 66),
        "pread64": (17, 67),
        "pwrite64": (18, 68),
        "lseek": (8, 62),
        "close": (3, 57),
        "close_range": (436, 436),
        "dup": (32, 23),
        "dup2": (33, None),
        "dup3": (292, 24),
        "fcntl": (72, 25),
        "ioctl": (16, 29),
        "fstat": (5, 80),
        "ftruncate": (77, 46),
        "fsync": (74, 82),
        "fdatasync": (75, 83),
        "pipe": (22, None),
        "pipe2": (293, 59),
        "poll": (7, None),
        "ppoll": (271, 73),
        "select": (23, None),
        "pselect6": (270, 72),
    }
)

PATHS: Final = _table(
    {
        "open": (2, None),
        "openat": (257, 56),
        "stat": (4, None),
        "lstat": (6, None),
        "newfstatat": (262, 79),
        "statx": (332, 291),
        "access": (21, None),
        "faccessat": (269, 48),
        "faccessat2": (439, 439),
        "getdents64": (217, 61),
        "readlink": (89, None),
        "readlinkat": (267, 78),
        "chdir": (80, 49),
        "fchdir": (81, 50),
        "getcwd": (79, 17),
        "mkdir": (83, None),
        "mkdirat": (258, 34),
        "unlink": (87, None),
        "unlinkat": (263, 35),
        "rmdir": (84, None),
        "rename": (82, None),
        "renameat": (264, 38),
        "renameat2": (316, 276),
    }
)
"""Calls that name a file. Without Landlock to confine them none is allowed."""

MEMORY: Final = _table(
    {
        "mmap": (9, 222),
        "mprotect": (10, 226),
        "munmap": (11, 215),
        "mremap": (25, 216),
        "brk": (12, 214),
        "madvise": (28, 233),
    }
)

SIGNALS: Final = _table(
    {
        "rt_sigaction": (13, 134),
        "rt_sigprocmask": (14, 135),
        "rt_sigreturn": (15, 139),
        "rt_sigpending": (127, 136),
        "rt_sigtimedwait": (128, 137),
        "rt_sigsuspend": (130, 133),
        "sigaltstack": (131, 132),
        "pause": (34, None),
        "alarm": (37, None),
        "setitimer": (38, 103),
        "getitimer": (36, 102),
        "kill": (62, 129),
        "tgkill": (234, 131),
    }
)

PROCESS: Final = _table(
    {
        "clone": (56, 220),
        "clone3": (435, 435),
        "exit": (60, 93),
        "exit_group": (231, 94),
        "futex": (202, 98),
        "set_robust_list": (273, 99),
        "get_robust_list": (274, 100),
        "set_tid_address": (218, 96),
        "rseq": (334, 293),
        "sched_yield": (24, 124),
        "sched_getaffinity": (204, 123),
        "getcpu": (309, 168),
        "restart_syscall": (219, 128),
        "getpid": (39, 172),
        "gettid": (186, 178),
        "getppid": (110, 173),
        "getpgrp": (111, None),
        "getpgid": (121, 155),
        "getsid": (124, 156),
        "getuid": (102, 174),
        "geteuid": (107, 175),
        "getgid": (104, 176),
        "getegid": (108, 177),
        "getresuid": (118, 148),
        "getresgid": (120, 150),
        "getgroups": (115, 158),
        "umask": (95, 166),
        "uname": (63, 160),
        "sysinfo": (99, 179),
        "getrusage": (98, 165),
        "times": (100, 153),
        "getrlimit": (97, 163),
        "prlimit64": (302, 261),
    }
)

CLOCKS: Final = _table(
    {
        "clock_gettime": (228, 113),
        "clock_getres": (229, 114),
        "clock_nanosleep": (230, 115),
        "nanosleep": (35, 101),
        "gettimeofday": (96, 169),
        "time": (201, None),
        "getrandom": (318, 278),
    }
)

ALLOWED: Final = {**DESCRIPTORS, **PATHS, **MEMORY, **SIGNALS, **PROCESS, **CLOCKS}
"""Everything else answers EPERM. What of these looks at its arguments is in ``seccomp.py``."""
