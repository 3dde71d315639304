"""Markdown: CommonMark with tables and struck-out text; HTML within it is read as HTML."""

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from shared.errors import InvalidRequest
from shared.memory.documents.clean import clean_code, clean_line, clean_prose
from shared.memory.documents.model import Block, ParsedDocument
from shared.memory.documents.shapes import ListText, first_heading, join_rows

if TYPE_CHECKING:
    from markdown_it.token import Token

_MAX_NESTING = 60
"""Lists and quotes within each other, a list counting as two. The reader drops all that follows a deeper one."""
_FRONT_MATTER = re.compile(r"---[ \t]*\n(.*?)^(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL | re.MULTILINE)
_FRONT_TITLE = re.compile(r"""^title:[ \t]*(["']?)(.*?)\1[ \t]*$""", re.MULTILINE)
_LINE_BREAK_TAG = re.compile(r"<br\s*/?>", re.IGNORECASE)


def parse_markdown(text: str) -> ParsedDocument:
    """The blocks of ``text``. Its title is that of the front matter, which is no block, or its first main heading.

    Raises InvalidRequest for lists or quotes that nest too deeply to be read.
    """
    from markdown_it import MarkdownIt

    front = _FRONT_MATTER.match(text)
    body = text[front.end() :] if front else text
    reader = MarkdownIt("commonmark", {"html": True, "maxNesting": _MAX_NESTING}).enable(["table", "strikethrough"])
    tokens = reader.parse(body)
    if any(token.nesting == 1 and token.level >= _MAX_NESTING - 1 for token in tokens):
        raise InvalidRequest("content has lists or quotes that nest too deeply", param="content")
    blocks = tuple(_Walk().blocks_of(tokens))
    return ParsedDocument(_front_title(front[1] if front else "") or first_heading(blocks), blocks)


def _front_title(front: str) -> str | None:
    found = _FRONT_TITLE.search(front)
    return clean_line(found[2]) or None if found else None


class _Walk:
    """One pass over the flat list of tokens."""

    def __init__(self) -> None:
        self._list = ListText()
        self._rows: list[list[str]] = []
        self._in_table = False
        self._heading = 0

    def blocks_of(self, tokens: Sequence["Token"]) -> Iterator[Block]:
        """The blocks that have text, in order."""
        for token in tokens:
            for block in self._step(token):
                if block.text:
                    yield block

    def _step(self, token: "Token") -> Iterator[Block]:
        match token.type:
            case "heading_open":
                self._heading = int(token.tag[1:])
            case "heading_close":
                self._heading = 0
            case "inline":
                yield from self._inline(_inline_text(token.children or ()))
            case "fence" | "code_block":
                yield from self._list.flush()
                yield Block("code", clean_code(token.content))
            case "html_block":
                yield from self._list.flush()
                yield from _html_blocks(token.content)
            case _:
                yield from self._nest(token)

    def _nest(self, token: "Token") -> Iterator[Block]:
        match token.type:
            case "bullet_list_open":
                self._list.open(None)
            case "ordered_list_open":
                self._list.open(int(token.attrs.get("start", 1)))
            case "list_item_open":
                self._list.item()
            case "bullet_list_close" | "ordered_list_close":
                yield from self._list.close()
            case "table_open":
                self._in_table, self._rows = True, []
            case "tr_open":
                self._rows.append([])
            case "table_close":
                self._in_table = False
                yield from self._list.flush()
                yield Block("table", join_rows(self._rows))

    def _inline(self, text: str) -> Iterator[Block]:
        if self._in_table:
            self._rows[-1].append(clean_line(text))
        elif self._list.is_open:
            self._list.add(text)
        elif self._heading:
            yield Block("heading", clean_line(text), self._heading)
        else:
            yield Block("paragraph", clean_prose(text))


def _inline_text(tokens: Sequence["Token"]) -> str:
    return "".join(_piece(token) for token in tokens)


def _piece(token: "Token") -> str:
    match token.type:
        case "softbreak":
            return " "
        case "hardbreak":
            return "\n"
        case "image":
            return _inline_text(token.children or ())
        case "html_inline":
            return "\n" if _LINE_BREAK_TAG.fullmatch(token.content) else ""
        case _:
            return token.content


def _html_blocks(html: str) -> tuple[Block, ...]:
    from shared.memory.documents.parse_html import parse_html

    return parse_html(html).blocks
