"""The folder of one call: made empty, measured while the tool runs, removed with whatever the tool left in it."""

import fcntl
import os
import secrets
import stat
import tempfile
from dataclasses import dataclass

_PREFIX = "daarion-jail."
_MAX_DEPTH = 12


class Vanished(Exception):
    """What was listed a moment ago is gone: the tool moves its files while they are counted."""


@dataclass(slots=True)
class _Room:
    bytes: int
    files: int


def make_root() -> tuple[str, int]:
    """A folder for this fork server's calls and a descriptor that marks it as in use; removes those of dead servers.

    Others may pass through it, not list it.
    """
    parent = tempfile.gettempdir()
    for name in os.listdir(parent):
        if name.startswith(_PREFIX):
            _remove_if_stale(os.path.join(parent, name))
    root = tempfile.mkdtemp(prefix=_PREFIX, dir=parent)
    mark = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    fcntl.flock(mark, fcntl.LOCK_EX)
    os.chmod(root, 0o711)  # noqa: S103 - the tool's user must get to its own folder below
    return root, mark


def make_folder(root: str, owner: int | None) -> str:
    """An empty folder for one call, of the user ``owner`` where that is another."""
    folder = tempfile.mkdtemp(dir=root)
    if owner is not None:
        os.chown(folder, owner, owner)
    return folder


def overuse(folder: str, max_bytes: int, max_files: int) -> str | None:
    """``disk`` or ``files`` when the folder holds more than it may, else None. Raises Vanished."""
    room = _Room(max_bytes, max_files)
    try:
        return _count(folder, room, _MAX_DEPTH)
    except FileNotFoundError as error:
        raise Vanished from error
    except OSError:
        return "files"  # made unreadable, or too deep to name


def hidden_bytes(pid: int) -> int:
    """Bytes of files that the process removed and still holds open; 0 where the system does not let us look."""
    total = 0
    try:
        for name in os.listdir(f"/proc/{pid}/fd"):
            entry = os.stat(f"/proc/{pid}/fd/{name}")
            if stat.S_ISREG(entry.st_mode) and entry.st_nlink == 0:
                total += entry.st_size
    except OSError:
        return total
    return total


def remove_folder(folder: str) -> None:
    """Remove the folder and all in it, however deep: each level is moved up before it is removed.

    No process may use it any more.
    """
    top = _open_folder(folder, None)
    try:
        while names := os.listdir(top):
            for name in names:
                _remove_entry(top, name)
    finally:
        os.close(top)
    os.rmdir(folder)


def _count(folder: str, room: _Room, depth: int) -> str | None:
    with os.scandir(folder) as entries:
        for entry in entries:
            facts = entry.stat(follow_symlinks=False)
            room.files -= 1
            room.bytes -= max(facts.st_size, facts.st_blocks * 512)
            if room.files < 0 or depth == 0:
                return "files"
            if room.bytes < 0:
                return "disk"
            if stat.S_ISDIR(facts.st_mode) and (over := _count(entry.path, room, depth - 1)):
                return over
    return None


def _remove_entry(top: int, name: str) -> None:
    try:
        os.unlink(name, dir_fd=top)
    except (IsADirectoryError, PermissionError):
        os.chmod(name, 0o700, dir_fd=top)
        _lift(top, name)
        os.rmdir(name, dir_fd=top)


def _lift(top: int, name: str) -> None:
    """Move what is in the folder ``name`` up into ``top``."""
    folder = _open_folder(name, top)
    try:
        for entry in os.listdir(folder):
            if stat.S_ISDIR(os.stat(entry, dir_fd=folder, follow_symlinks=False).st_mode):
                os.chmod(entry, 0o700, dir_fd=folder)
            os.rename(entry, secrets.token_hex(12), src_dir_fd=folder, dst_dir_fd=top)
    finally:
        os.close(folder)


def _open_folder(name: str, parent: int | None) -> int:
    return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)


def _remove_if_stale(root: str) -> None:
    try:
        mark = _open_folder(root, None)
    except OSError:
        return
    try:
        fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
        remove_folder(root)
    except OSError:
        return  # in use, or another's
    finally:
        os.close(mark)
