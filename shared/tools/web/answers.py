"""What an answer of the outside means: a value, or a failure in words. Pure functions."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import orjson

from shared.tools.model import ToolFailed
from shared.tools.web.errors import BusyService, UnusableAnswer
from shared.wire.depth import MAX_DEPTH, is_deeper

BUSY = (429, 502, 503, 504)
_MAX_RETRY_AFTER_S = 3600.0
_MAX_EXCERPT = 300
_READABLE = re.compile(
    r"(?:application|[a-z]+)/(?:[a-z0-9.+-]+\+)?json|text/[a-z0-9.+-]+|application/xml|[a-z]+/.+\+xml"
    r"|application/(?:[a-z0-9.+-]+\+|x-)?yaml"
)
_NOT_PRINTED = re.compile(r"[\x00-\x1f\x7f]+")


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer. ``headers`` have lower-case names."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        """The body as text, without what Postgres cannot hold."""
        charset = re.search(r"charset=\"?([\w.:-]+)", self.headers.get("content-type", "")) or None
        try:
            text = self.body.decode(charset[1] if charset else "utf-8", errors="replace")
        except LookupError:
            text = self.body.decode("utf-8", errors="replace")
        return text.replace("\0", "\ufffd")


def is_readable(content_type: str) -> bool:
    """Whether a content type is JSON or text."""
    return _READABLE.fullmatch(content_type.partition(";")[0].strip().lower()) is not None


def check_status(answer: Answer, service: str, redact: Callable[[str], str] = str) -> None:
    """Pass what is a success. Raises BusyService, UnusableAnswer for a redirect, and ToolFailed for every other.

    What the service says is redacted before it is cut, so that no half of a secret is left.
    """
    if 200 <= answer.status < 300:
        return
    if answer.status < 400:
        raise UnusableAnswer(f"{service} redirects elsewhere ({answer.status}), which is not followed", answer.status)
    said = excerpt(answer, redact)
    message = f"{service} answered {answer.status}" + (f": {said}" if said else "")
    if answer.status in BUSY:
        raise BusyService(message, answer.status, retry_after_s(answer.headers.get("retry-after", "")))
    raise ToolFailed(message, code="unauthorized" if answer.status in (401, 403) else "tool_failed")


def value_of(answer: Answer) -> Any:
    """JSON as its value, text as a string, an empty body as None. Raises UnusableAnswer."""
    if not answer.body:
        return None
    kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not kind.endswith("json"):
        return answer.text
    return parse_json(answer.body, answer.status)


def parse_json(body: bytes, status: int) -> Any:
    """The value. Raises UnusableAnswer for what is no JSON, or nested too deeply."""
    try:
        value = orjson.loads(body)
    except ValueError:
        raise UnusableAnswer(
            "the service answered with something that is not the JSON it claims to be", status
        ) from None
    if is_deeper(value):
        raise UnusableAnswer(f"the service answered with JSON nested deeper than {MAX_DEPTH} levels", status)
    return value


def pick(value: Any, path: str) -> Any:
    """What lies at a dotted path (``data.items.0.name``). Raises KeyError with the first part that leads nowhere."""
    for part in path.split("."):
        if isinstance(value, dict) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isascii() and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        else:
            raise KeyError(part)
    return value


def excerpt(answer: Answer, redact: Callable[[str], str] = str) -> str:
    """The beginning of what an error says, in one line."""
    if not is_readable(answer.headers.get("content-type", "")):
        return ""
    text = _NOT_PRINTED.sub(" ", redact(answer.text)).strip()
    return text if len(text) <= _MAX_EXCERPT else f"{text[:_MAX_EXCERPT]}…"


def retry_after_s(header: str) -> float | None:
    """The seconds of a ``Retry-After`` header, in either of its forms; None for anything else."""
    try:
        seconds = float(header) if header.isascii() and header.isdigit() else _until(header)
    except (ValueError, TypeError):
        return None
    return min(max(seconds, 0.0), _MAX_RETRY_AFTER_S)


def _until(date: str) -> float:
    moment = parsedate_to_datetime(date)
    return (moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
