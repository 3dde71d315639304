"""Raw system calls, past everything that Python offers."""

import platform

from tests.attacks.model import Attack

_NUMBERS = {
    "socket": (41, 198),
    "socketpair": (53, 199),
    "ptrace": (101, 117),
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "io_uring_setup": (425, 425),
    "bpf": (321, 280),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "userfaultfd": (323, 282),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "perf_event_open": (298, 241),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    "pidfd_send_signal": (424, 424),
    "process_madvise": (440, 440),
    "open_by_handle_at": (304, 265),
    "name_to_handle_at": (303, 264),
    "openat2": (437, 437),
    "execveat": (322, 281),
    "personality": (135, 92),
    "shmget": (29, 194),
    "msgget": (68, 186),
    "semget": (64, 190),
    "inotify_init1": (294, 26),
    "fanotify_init": (300, 262),
    "seccomp": (317, 277),
    "prctl": (157, 167),
    "setuid": (105, 146),
    "setpriority": (141, 140),
    "sched_setaffinity": (203, 122),
    "rt_sigqueueinfo": (129, 138),
    "kexec_load": (246, 104),
    "init_module": (175, 105),
    "syslog": (103, 116),
    "chroot": (161, 51),
    "landlock_create_ruleset": (444, 444),
}
_COLUMN = 0 if platform.machine() == "x86_64" else 1

_CALL = """import ctypes
def run(args):
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(4096)
    answer = libc.syscall({number}, *{arguments})
    return "reached" if answer >= 0 else ctypes.get_errno()"""

# Arguments that are wrong on purpose: a call that is let in says so (EINVAL, EFAULT); one that is kept out says EPERM.
_ARGUMENTS = {
    "socket": "(2, 1, 0)",
    "memfd_create": "(b'x', 0)",
    "unshare": "(0x10000000,)",
    "ptrace": "(16, args['victim'], 0, 0)",
    "pidfd_open": "(args['victim'], 0)",
    "process_vm_readv": "(args['victim'], 0, 0, 0, 0, 0)",
    "personality": "(0,)",
    "setuid": "(65534,)",
    "rt_sigqueueinfo": "(args['victim'], 9, buffer)",
}
_EPERM, _ENOSYS = 1, 38
_SHOWN_OUTSIDE = ("socket", "memfd_create", "personality", "inotify_init1", "pidfd_open", "ptrace")


def _raw(name: str) -> Attack:
    code = _CALL.format(number=_NUMBERS[name][_COLUMN], arguments=_ARGUMENTS.get(name, "(-1, -1, -1, -1, -1, -1)"))
    return Attack(
        f"system call {name}",
        code,
        lambda _, value: value is not None and value not in (_EPERM, _ENOSYS),
        group="system calls",
        is_control=name in _SHOWN_OUTSIDE,
    )


_MACHINE_CODE = """import ctypes, mmap
def run(args):
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(bytes.fromhex({code!r}))
    function = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
    return "reached" if function() > 0 else None"""

ATTACKS = [
    *(_raw(name) for name in _NUMBERS),
    Attack(
        "32-bit system call by int 0x80",
        _MACHINE_CODE.format(code="b814000000cd80c3"),  # mov eax, 20 (getpid); int 0x80; ret
        lambda _, value: value == "reached",
        group="system calls",
        machine="x86_64",
        is_control=False,  # not every kernel has the 32-bit table
    ),
    Attack(
        "x32 system call",
        _CALL.format(number=0x40000000 | 39, arguments="()"),
        lambda _, value: value is not None,
        group="system calls",
        machine="x86_64",
        is_control=False,
    ),
    Attack(
        "fork by clone without CLONE_THREAD",
        "import ctypes, os\n"
        + _CALL.format(number=(56, 220)[_COLUMN], arguments="(17, 0, 0, 0, 0)").removeprefix("import ctypes\n"),
        lambda _, value: value is not None and value not in (_EPERM, _ENOSYS),
        group="system calls",
        is_control=False,  # two processes would answer
    ),
    Attack(
        "fork by clone3",
        _CALL.format(number=435, arguments="(buffer, 64)"),
        lambda _, value: value is not None and value not in (_EPERM, _ENOSYS),
        group="system calls",
    ),
]
