"""Checks of what callers send, and the text by which a memory's content is found. Pure."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any

import orjson

from shared.errors import InvalidRequest, TooLarge
from shared.memory.model import TIERS, Filters, MemoryChange, MemoryQuery, NewMemory

_TEXT_FIELDS = ("title", "text", "user_message", "agent_reply")
_MAX_CONTEXT_BYTES = 100_000
"""As JSON, of all that is not text: it comes back with every query that finds the item."""
_MAX_USER_CHARACTERS = 200
_AUTHOR_FIELDS = ("author", "speaker")
_SPEAKER = re.compile(r"([^\W\d_][\w .'’-]{0,39}): ")
"""How a turn begins in the transcripts of most tools: "Caroline: I went…"."""
_ESCAPED_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")


def compose_text(content: Mapping[str, Any]) -> str:
    """The words a memory is found by, one field a line; after its author's name, if the context gives one.

    Raises InvalidRequest when there are none.
    """
    given = {name: content[name] for name in _TEXT_FIELDS if content.get(name) is not None}
    for name, value in given.items():
        if not isinstance(value, str):
            raise InvalidRequest(f"content.{name} must be text", param=f"content.{name}")
    text = "\n".join(value.strip() for value in given.values() if value.strip())
    if not text:
        raise InvalidRequest("content needs user_message, agent_reply or text", param="content")
    author = _named_author(content)
    return f"{author}: {text}" if author and not text.startswith(f"{author}: ") else text


def author_of(content: Mapping[str, Any]) -> str | None:
    """Who says it: named in the context, or before the text as in a transcript."""
    speaker = _SPEAKER.match(str(content.get("text") or ""))
    return _named_author(content) or (speaker[1] if speaker else None)


def _named_author(content: Mapping[str, Any]) -> str | None:
    context = content.get("context")
    names = [context.get(field) for field in _AUTHOR_FIELDS] if isinstance(context, Mapping) else []
    return next((name.strip() for name in names if isinstance(name, str) and name.strip()), None)


def canonical_json(content: Mapping[str, Any]) -> bytes:
    """The same bytes for equal content. Raises InvalidRequest for what JSON or Postgres cannot hold, or TooLarge."""
    try:
        data = orjson.dumps(content, option=orjson.OPT_SORT_KEYS)
        context = orjson.dumps({name: value for name, value in content.items() if name not in _TEXT_FIELDS})
    except TypeError as error:
        raise InvalidRequest(f"content is not valid JSON: {error}", param="content") from None
    if _ESCAPED_NUL.search(data):
        raise InvalidRequest("content must not hold NUL characters", param="content")
    if len(context) > _MAX_CONTEXT_BYTES:
        raise TooLarge(f"content may have {_MAX_CONTEXT_BYTES} bytes of JSON beside its text", param="content")
    return data


def content_hash(canonical: bytes) -> bytes:
    """SHA-256 of canonical JSON: equal content has equal hashes."""
    return hashlib.sha256(canonical).digest()


def check_user(user_id: str | None, param: str = "user_id") -> None:
    """Raises InvalidRequest for what cannot be an end user's id; None is nobody in particular."""
    if user_id is not None and not (1 <= len(user_id) <= _MAX_USER_CHARACTERS and _is_storable(user_id)):
        raise InvalidRequest(
            f"{param} must have 1 to {_MAX_USER_CHARACTERS} characters (no NUL, no lone surrogate)", param=param
        )


def check_new(item: NewMemory) -> None:
    """Raises InvalidRequest naming the field that is wrong."""
    _check_fields(item)
    if item.tier not in TIERS:
        raise InvalidRequest(f"memory_type must be one of {', '.join(TIERS)}", param="memory_type")
    _check_importance(item.importance)


def check_change(change: MemoryChange) -> None:
    """Raises InvalidRequest naming the field that is wrong."""
    _check_fields(change)
    check_user(change.user_id)
    if change.content is None and change.importance is None and not change.sets_expiry:
        raise InvalidRequest("give content, importance or expires_at")
    if change.importance is not None:
        _check_importance(change.importance)


def check_query(query: MemoryQuery) -> None:
    """Raises InvalidRequest naming the field that is wrong."""
    _check_fields(query)
    check_user(query.user_id)
    if not query.query.strip():
        raise InvalidRequest("query must not be empty", param="query")
    if not 1 <= query.k <= 100:
        raise InvalidRequest("k must be between 1 and 100", param="k")
    if not 0 <= query.min_score <= 1:
        raise InvalidRequest("min_score must be between 0 and 1", param="min_score")
    if not 0 <= query.context_turns <= 5:
        raise InvalidRequest("context_turns must be between 0 and 5", param="context_turns")
    check_filters(query.filters)


def check_filters(filters: Filters) -> None:
    """Raises InvalidRequest naming the field that is wrong."""
    _check_fields(filters)
    if not set(filters.tiers) <= set(TIERS):
        raise InvalidRequest(f"memory_types must be of {', '.join(TIERS)}", param="memory_types")


def _check_importance(importance: float) -> None:
    if not 0 <= importance <= 1:
        raise InvalidRequest("importance must be between 0 and 1", param="importance")


def _check_fields(record: NewMemory | MemoryChange | MemoryQuery | Filters) -> None:
    for field in fields(record):
        value = getattr(record, field.name)
        if isinstance(value, str) and not _is_storable(value):
            raise InvalidRequest(f"{field.name} holds characters that no text may hold", param=field.name)
        if isinstance(value, datetime):
            _check_moment(field.name, value)


def _check_moment(name: str, moment: datetime) -> None:
    """Postgres keeps moments that no datetime can hold: one of them would break each query that finds it."""
    if moment.tzinfo is None:
        raise InvalidRequest(f"{name} needs a time zone, as in 2026-01-31T12:00:00Z", param=name)
    try:
        moment.astimezone(UTC)
    except OverflowError:
        raise InvalidRequest(f"{name} must lie in the years 1 to 9999 of UTC", param=name) from None


def _is_storable(text: str) -> bool:
    """No NUL, which Postgres refuses, and no lone surrogate, which UTF-8 cannot encode."""
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)
