"""From bytes to text, and from raw text to text that can be kept and shown. Linear in time."""

import re

from shared.errors import InvalidRequest, TooLarge
from shared.memory.documents.limits import MAX_CHARACTERS

_INVISIBLE = re.compile("[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff\u00ad\u200b\u2060\ufeff]")
"""Controls, lone surrogates (UTF-8 has none), and marks of zero width that would split a word in two."""
_LINE_END = re.compile("\r\n|[\r\x0b\x0c\x85\u2028\u2029]")
_SPACES = re.compile(r"[^\S\n]+")


def decode(data: bytes) -> str:
    """Text of UTF-8 bytes, a byte-order mark aside. Raises InvalidRequest or TooLarge."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # The codec counts from behind the mark, in an object of its own.
        position = error.start + len(data) - len(error.object)
        raise InvalidRequest(
            f"content is not UTF-8: byte 0x{data[position]:02x} at offset {position}", param="content"
        ) from None
    if (nul := text.find("\0")) >= 0:
        raise InvalidRequest(f"content holds a NUL character, as number {nul + 1}", param="content")
    check_length(len(text))
    return _LINE_END.sub("\n", text)


def check_length(characters: int) -> None:
    """Raises TooLarge past MAX_CHARACTERS."""
    if characters > MAX_CHARACTERS:
        raise TooLarge(f"a document may have {MAX_CHARACTERS:,} characters of text; split it", param="content")


def clean_prose(text: str) -> str:
    """One space between words, no blank lines, nothing invisible; single line ends stay."""
    lines = _SPACES.sub(" ", strip_invisible(text)).split("\n")
    return "\n".join(stripped for line in lines if (stripped := line.strip()))


def clean_line(text: str) -> str:
    """All on one line, one space between words."""
    return " ".join(strip_invisible(text).split())


def clean_code(text: str) -> str:
    """Indentation and blank lines as written, without those around it and without spaces at line ends."""
    return "\n".join(line.rstrip() for line in strip_invisible(text).split("\n")).strip("\n")


def strip_invisible(text: str) -> str:
    """Without controls, save line ends and tabs, and without marks of zero width."""
    return _INVISIBLE.sub("", _LINE_END.sub("\n", text))
