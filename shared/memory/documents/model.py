"""A document as blocks of clean text, and the chunks that memory keeps of it."""

from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Literal

BlockKind = Literal["heading", "paragraph", "list", "table", "code"]
BLOCK_SEPARATOR = "\n\n"


@dataclass(frozen=True, slots=True)
class Block:
    """A piece of a document. ``level`` is 1 to 6 for headings, else 0; ``page`` counts from 1 where there are pages.

    The text of a list has a line per item, with its bullet or number; that of a table a line per row, `` | `` between
    cells; that of code is as written.
    """

    kind: BlockKind
    text: str
    level: int = 0
    page: int | None = None


@dataclass(frozen=True)
class ParsedDocument:
    """A document in reading order. Each block has text; ``title`` is None where neither caller nor document has one."""

    title: str | None
    blocks: tuple[Block, ...]

    @cached_property
    def text(self) -> str:
        """The normalised text, to which the offsets of chunks point."""
        return BLOCK_SEPARATOR.join(block.text for block in self.blocks)

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """Where each block begins in ``text``, in characters."""
        lengths = (len(block.text) + len(BLOCK_SEPARATOR) for block in self.blocks)
        return tuple(accumulate(lengths, initial=0))[:-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """A part of a document, ``document.text[start:end]``. ``position`` counts from 0; ``page`` is where it begins.

    ``heading_path`` names the headings it stands under, outermost first, save a heading that its text begins with.
    """

    text: str
    heading_path: tuple[str, ...]
    position: int
    start: int
    end: int
    page: int | None

    @property
    def embedding_text(self) -> str:
        """The text under its headings: what to embed, so that a passage is found by the words above it, too."""
        return f"{join_path(self.heading_path)}\n{self.text}" if self.heading_path else self.text


def join_path(headings: tuple[str, ...]) -> str:
    """Headings as one line, outermost first."""
    return " › ".join(headings)
