"""What a forked child does to itself before it reads a word of the tool. Nothing of it can be undone."""

import os
import platform
import resource
import signal
import sys
from dataclasses import dataclass

from shared.tools.sandbox.jail import landlock, seccomp
from shared.tools.sandbox.jail.kernel import die_with_parent, forbid_new_privileges, hide_memory

NOBODY = 65534
CHANNEL = 3
"""The descriptor over which a child speaks with its host; 0 is empty, 1 and 2 are the captured output."""

_SOME_PID = 0x7AC0FFEE
"""Stands for the child's own number in the filter, which is built once; greater than any process has."""

_MAX_DESCRIPTORS = 32
_MAX_PROCESSES = 256


@dataclass(frozen=True, slots=True)
class CallLimits:
    """What one call may use. ``wall_s`` counts from when the fork server takes it."""

    wall_s: float
    cpu_s: float
    memory_bytes: int
    workdir_bytes: int
    files: int
    threads: int


@dataclass(frozen=True, slots=True)
class Confinement:
    """What all children of a fork server share: prepared once, before the first fork."""

    is_root: bool
    landlock_abi: int
    base_ruleset: int | None
    rules: tuple[tuple[int, int], ...]
    own_memory_bytes: int
    filter: bytes

    @property
    def user(self) -> int | None:
        """The user that children become, where they can become another."""
        return NOBODY if self.is_root else None


def prepare(root: str, readable: list[str], *, with_landlock: bool) -> Confinement:
    """Open what every child needs. ``readable`` are files and folders that tools may read. Raises OSError."""
    abi = landlock.landlock_abi() if with_landlock else 0
    base: int | None = None
    folders: tuple[tuple[int, int], ...] = ()
    if abi:
        narrow = [(landlock.open_path(path), landlock.READ) for path in (*_standard_library(), *readable)]
        base = landlock.open_ruleset(
            abi, [*narrow, (landlock.open_path(root), landlock.WORK), (landlock.open_path(os.devnull), landlock.FILE)]
        )
        readable = [os.path.dirname(os.__file__), *readable, *_time_zones()]
        folders = tuple((landlock.open_path(path), landlock.READ) for path in readable)
        folders += ((landlock.open_path(os.devnull), landlock.FILE),)
    program = seccomp.pack(seccomp.build_filter(platform.machine(), _SOME_PID, has_paths=base is not None))
    return Confinement(os.geteuid() == 0, abi, base, folders, _own_memory(), program)


def confine(parent: int, folder: str, shared: Confinement) -> None:
    """Give up everything but the folder, the standard library and descriptors 0 to 3. Raises OSError.

    ``seal`` must follow before anything of a tool is read.
    """
    ruleset = _own_ruleset(folder, shared)
    os.chdir(folder)
    if shared.is_root:
        _become_nobody()
    die_with_parent(signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)  # it died before the kernel was told to tell us
    forbid_new_privileges()
    hide_memory()
    if ruleset is not None and shared.base_ruleset is not None:
        landlock.restrict(shared.base_ruleset)
        landlock.restrict(ruleset)
    os.closerange(CHANNEL + 1, 1 << 16)


def seal(shared: Confinement, limits: CallLimits) -> None:
    """Bound what may be used, then give up the system calls: the last thing done before the tool. Raises OSError."""
    _set_limits(shared, limits)
    seccomp.install(shared.filter.replace(_SOME_PID.to_bytes(4, sys.byteorder), os.getpid().to_bytes(4, sys.byteorder)))


def _standard_library() -> list[str]:
    """Its parts, without the folder of other people's packages inside it; and the time zones."""
    library = os.path.dirname(os.__file__)
    names = (name for name in os.listdir(library) if name not in ("site-packages", "dist-packages"))
    parts = [os.path.join(library, name) for name in names]
    return [part for part in parts if os.path.exists(part)] + _time_zones()  # some are links to what is not here


def _time_zones() -> list[str]:
    return [path for path in ("/usr/share/zoneinfo",) if os.path.isdir(path)]


def _own_ruleset(folder: str, shared: Confinement) -> int | None:
    """The second layer: of all calls' folders this one only. Both layers must agree to a right."""
    if shared.base_ruleset is None:
        return None
    rules = [*shared.rules, (landlock.open_path(folder), landlock.WORK)]
    return landlock.open_ruleset(shared.landlock_abi, rules)


def _set_limits(shared: Confinement, limits: CallLimits) -> None:
    bounds = {
        resource.RLIMIT_CPU: int(limits.cpu_s) + 2,  # behind the fork server's own finer count
        resource.RLIMIT_AS: shared.own_memory_bytes + limits.memory_bytes,
        resource.RLIMIT_FSIZE: limits.workdir_bytes,
        resource.RLIMIT_NOFILE: _MAX_DESCRIPTORS,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_MSGQUEUE: 0,
    }
    if shared.is_root:
        bounds[resource.RLIMIT_NPROC] = _MAX_PROCESSES  # of the user nobody; for our own it would count our processes
    for kind, bound in bounds.items():
        _, hard = resource.getrlimit(kind)
        value = bound if hard == resource.RLIM_INFINITY else min(bound, hard)
        resource.setrlimit(kind, (value, value))


def _become_nobody() -> None:
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)


def _own_memory() -> int:
    """Address space that a child has from the start, in bytes."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


def is_supported() -> bool:
    """Whether this machine is one whose system calls we know."""
    return sys.platform == "linux" and platform.machine() in seccomp.AUDIT_ARCH
