"""PDF by pypdf: text with its size and place, from which ``pdf_layout.py`` makes blocks.

Python code that a hostile file can only slow down or swell; ``isolation.py`` bounds both.
"""

import io
from math import hypot
from typing import TYPE_CHECKING, Any

from shared.errors import ApiError, InvalidRequest, TooLarge
from shared.memory.documents.clean import check_length, clean_line
from shared.memory.documents.limits import MAX_PAGES, MAX_STREAM_BYTES, MAX_STREAM_TOKENS
from shared.memory.documents.model import ParsedDocument
from shared.memory.documents.pdf_layout import Line, layout
from shared.memory.documents.shapes import first_heading

if TYPE_CHECKING:
    from pypdf import PageObject, PdfReader

_HEADER_WITHIN = 1_024
"""Bytes in which ``%PDF-`` must stand, by the rule that readers follow."""
_MAX_REASON = 200
_BOUNDS: dict[str, Any] = {
    "maximum_declared_stream_length": MAX_STREAM_BYTES,
    "array_based_stream_maximum_output_length": MAX_STREAM_BYTES,
    "lzw_maximum_output_length": MAX_STREAM_BYTES,
    "run_length_maximum_output_length": MAX_STREAM_BYTES,
    "zlib_maximum_output_length": MAX_STREAM_BYTES,
    "brotli_maximum_output_length": MAX_STREAM_BYTES,
    "stream_parsing_work_maximum_count": MAX_STREAM_TOKENS,
    "jbig2dec_binary": None,  # an image decoder that pypdf would start
}


def parse_pdf(data: bytes) -> ParsedDocument:
    """The blocks of a PDF, with their pages. Its title is that of its properties, or else its first main heading.

    Raises InvalidRequest for a file that is broken, encrypted or without text, or TooLarge.
    """
    from pypdf import apply_configuration
    from pypdf.errors import LimitReachedError

    if b"%PDF-" not in data[:_HEADER_WITHIN]:
        raise InvalidRequest("content is not a PDF: %PDF- does not stand at its beginning", param="content")
    try:
        with apply_configuration(**_BOUNDS):
            return _read(data)
    except (ApiError, MemoryError):
        raise
    except LimitReachedError as error:
        raise TooLarge(
            f"content is a PDF with more in it than it may have: {_reason(error)}", param="content"
        ) from None
    except Exception as error:
        # pypdf states no set of exceptions: a broken file may raise any.
        raise InvalidRequest(f"content is a broken PDF: {_reason(error)}", param="content") from None


def _reason(error: Exception) -> str:
    return clean_line(str(error))[:_MAX_REASON] or type(error).__name__


def _read(data: bytes) -> ParsedDocument:
    from pypdf import PdfReader

    reader = PdfReader(io.BytesIO(data))
    if reader.is_encrypted and not _opens_without_password(reader):
        raise InvalidRequest("content is an encrypted PDF: send it without its password", param="content")
    if len(reader.pages) > MAX_PAGES:
        raise TooLarge(f"a PDF may have {MAX_PAGES:,} pages, not {len(reader.pages):,}; split it", param="content")
    blocks = layout(_pages(reader))
    if not blocks:
        raise InvalidRequest(
            "content is a PDF without text, such as a scan: send it after character recognition (OCR)", param="content"
        )
    return ParsedDocument(_title(reader) or first_heading(blocks), blocks)


def _opens_without_password(reader: "PdfReader") -> bool:
    """Files that only forbid printing or changes open with an empty password. AES needs a library that is not here."""
    from pypdf.errors import DependencyError

    try:
        return bool(reader.decrypt(""))
    except DependencyError:
        return False


def _pages(reader: "PdfReader") -> list[list[Line]]:
    pages, characters = [], 0
    for page in reader.pages:
        lines = _lines(page)
        characters += sum(len(line.text) for line in lines)
        check_length(characters)
        pages.append(lines)
    return pages


def _lines(page: "PageObject") -> list[Line]:
    """The lines of a page that have text. A line has the size and height of its first word."""
    lines, parts = [], list[str]()
    size = y = 0.0

    def visit(text: str, cm: list[float], tm: list[float], _font: Any, font_size: float) -> None:
        nonlocal size, y
        for index, piece in enumerate(text.split("\n")):
            if index:
                lines.append(Line("".join(parts), size, y))
                parts.clear()
            if piece.strip() and not any(part.strip() for part in parts):
                size = abs(font_size) * hypot(tm[2], tm[3]) * hypot(cm[2], cm[3])
                y = tm[4] * cm[1] + tm[5] * cm[3] + cm[5]
            parts.append(piece)

    page.extract_text(visitor_text=visit)
    lines.append(Line("".join(parts), size, y))
    return [line for line in lines if line.text.strip()]


def _title(reader: "PdfReader") -> str | None:
    """Of the properties, which may be broken where the text is not."""
    try:
        return clean_line(str((reader.metadata and reader.metadata.title) or "")) or None
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
