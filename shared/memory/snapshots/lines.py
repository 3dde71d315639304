"""The lines of a snapshot's file, and what each of their fields may hold. Pure."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from shared.errors import InvalidRequest
from shared.memory.model import TIERS, Tier

# Far above what the API takes: whatever was stored can be restored. Of keys so much fits into an index.
_KEY_CHARACTERS: Final = 600
_NAME_CHARACTERS: Final = 10_000
_USER_CHARACTERS: Final = 200
_MOST: Final = 2**31 - 1

Check = Callable[[Any], Any]
"""Gives the value that a field's JSON means; raises ValueError with what it should be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentLine:
    """A document; its chunks are items. ``line`` is the file's line. ``user_id``, here and below: the end user's."""

    line: int
    id: str
    title: str
    source: str | None
    media_type: str
    content_hash: bytes
    characters: int
    chunks: int
    metadata: dict[str, Any]
    created_at: datetime
    user_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemLine:
    """A memory. ``document_id`` and ``summary_id`` are ids of this file."""

    line: int
    id: str
    tier: Tier
    content: dict[str, Any]
    source: str | None
    channel_id: str | None
    session_id: str | None
    document_id: str | None
    position: int | None
    importance: float
    occurred_at: datetime
    expires_at: datetime | None
    created_at: datetime
    summary_id: str | None
    user_id: str | None = None

    @property
    def is_chunk(self) -> bool:
        """Whether it is a piece of a document."""
        return self.document_id is not None and self.position is not None


def read_document(version: int, line: int, values: Mapping[str, Any]) -> DocumentLine:
    """Raises InvalidRequest, naming line and field."""
    return DocumentLine(line=line, **_checked(line, "document", values, _DOCUMENT | _added(version, values)))


def read_item(version: int, line: int, values: Mapping[str, Any]) -> ItemLine:
    """Raises InvalidRequest, naming line and field."""
    return ItemLine(line=line, **_checked(line, "item", values, _ITEM | _added(version, values)))


def check_manifest(values: Mapping[str, Any]) -> None:
    """Raises InvalidRequest, naming the field."""
    _checked(1, "manifest", values, _MANIFEST)


def _added(version: int, values: Mapping[str, Any]) -> dict[str, Check]:
    """What version 2 knows beside the fields that every line has."""
    return {"user_id": _text(_USER_CHARACTERS, 1)} if version >= 2 and "user_id" in values else {}


def _checked(line: int, kind: str, values: Mapping[str, Any], checks: Mapping[str, Check]) -> dict[str, Any]:
    if values.get("kind") != kind:
        raise InvalidRequest(f"line {line} must be of kind {kind!r}")
    if unknown := values.keys() - checks.keys() - {"kind"}:
        raise InvalidRequest(f"line {line}: the format has no field {min(unknown)[:80]!r}")
    found: dict[str, Any] = {}
    for name, check in checks.items():
        if name not in values:
            raise InvalidRequest(f"line {line}: the field {name!r} is missing")
        try:
            found[name] = check(values[name])
        except ValueError as error:
            raise InvalidRequest(f"line {line}: {name} must be {error}") from None
    return found


def _text(most: int, least: int = 0) -> Check:
    def check(value: Any) -> str:
        if not isinstance(value, str) or not least <= len(value) <= most:
            raise ValueError(f"text of {least} to {most} characters")
        return value

    return check


def _optional(check: Check) -> Check:
    return lambda value: None if value is None else check(value)


def _moment(value: Any) -> datetime:
    try:
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is not None:
            return moment.astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        pass
    raise ValueError("a time with its zone in the years 1 to 9999, as in 2026-01-31T12:00:00Z")


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _MOST:
        raise ValueError(f"a whole number from 0 to {_MOST}")
    return value


def _share(value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1:
        raise ValueError("a number from 0 to 1")
    return float(value)


def _tier(value: Any) -> Tier:
    for tier in TIERS:
        if value == tier:
            return tier
    raise ValueError(f"one of {', '.join(TIERS)}")


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("an object")
    return value


def _digest(value: Any) -> bytes:
    try:
        if len(digest := bytes.fromhex(value)) == 32:
            return digest
    except (TypeError, ValueError):
        pass
    raise ValueError("a SHA-256 in hexadecimal")


def _anything(value: Any) -> Any:
    return value


_DOCUMENT: Final[dict[str, Check]] = {
    "id": _text(_KEY_CHARACTERS, 1),
    "title": _text(_NAME_CHARACTERS),
    "source": _optional(_text(_NAME_CHARACTERS)),
    "media_type": _text(_KEY_CHARACTERS, 1),
    "content_hash": _digest,
    "characters": _count,
    "chunks": _count,
    "metadata": _object,
    "created_at": _moment,
}
_ITEM: Final[dict[str, Check]] = {
    "id": _text(_KEY_CHARACTERS, 1),
    "tier": _tier,
    "content": _object,
    "source": _optional(_text(_NAME_CHARACTERS)),
    "channel_id": _optional(_text(_KEY_CHARACTERS)),
    "session_id": _optional(_text(_KEY_CHARACTERS)),
    "document_id": _optional(_text(_KEY_CHARACTERS)),
    "position": _optional(_count),
    "importance": _share,
    "occurred_at": _moment,
    "expires_at": _optional(_moment),
    "created_at": _moment,
    "summary_id": _optional(_text(_KEY_CHARACTERS)),
}
_MANIFEST: Final[Mapping[str, Check]] = {
    "format": _anything,  # looked at before
    "version": _anything,
    "created_at": _moment,
    "microdao_id": _text(_NAME_CHARACTERS),
    "agent_id": _text(_NAME_CHARACTERS),
    "documents": _count,
    "items": _count,
}
