"""What a chunk is made of: sentences, lines, headings; words or parts of words where those are too long. Pure."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from shared.memory.documents.model import Block, ParsedDocument, join_path
from shared.memory.documents.tokens import bound_tokens, estimate_tokens

_PATH_SHARE = 4
"""The headings above a chunk may take one part in four of its tokens."""
_HEADING_CHARACTERS = 200
_SENTENCE_END = re.compile(r"(?:(?<!\b\w)\.|[!?…。！？])[.!?…]*[\"'»”’)\]]*\s+(?=\S)")
_LINE_END = re.compile(r"\n+")
_WORD = re.compile(r"\S+")


@dataclass(frozen=True, slots=True)
class Section:
    """What a heading rules: its block, the headings around that, and the tokens that those leave to a chunk."""

    path: tuple[str, ...]
    budget: int
    top: int
    """Which section of the highest level this belongs to."""


class Atom(NamedTuple):
    """``text[start:end]`` of the document, never split again. ``tokens`` is at most its section's budget."""

    start: int
    end: int
    tokens: int
    section: Section
    is_heading: bool
    page: int | None


def atoms_of(document: ParsedDocument, target_tokens: int) -> Iterator[Atom]:
    """The atoms of ``document`` in order; all of its text but spaces between them."""
    for (block, start), (outer, inner) in zip(
        zip(document.blocks, document.offsets, strict=True), _sections(document, target_tokens), strict=True
    ):
        section = outer if block.kind == "heading" else inner
        for begin, end, tokens in _fitted(block, section.budget):
            yield Atom(start + begin, start + end, tokens, section, block.kind == "heading", block.page)


def _sections(document: ParsedDocument, target_tokens: int) -> Iterator[tuple[Section, Section]]:
    """For each block what it stands in itself, and what its own text would if it were under it."""
    top_level = _top_level(document)
    stack: list[tuple[int, str]] = []
    current = Section((), target_tokens, 0)
    for block in document.blocks:
        if block.kind != "heading":
            yield current, current
            continue
        top = current.top + (block.level <= top_level)
        stack = [entry for entry in stack if entry[0] < block.level]
        outer = _section(stack, target_tokens, top)
        stack.append((block.level, block.text[:_HEADING_CHARACTERS]))
        current = _section(stack, target_tokens, top)
        yield outer, current


def _top_level(document: ParsedDocument) -> int:
    """The highest level with more than one heading: a single one is the document's title."""
    levels = [block.level for block in document.blocks if block.kind == "heading"]
    return min((level for level in set(levels) if levels.count(level) > 1), default=0)


def _section(stack: list[tuple[int, str]], target_tokens: int, top: int) -> Section:
    """Of headings that take too much room, the outer go first."""
    path = tuple(text for _, text in stack)
    while path and estimate_tokens(join_path(path)) > target_tokens // _PATH_SHARE:
        path = path[1:]
    return Section(path, target_tokens - estimate_tokens(join_path(path)), top)


def _fitted(block: Block, budget: int) -> Iterator[tuple[int, int, int]]:
    """Start, end and tokens of the block's parts, each within ``budget``."""
    for start, end in _parts(block):
        tokens = estimate_tokens(block.text[start:end])
        if tokens <= budget:
            yield start, end, tokens
        else:
            yield from _words(block.text, start, end, budget)


def _parts(block: Block) -> Iterator[tuple[int, int]]:
    """Sentences of prose, lines of all else; a heading is one."""
    if block.kind == "heading":
        yield 0, len(block.text)
        return
    begin = 0
    for found in (_SENTENCE_END if block.kind == "paragraph" else _LINE_END).finditer(block.text):
        if block.kind == "paragraph" and block.text[found.end()].islower():
            continue  # an abbreviation
        yield begin, begin + len(block.text[begin : found.end()].rstrip())
        begin = found.end()
    if begin < len(block.text):
        yield begin, len(block.text)


def _words(text: str, start: int, end: int, budget: int) -> Iterator[tuple[int, int, int]]:
    """As many words at a time as fit; a word that does not fit at all by its characters."""
    begin, last, used = start, start, 0
    for word in _WORD.finditer(text, start, end):
        tokens = estimate_tokens(word[0])
        if used and used + tokens > budget:
            yield begin, last, used
            used = 0
        if tokens > budget:
            yield from _characters(text, word.start(), word.end(), budget)
            continue
        begin = begin if used else word.start()
        last, used = word.end(), used + tokens
    if used:
        yield begin, last, used


def _characters(text: str, start: int, end: int, budget: int) -> Iterator[tuple[int, int, int]]:
    step = max(budget // 3, 1)
    for begin in range(start, end, step):
        cut = min(begin + step, end)
        yield begin, cut, bound_tokens(text[begin:cut])
