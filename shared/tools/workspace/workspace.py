"""One agent's folder: what is in it, read and written under caps, whatever lies or is planted there."""

import errno
import fcntl
import hashlib
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

from shared.tools.model import ToolFailed
from shared.tools.workspace.beneath import make_folders, open_beneath

MAX_BYTES: Final = 16_000_000
MAX_FILES: Final = 500
MAX_FILE_BYTES: Final = 1_000_000
_MAX_PATH = 500
_MAX_DEPTH = 10  # a copy with its tests must fit the sandbox, which counts 12 levels
_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of the workspace, by its path from the top."""

    path: str
    bytes: int


class Workspace:
    """Each method blocks its thread for as long as the disk takes. Raises ToolFailed for what the agent did wrong."""

    def __init__(self, root: Path, microdao_id: str, agent_id: str) -> None:
        self._folder = root / _folder_name(microdao_id) / _folder_name(agent_id)

    def list_files(self, path: str = ".") -> list[Entry]:
        """Every file beneath the folder ``path``, by path."""
        with self._opened() as top:
            return sorted(_walk(top, _checked(path)), key=lambda entry: entry.path)

    def is_folder(self, path: str) -> bool:
        """Whether ``path`` is a folder."""
        with self._opened() as top, _explained(path):
            descriptor = open_beneath(top, _checked(path), os.O_RDONLY | os.O_NONBLOCK)
            with _closing(descriptor):
                return stat.S_ISDIR(os.fstat(descriptor).st_mode)

    def read(self, path: str) -> bytes:
        """The whole file."""
        with self._opened() as top:
            return _read(top, _checked(path))

    def write(self, path: str, content: bytes) -> None:
        """Make or replace a file, at once or not at all."""
        path = _file(path)
        if len(content) > MAX_FILE_BYTES:
            raise ToolFailed(f"a file may have {MAX_FILE_BYTES:,} bytes, not {len(content):,}")
        with self._locked() as top:
            _check_room(top, path, len(content))
            parent, _, name = path.rpartition("/")
            with _explained(path):
                folder = make_folders(top, parent)
                with _closing(folder):
                    _replace(folder, name, content)

    def remove(self, path: str) -> None:
        """Remove a file; folders that it leaves empty stay."""
        parent, _, name = _file(path).rpartition("/")
        with self._locked() as top, _explained(path):
            folder = open_beneath(top, parent or ".", _OPEN_FOLDER)
            with _closing(folder):
                os.unlink(name, dir_fd=folder)

    @contextmanager
    def _opened(self) -> Iterator[int]:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self._folder, _OPEN_FOLDER | os.O_NOFOLLOW | os.O_CLOEXEC)
        with _closing(descriptor):
            yield descriptor

    @contextmanager
    def _locked(self) -> Iterator[int]:
        """One writer at a time, so that two cannot both take the last free bytes."""
        with self._opened() as top:
            fcntl.flock(top, fcntl.LOCK_EX)
            yield top


def _folder_name(identifier: str) -> str:
    """Readable, and different for different ids on any file system."""
    return f"{quote(identifier, safe='')[:60]}-{hashlib.sha256(identifier.encode()).hexdigest()[:16]}"


def _checked(path: str) -> str:
    names = [name for name in path.split("/") if name not in ("", ".")]
    if path.startswith("/") or ".." in names or "\0" in path:
        raise ToolFailed(f"{path[:100]!r} is not a path inside the workspace; give one like src/app.py")
    if len(path.encode()) > _MAX_PATH or len(names) > _MAX_DEPTH:
        raise ToolFailed(f"a path may have {_MAX_PATH} bytes and {_MAX_DEPTH} parts")
    return "/".join(names) or "."


def _file(path: str) -> str:
    checked = _checked(path)
    if checked == ".":
        raise ToolFailed("name a file inside the workspace, such as src/app.py")
    return checked


def _read(top: int, path: str) -> bytes:
    with _explained(path):
        descriptor = open_beneath(top, path, os.O_RDONLY | os.O_NONBLOCK)
        with _closing(descriptor):
            facts = os.fstat(descriptor)
            if not stat.S_ISREG(facts.st_mode) or facts.st_nlink > 1:
                raise ToolFailed(f"{path} is not a plain file")
            return b"".join(iter(lambda: os.read(descriptor, 1 << 20), b""))[: MAX_FILE_BYTES + 1]


def _replace(folder: int, name: str, content: bytes) -> None:
    draft = f".draft-{secrets.token_hex(8)}"
    descriptor = os.open(draft, _NEW_FILE, 0o600, dir_fd=folder)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        os.rename(draft, name, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError:
        with suppress(OSError):
            os.unlink(draft, dir_fd=folder)
        raise


def _check_room(top: int, path: str, size: int) -> None:
    others = [entry for entry in _walk(top, ".") if entry.path != path]
    if len(others) >= MAX_FILES:
        raise ToolFailed(f"the workspace may have {MAX_FILES} files; remove some (content: null)")
    if sum(entry.bytes for entry in others) + size > MAX_BYTES:
        raise ToolFailed(f"the workspace may have {MAX_BYTES:,} bytes; remove some files (content: null)")


def _walk(top: int, path: str, depth: int = _MAX_DEPTH) -> Iterator[Entry]:
    """The plain files beneath ``path``; links, pipes and devices are passed over."""
    with _explained(path):
        folder = open_beneath(top, path, _OPEN_FOLDER)
    with _closing(folder):
        for name in os.listdir(folder):
            below = name if path == "." else f"{path}/{name}"
            try:
                facts = os.stat(name, dir_fd=folder, follow_symlinks=False)
            except FileNotFoundError:
                continue  # removed since it was listed
            if stat.S_ISDIR(facts.st_mode) and depth:
                yield from _walk(top, below, depth - 1)
            elif stat.S_ISREG(facts.st_mode):
                yield Entry(below, facts.st_size)


_MEANINGS = {
    errno.ENOENT: "there is no {path} in the workspace",
    errno.ENOTDIR: "a part of {path} is a file, not a folder",
    errno.EISDIR: "{path} is a folder",
    errno.ELOOP: "{path} leads through a link, which the workspace does not follow",
    errno.EXDEV: "{path} leads out of the workspace",
    errno.ENAMETOOLONG: "a part of {path} is too long",
}


@contextmanager
def _explained(path: str) -> Iterator[None]:
    """A fault of the path in the agent's words; any other is ours and goes on."""
    try:
        yield
    except OSError as error:
        if error.errno not in _MEANINGS:
            raise
        raise ToolFailed(_MEANINGS[error.errno].format(path=path[:200])) from error


class _Descriptor:
    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def close(self) -> None:
        os.close(self._descriptor)


def _closing(descriptor: int) -> "closing[_Descriptor]":
    return closing(_Descriptor(descriptor))
