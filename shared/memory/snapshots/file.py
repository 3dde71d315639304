"""The file of a snapshot: JSON Lines, version 1, or 2 if something in it is an end user's. Pure.

Line 1 is the manifest, then come documents, then items in the order they were stored. The last line is the seal: the
SHA-256 of every byte before it. A file is taken whole or not at all.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Final, TypeVar

import orjson

from shared.clock import rfc3339
from shared.errors import InvalidRequest, TooLarge
from shared.memory.snapshots.lines import DocumentLine, ItemLine, check_manifest, read_document, read_item
from shared.wire.depth import is_deeper

FORMAT: Final = "daarion-memory"
VERSION: Final = 1
VERSION_WITH_USERS: Final = 2
"""Only files that need it have it, so that others can be read by what knows no users."""
MEDIA_TYPE: Final = "application/x-ndjson"
MAX_BYTES: Final = 32_000_000
MAX_ITEMS: Final = 50_000

_ESCAPED_NUL: Final = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
_SEAL_BEGINS: Final = b'{"kind":"seal"'
Line = TypeVar("Line", DocumentLine, ItemLine)


@dataclass(frozen=True, slots=True)
class SnapshotFile:
    """What a sound file says, in its order."""

    documents: list[DocumentLine]
    items: list[ItemLine]


class FileWriter:
    """Puts a file together from lines, which are JSON objects."""

    def __init__(self) -> None:
        self._lines: dict[str, list[bytes]] = {"document": [], "item": []}
        self._users: set[str] = set()
        self._bytes = 0

    def add(self, kind: str, line: bytes, user_id: str | None = None) -> None:
        """Append a ``document`` or an ``item``, which is that user's. Raises TooLarge."""
        self._lines[kind].append(line)
        self._users |= {user_id} if user_id is not None else set()
        self._bytes += len(line) + 1
        if self._bytes > MAX_BYTES or self.items > MAX_ITEMS:
            raise TooLarge(f"a snapshot holds at most {MAX_ITEMS} memories and {MAX_BYTES} bytes")

    @property
    def items(self) -> int:
        """How many there are."""
        return len(self._lines["item"])

    @property
    def documents(self) -> int:
        """How many there are."""
        return len(self._lines["document"])

    @property
    def users(self) -> int:
        """For how many end users there is anything."""
        return len(self._users)

    def finish(self, microdao_id: str, agent_id: str, created_at: datetime) -> bytes:
        """The whole file. Raises TooLarge."""
        manifest = {
            "kind": "manifest",
            "format": FORMAT,
            "version": VERSION_WITH_USERS if self._users else VERSION,
            "created_at": rfc3339(created_at),
            "microdao_id": microdao_id,
            "agent_id": agent_id,
            "documents": self.documents,
            "items": self.items,
        }
        data = seal([orjson.dumps(manifest), *self._lines["document"], *self._lines["item"]])
        if len(data) > MAX_BYTES:
            raise TooLarge(f"a snapshot holds at most {MAX_BYTES} bytes")
        return data


def seal(lines: Iterable[bytes]) -> bytes:
    """The lines with their seal."""
    body = b"".join(line + b"\n" for line in lines)
    return body + _seal_of(body) + b"\n"


def read_file(data: bytes) -> SnapshotFile:
    """What the file says. Raises InvalidRequest, naming the line, or TooLarge."""
    if len(data) > MAX_BYTES:
        raise TooLarge(f"a snapshot's file has at most {MAX_BYTES} bytes")
    manifest = _read_manifest(data)
    body = _unsealed(data)
    lines = _lines(body)
    next(lines)
    typed_documents = _typed(lines, partial(read_document, manifest["version"]))
    documents = [line for _, line in zip(range(manifest["documents"]), typed_documents, strict=False)]
    items = list(_typed(lines, partial(read_item, manifest["version"])))
    if (len(documents), len(items)) != (manifest["documents"], manifest["items"]):
        raise InvalidRequest("the file does not hold as many documents and items as its manifest says")
    _check_references(documents, items)
    return SnapshotFile(documents, items)


def _read_manifest(data: bytes) -> dict[str, Any]:
    """Before the seal is looked at: another version may seal otherwise."""
    first = data[: data.find(b"\n")] if b"\n" in data else data
    try:
        manifest = orjson.loads(first)
    except orjson.JSONDecodeError:
        manifest = None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise InvalidRequest("this is not the file of a snapshot: line 1 must be its manifest")
    if manifest.get("version") not in (VERSION, VERSION_WITH_USERS) or isinstance(manifest["version"], bool):
        raise InvalidRequest(
            f"line 1: this version of the file's format is not known here; {VERSION} and {VERSION_WITH_USERS} are"
        )
    check_manifest(manifest)
    if manifest["items"] > MAX_ITEMS:
        raise TooLarge(f"a snapshot holds at most {MAX_ITEMS} memories")
    return manifest


def _unsealed(data: bytes) -> bytes:
    end = data.rfind(b"\n", 0, -1) + 1
    last = data[end:]
    if not last.startswith(_SEAL_BEGINS) or not last.endswith(b"\n"):
        raise InvalidRequest("the file is cut short: its last line must be the seal")
    body = data[:end]
    if last != _seal_of(body) + b"\n":
        raise InvalidRequest("the file was changed or damaged: its checksum is not that of its seal")
    return body


def _seal_of(body: bytes) -> bytes:
    return _SEAL_BEGINS + b',"sha256":"' + hashlib.sha256(body).hexdigest().encode() + b'"}'


def _lines(body: bytes) -> Iterator[tuple[int, bytes]]:
    """Each line with its number, without making all of them at once."""
    start, number = 0, 1
    while (end := body.find(b"\n", start)) >= 0:
        yield number, body[start:end]
        start, number = end + 1, number + 1


def _typed(lines: Iterator[tuple[int, bytes]], read: Callable[[int, dict[str, Any]], Line]) -> Iterator[Line]:
    for number, line in lines:
        yield read(number, _parse(number, line))


def _parse(number: int, line: bytes) -> dict[str, Any]:
    if _ESCAPED_NUL.search(line):
        raise InvalidRequest(f"line {number} holds a NUL character, which text cannot contain")
    try:
        parsed = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"line {number} is not valid JSON: {error.msg}") from None
    if not isinstance(parsed, dict):
        raise InvalidRequest(f"line {number} must be a JSON object")
    if is_deeper(parsed):
        raise InvalidRequest(f"line {number} is nested too deep")
    return parsed


def _check_references(documents: Sequence[DocumentLine], items: Sequence[ItemLine]) -> None:
    _check_unique((one.line, one.id) for one in documents)
    _check_unique((one.line, (one.user_id, one.media_type, one.content_hash)) for one in documents)
    _check_unique((one.line, one.id) for one in items)
    _check_unique((one.line, (one.document_id, one.position)) for one in items if one.is_chunk)
    known_documents = {(one.user_id, one.id) for one in documents}  # nothing refers to what is another user's
    known_items = {(one.user_id, one.id) for one in items}
    for item in items:
        document, summary = (item.user_id, item.document_id), (item.user_id, item.summary_id)
        if item.document_id is not None and document not in known_documents:
            raise InvalidRequest(f"line {item.line}: the file has no document {item.document_id[:80]!r}")
        if item.summary_id is not None and (summary not in known_items or item.summary_id == item.id):
            raise InvalidRequest(f"line {item.line}: the file has no other item {item.summary_id[:80]!r}")
    _check_summaries(items)


def _check_summaries(items: Sequence[ItemLine]) -> None:
    """What stands for an item is found in its place: in a circle of items nothing would ever be found."""
    stands_for = {one.id: one.summary_id for one in items if one.summary_id is not None}
    settled: set[str] = set()
    for item in items:
        passed: set[str] = set()
        at: str | None = item.id
        while at is not None and at not in settled:
            if at in passed:
                raise InvalidRequest(f"line {item.line}: the summaries of this item stand for one another in a circle")
            passed.add(at)
            at = stands_for.get(at)
        settled |= passed


def _check_unique(places: Iterable[tuple[int, Any]]) -> None:
    seen: set[Any] = set()
    for line, what in places:
        if what in seen:
            raise InvalidRequest(f"line {line}: the same stands in a line before")
        seen.add(what)
