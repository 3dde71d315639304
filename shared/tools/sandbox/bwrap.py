"""The ``bwrap+jail`` backend: the same fork server inside namespaces that bubblewrap makes once, not per call."""

import os
import shutil
import sys

from shared.settings import ROOT
from shared.tools.sandbox.jail_backend import Jail, JailOptions, python_command
from shared.tools.sandbox.port import MB

_SYSTEM = ("/usr", "/lib", "/lib64", "/bin", "/etc/ld.so.cache", "/etc/alternatives")
_TMPFS_BYTES = 256 * MB
_NOBODY = "65534"


def find_bwrap() -> str | None:
    """Where bubblewrap is installed."""
    return shutil.which("bwrap")


def bwrap_command(bwrap: str, readable: tuple[str, ...]) -> list[str]:
    """Starts the fork server beside nothing but an interpreter, our jail's code and a /tmp of its own.

    There is no network and no other process, and the kernel bounds the files of all calls together.
    """
    seen = [path for path in (*_SYSTEM, sys.base_prefix, *readable, *_own_code()) if os.path.exists(path)]
    binds = [part for path in dict.fromkeys(seen) for part in ("--ro-bind", path, path)]
    return [
        *(bwrap, "--unshare-user", "--unshare-all", "--uid", _NOBODY, "--gid", _NOBODY, "--cap-drop", "ALL"),
        *("--die-with-parent", "--new-session", "--clearenv", "--hostname", "sandbox"),
        *("--size", str(_TMPFS_BYTES), "--tmpfs", "/tmp"),  # noqa: S108 - a path inside the namespace
        *binds,
        *("--proc", "/proc", "--dev", "/dev", "--chdir", "/", "--"),
        *python_command(),
    ]


def open_bwrap_jail(bwrap: str, options: JailOptions | None = None) -> Jail:
    """A jail in namespaces."""
    options = options or JailOptions()
    return Jail(options, name="bwrap+jail", command=bwrap_command(bwrap, (*options.readable, *options.path)))


def _own_code() -> tuple[str, ...]:
    shared = ROOT / "shared"
    return (str(shared / "__init__.py"), str(shared / "tools" / "__init__.py"), str(shared / "tools" / "sandbox"))
