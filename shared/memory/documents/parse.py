"""The door for documents: bytes of a media type → clean blocks."""

import math
from dataclasses import replace

from shared.errors import InvalidRequest, TooLarge, UnsupportedMediaType
from shared.memory.documents.clean import check_length, clean_line, decode
from shared.memory.documents.limits import MAX_BYTES, MAX_TITLE_CHARACTERS, TIME_LIMITS_S
from shared.memory.documents.model import ParsedDocument
from shared.memory.documents.parse_text import parse_text

MEDIA_TYPES = ("text/plain", "text/markdown", "text/html", "application/pdf")
_UTF_8 = ("", "utf-8", "utf8", "us-ascii")


def parse_document(
    data: bytes, media_type: str, *, title: str | None = None, time_limit_s: float = math.inf
) -> ParsedDocument:
    """The blocks of a document, at least one. Blocks its thread, for up to ``time_limit_s`` or its type's own limit.

    ``title`` goes before the document's own. Raises UnsupportedMediaType, TooLarge, or InvalidRequest for a document
    that is broken, encrypted, without text or not in UTF-8.
    """
    kind = _checked_type(media_type)
    if len(data) > MAX_BYTES:
        raise TooLarge(f"a document may have {MAX_BYTES:,} bytes, not {len(data):,}; split it", param="content")
    document = _parse(data, kind, time_limit_s)
    if not document.blocks:
        raise InvalidRequest("content holds no text", param="content")
    check_length(len(document.text))
    named = clean_line(title or "") or document.title or ""
    return replace(document, title=named[:MAX_TITLE_CHARACTERS].rstrip() or None)


def _parse(data: bytes, kind: str, time_limit_s: float) -> ParsedDocument:
    if kind == "text/plain":
        return parse_text(decode(data))
    from shared.memory.documents.isolation import parse_isolated

    return parse_isolated(data, kind, time_limit_s=min(time_limit_s, TIME_LIMITS_S[kind]))


def _checked_type(media_type: str) -> str:
    """Without its parameters. Text in another encoding than UTF-8 would be read wrongly, so it is refused."""
    kind, *parameters = (part.strip().lower() for part in media_type.split(";"))
    if kind not in MEDIA_TYPES:
        raise UnsupportedMediaType(f"a document must be one of {', '.join(MEDIA_TYPES)}", param="content_type")
    charset = next((part.removeprefix("charset=").strip('"') for part in parameters if part.startswith("charset=")), "")
    if charset not in _UTF_8:
        raise UnsupportedMediaType(f"text must be in UTF-8, not {charset[:40]}", param="content_type")
    return kind
