"""HTML: what a reader of the page would read. Scripts, styles, navigation and hidden elements are left out."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from shared.errors import TooLarge
from shared.memory.documents.clean import clean_code, clean_line, clean_prose
from shared.memory.documents.model import Block, ParsedDocument
from shared.memory.documents.shapes import ListText, first_heading, join_rows

if TYPE_CHECKING:
    from selectolax.lexbor import LexborNode

_UNREAD = {"audio", "button", "canvas", "datalist", "embed", "head", "iframe", "input", "math", "nav", "noscript"} | {
    "object",
    "script",
    "select",
    "style",
    "svg",
    "template",
    "textarea",
    "title",
    "video",
}
_BLOCKS = (
    {"address", "article", "aside", "blockquote", "body", "caption", "center", "dd", "details", "dialog", "div", "dl"}
    | {"dt", "fieldset", "figcaption", "figure", "footer", "form", "header", "hgroup", "hr", "legend", "main", "menu"}
    | {"p", "section", "summary"}
)
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_HIDING_STYLE = re.compile(r"(?:display\s*:\s*none|visibility\s*:\s*hidden)", re.IGNORECASE)
_MAX_STYLE = 2_000
_SPACE = re.compile(r"\s+")


def parse_html(text: str) -> ParsedDocument:
    """The blocks of a page or fragment. Its title is that of ``<title>``, or else the first heading of level 1.

    Raises TooLarge when memory does not suffice.
    """
    from selectolax.lexbor import LexborHTMLParser, SelectolaxError

    try:
        page = LexborHTMLParser(text)
    except SelectolaxError:
        # There is no HTML that cannot be parsed: it has run out of memory.
        raise TooLarge("content is HTML that takes too much memory to read; split it", param="content") from None
    title = page.css_first("head > title")
    blocks = tuple(block for block in _Walk().blocks_of(page.root) if block.text)
    return ParsedDocument((clean_line(title.text()) if title else "") or first_heading(blocks), blocks)


class _Walk:
    """One pass over the tree, with a stack of its own: pages nest deeper than Python's."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._list = ListText()
        self._cells: list[list[str]] = []
        self._tables = 0
        self._pres = 0

    def blocks_of(self, root: "LexborNode | None") -> Iterator[Block]:
        """The blocks in order of the page; some may be empty."""
        stack: list[tuple[LexborNode, bool]] = [(root, False)] if root else []
        while stack:
            node, is_done = stack.pop()
            if is_done:
                yield from self._leave(node.tag or "")
                continue
            if node.next is not None:
                stack.append((node.next, False))
            if node.is_text_node:
                self._parts.append(self._written(node.text_content or ""))
            elif node.is_element_node and not _is_unread(node):
                yield from self._enter(node)
                stack.append((node, True))
                if node.child is not None:
                    stack.append((node.child, False))
        yield from self._end_block()

    def _written(self, text: str) -> str:
        """Line ends in the source are spaces, save in ``<pre>``."""
        return text if self._pres else _SPACE.sub(" ", text)

    def _enter(self, node: "LexborNode") -> Iterator[Block]:
        match node.tag:
            case "br":
                self._parts.append("\n")
            case "img":
                self._parts.append(f" {node.attributes.get('alt') or ''} ")
            case "table" | "tr" | "td" | "th":
                yield from self._enter_table(node.tag)
            case "ul" | "ol" | "li":
                yield from self._end_block()
                self._enter_list(node)
            case "pre":
                yield from self._end_block()
                self._pres += 1
            case tag if tag in _BLOCKS or tag in _HEADINGS:
                yield from self._end_block()

    def _leave(self, tag: str) -> Iterator[Block]:
        match tag:
            case "table" | "td" | "th":
                yield from self._leave_table(tag)
            case "ul" | "ol":
                yield from self._end_block()
                if not self._tables:
                    yield from self._list.close()
            case "pre":
                yield from self._end_code()
            case tag if tag in _BLOCKS or tag in _HEADINGS or tag == "li":
                yield from self._end_block(_HEADINGS.get(tag, 0))

    def _enter_list(self, node: "LexborNode") -> None:
        if self._tables:
            return
        if node.tag == "li":
            self._list.item()
        else:
            self._list.open(_list_start(node) if node.tag == "ol" else None)

    def _enter_table(self, tag: str) -> Iterator[Block]:
        if tag == "table":
            yield from self._end_block()
            self._tables += 1
        elif self._tables == 1 and tag == "tr":
            self._cells.append([])
        else:
            self._parts.append(" ")

    def _leave_table(self, tag: str) -> Iterator[Block]:
        """Tables within tables are text of their cell: the outermost is what has rows."""
        if self._tables == 1 and tag != "table":
            self._cells[-1].append(self._take_line())
        elif tag == "table":
            self._tables -= 1
            if not self._tables:
                rows, self._cells = self._cells, []
                yield from self._list.flush()
                yield Block("table", join_rows(rows))

    def _end_block(self, level: int = 0) -> Iterator[Block]:
        if self._tables:
            self._parts.append(" ")
        elif self._pres:
            self._parts.append("\n")
        elif self._list.is_open:
            self._list.add(self._take_line())
        elif level:
            yield Block("heading", self._take_line(), level)
        else:
            yield Block("paragraph", clean_prose(self._take()))

    def _end_code(self) -> Iterator[Block]:
        self._pres -= 1
        if self._tables or self._pres:
            return
        yield from self._list.flush()
        yield Block("code", clean_code(self._take()))

    def _take(self) -> str:
        parts, self._parts = self._parts, []
        return "".join(parts)

    def _take_line(self) -> str:
        return clean_line(self._take())


def _is_unread(node: "LexborNode") -> bool:
    if node.tag in _UNREAD:
        return True
    attributes = node.attributes
    if not attributes:
        return False
    return (
        "hidden" in attributes
        or attributes.get("aria-hidden") == "true"
        or attributes.get("role") == "navigation"
        or (node.tag == "dialog" and "open" not in attributes)
        or bool(_HIDING_STYLE.search((attributes.get("style") or "")[:_MAX_STYLE]))
    )


def _list_start(node: "LexborNode") -> int:
    start = node.attributes.get("start") or ""
    return int(start) if re.fullmatch(r"-?\d{1,9}", start, re.ASCII) else 1
