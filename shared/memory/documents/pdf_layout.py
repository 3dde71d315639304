"""From lines of PDF pages to blocks: large print is a heading, a gap or a short last line ends a paragraph. Pure."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import NamedTuple

from shared.memory.documents.clean import clean_line
from shared.memory.documents.model import Block

_HEADING_RATIO = 1.15
_MAX_HEADING = 200
"""Characters: longer large print is text."""
_WIDE_GAP = 1.35
_SHORT_LINE = 0.75
_HEADING_LEADING = 1.6
"""Heights of print from a line of a heading to its next at most."""
_MIN_REPEATS = 3
_REPEATS_SHARE = 1 / 3
"""Of all pages: a line that heads or ends so many is a running head."""
_PAGE_NUMBER = re.compile(r"[-–—]?\s*\d{1,4}\s*[-–—]?")
_BULLET = re.compile(r"[•◦▪‣●○■]\s*|(?=\d{1,2}[.)]\s)")
_SENTENCE_END = re.compile(r"[.!?…:;][\"'»”’)\]]*$")
_SPLIT_WORD = re.compile(r"(?<=\w)[-\u00ad\u2010]$")
_SIZE_STEP = 0.5


class Line(NamedTuple):
    """A line of a page: its text, its font size and its height above the page's foot, both in points."""

    text: str
    size: float
    y: float


@dataclass(frozen=True, slots=True)
class _Print:
    """The sizes of a document: its text's, and those of its headings, largest first."""

    body: float
    headings: tuple[float, ...]

    def level(self, line: Line) -> int:
        """1 to 6 for a heading, else 0."""
        size = _rounded(line.size)
        return min(self.headings.index(size) + 1, 6) if size in self.headings else 0


def layout(pages: Sequence[Sequence[Line]]) -> tuple[Block, ...]:
    """The blocks of all pages. None goes over the end of its page."""
    printed = _print_of(pages)
    read = enumerate(_without_running_lines(pages), start=1)
    return tuple(block for number, lines in read for block in _blocks(lines, printed, number))


def _without_running_lines(pages: Sequence[Sequence[Line]]) -> Iterator[Sequence[Line]]:
    """Without page numbers and the running heads that a reader skips; of the latter the first stays."""
    ends = Counter(text for lines in pages for text in {line.text.strip() for line in (*lines[:1], *lines[-1:])})
    least = max(_MIN_REPEATS, len(pages) * _REPEATS_SHARE)
    running = {text for text, count in ends.items() if count >= least}
    seen: set[str] = set()
    for lines in pages:
        kept = [line for at, line in enumerate(lines) if 0 < at < len(lines) - 1 or _is_read(line, running, seen)]
        yield kept if kept else lines


def _is_read(line: Line, running: set[str], seen: set[str]) -> bool:
    text = line.text.strip()
    is_repeated = text in running and text in seen
    seen.add(text)
    return not is_repeated and not _PAGE_NUMBER.fullmatch(text)


def _print_of(pages: Iterable[Sequence[Line]]) -> _Print:
    characters: Counter[float] = Counter()
    for lines in pages:
        for line in lines:
            characters[_rounded(line.size)] += len(line.text)
    body = characters.most_common(1)[0][0] if characters else 0.0
    larger = sorted((size for size in characters if size >= body * _HEADING_RATIO and size > body), reverse=True)
    return _Print(body, tuple(larger))


def _blocks(lines: Sequence[Line], printed: _Print, page: int) -> Iterator[Block]:
    for group in _groups(lines, printed):
        items = [_text(item) for item in _items(group)]
        level = printed.level(group[0])
        text = "\n".join(item for item in items if item)
        if not text:
            continue
        if level and len(text) <= _MAX_HEADING:
            yield Block("heading", clean_line(text), level, page)
        else:
            yield Block("list" if _BULLET.match(group[0].text.lstrip()) else "paragraph", text, 0, page)


def _groups(lines: Sequence[Line], printed: _Print) -> Iterator[list[Line]]:
    """Lines that belong together: a heading, a paragraph, or a list."""
    usual_gap = median([gap for a, b in pairwise(lines) if (gap := a.y - b.y) > 0] or [0.0])
    usual_length = max((len(line.text) for line in lines), default=0)
    group: list[Line] = []
    for line in lines:
        if group and _parts(group, line, printed, usual_gap, usual_length):
            yield group
            group = []
        group.append(line)
    if group:
        yield group


def _parts(group: list[Line], line: Line, printed: _Print, usual_gap: float, usual_length: int) -> bool:
    last = group[-1]
    if printed.level(last) != printed.level(line):
        return True
    if printed.level(line):
        return last.y - line.y > line.size * _HEADING_LEADING
    is_list, is_item = (bool(_BULLET.match(one.text.lstrip())) for one in (group[0], line))
    if is_list or is_item:
        return is_list != is_item and (is_item or last.y - line.y > usual_gap * _WIDE_GAP)
    if last.y - line.y > usual_gap * _WIDE_GAP:
        return True
    ended = bool(_SENTENCE_END.search(last.text.rstrip()))
    return ended and len(last.text) < usual_length * _SHORT_LINE


def _items(group: Sequence[Line]) -> Iterator[list[Line]]:
    """A list by its items, all else as one."""
    item: list[Line] = []
    for line in group:
        if item and _BULLET.match(line.text.lstrip()):
            yield item
            item = []
        item.append(line)
    yield item


def _text(lines: Sequence[Line]) -> str:
    """One line; a word that was split at a line's end is whole again. Composed, as fonts may spell й in two."""
    parts: list[str] = []
    for line in lines:
        text = line.text.strip()
        if parts and text[:1].islower() and _SPLIT_WORD.search(parts[-1]):
            parts[-1] = parts[-1][:-1]
        elif parts:
            parts.append(" ")
        parts.append(text)
    text = clean_line("".join(parts))
    return unicodedata.normalize("NFC", _BULLET.sub("- ", text, count=1) if _is_marked(text) else text)


def _is_marked(text: str) -> bool:
    found = _BULLET.match(text)
    return bool(found and found[0])


def _rounded(size: float) -> float:
    return round(size / _SIZE_STEP) * _SIZE_STEP
