"""From a document to the chunks that memory keeps: as large as the embedder sees, cut where the document itself is.

Pure, deterministic and linear in time: 1,000,000 characters take under a second.
"""

from collections.abc import Iterator

from shared.memory.documents.atoms import Atom, atoms_of
from shared.memory.documents.model import Chunk, ParsedDocument

TARGET_TOKENS = 180
"""By estimate, headings included. The offline model sees 512, but takes three times as long for them as for 256."""
OVERLAP_TOKENS = 45
"""A sentence of ten words in Ukrainian, several in English."""
MIN_TARGET_TOKENS = 16


def chunk_blocks(
    document: ParsedDocument, *, target_tokens: int = TARGET_TOKENS, overlap_tokens: int = OVERLAP_TOKENS
) -> list[Chunk]:
    """The chunks of ``document`` in order; together they hold all of its words.

    None has more than ``target_tokens`` (at least 16) with its headings, by ``estimate_tokens``, and none goes over the
    end of a section of the highest level. The last sentences of one, of up to ``overlap_tokens`` (at most half of the
    target), begin the next where both lie in one section. Raises ValueError for sizes out of bounds.
    """
    if target_tokens < MIN_TARGET_TOKENS or not 0 <= overlap_tokens <= target_tokens // 2:
        raise ValueError(f"chunks of {target_tokens} tokens cannot overlap by {overlap_tokens}")
    groups = _groups(atoms_of(document, target_tokens), overlap_tokens)
    return [_chunk(document.text, group, position) for position, group in enumerate(groups)]


def _groups(atoms: Iterator[Atom], overlap_tokens: int) -> Iterator[list[Atom]]:
    group: list[Atom] = []
    used = 0
    for atom in atoms:
        if group and _must_part(group, used, atom):
            kept, carried = _split_off(group, atom, overlap_tokens)
            yield kept
            group, used = carried, _tokens(carried)
            if group and used + atom.tokens > group[0].section.budget:
                yield group  # headings, which have to stand alone: an overlap fits
                group, used = [], 0
        group.append(atom)
        used += atom.tokens
    if group:
        yield group


def _must_part(group: list[Atom], used: int, atom: Atom) -> bool:
    """When the chunk is full, before a section of the highest level, and before any heading when it is half full.

    Headings without text between them stay together, as a title and the first heading below it do.
    """
    budget = group[0].section.budget
    if used + atom.tokens > budget:
        return True
    if not atom.is_heading or all(earlier.is_heading for earlier in group):
        return False
    return atom.section.top != group[-1].section.top or (used > budget // 2 and not group[-1].is_heading)


def _split_off(group: list[Atom], atom: Atom, overlap_tokens: int) -> tuple[list[Atom], list[Atom]]:
    """The group to close, and the atoms that begin the next: headings of what follows, or the overlap."""
    if atom.section.top != group[-1].section.top:
        return group, []
    count = _trailing_headings(group)
    if 0 < count < len(group):
        return group[:-count], group[-count:]
    if count or atom.is_heading:
        return group, []
    return group, _overlap(group, atom, overlap_tokens)


def _trailing_headings(group: list[Atom]) -> int:
    count = 0
    for atom in reversed(group):
        if not atom.is_heading:
            break
        count += 1
    return count


def _overlap(group: list[Atom], atom: Atom, overlap_tokens: int) -> list[Atom]:
    """The last sentences of the section, as many as fit with the atom that follows."""
    room = min(overlap_tokens, atom.section.budget - atom.tokens)
    kept: list[Atom] = []
    for last in reversed(group[1:]):
        room -= last.tokens
        if room < 0 or last.is_heading or last.section is not atom.section:
            break
        kept.append(last)
    return kept[::-1]


def _tokens(atoms: list[Atom]) -> int:
    return sum(atom.tokens for atom in atoms)


def _chunk(text: str, group: list[Atom], position: int) -> Chunk:
    first, last = group[0], group[-1]
    return Chunk(
        text=text[first.start : last.end],
        heading_path=first.section.path,
        position=position,
        start=first.start,
        end=last.end,
        page=first.page,
    )
