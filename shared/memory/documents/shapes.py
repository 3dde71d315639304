"""Lists and tables as text."""

from collections.abc import Iterator, Sequence

from shared.memory.documents.clean import clean_line
from shared.memory.documents.model import Block

_MAX_INDENTS = 10
"""Deeper items are not moved in further: a thousand nested lists would have a million spaces."""


def first_heading(blocks: Sequence[Block]) -> str | None:
    """The first heading of level 1."""
    return next((block.text for block in blocks if block.kind == "heading" and block.level == 1), None)


def join_rows(rows: Sequence[Sequence[str]]) -> str:
    """A table as text: a line per row that has any."""
    return "\n".join(" | ".join(cells) for cells in rows if any(cells))


class ListText:
    """Collects the items of a list and of those within it; the outermost list makes one block.

    A line per item, with its bullet or number, two spaces in for each level.
    """

    def __init__(self) -> None:
        self._numbers: list[int | None] = []
        self._marker: str | None = None
        self._lines: list[str] = []

    @property
    def is_open(self) -> bool:
        """Whether text belongs to a list."""
        return bool(self._numbers)

    def open(self, start: int | None) -> None:
        """A list begins, numbered from ``start``, or with bullets for None."""
        self._numbers.append(start)

    def item(self) -> None:
        """An item of the innermost list begins."""
        if not self._numbers:
            return
        number = self._numbers[-1]
        self._marker = "- " if number is None else f"{number}. "
        if number is not None:
            self._numbers[-1] = number + 1

    def add(self, text: str) -> None:
        """Text of the item that is open; what follows its first line stands below it."""
        line = clean_line(text)
        if line:
            indent = "  " * min(len(self._numbers) - 1, _MAX_INDENTS)
            self._lines.append(indent + ("  " if self._marker is None else self._marker) + line)
            self._marker = None

    def close(self) -> Iterator[Block]:
        """The innermost list ends; the outermost gives its block."""
        if self._numbers:
            self._numbers.pop()
        if not self._numbers:
            yield from self.flush()

    def flush(self) -> Iterator[Block]:
        """The lines so far as a block, as when code stands between items."""
        lines, self._lines = self._lines, []
        if lines:
            yield Block("list", "\n".join(lines))
