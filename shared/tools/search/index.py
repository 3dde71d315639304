"""A microDAO's active tools as arrays: vectors and an inverted index of words. Pure; an index never changes.

A tool's place in the arrays is its slot; slots are in the order of the entries' numbers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from shared.tools.search.filters import Entry, Facets, facets_of
from shared.tools.search.frame import Frame

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BYTES_A_TOOL = 400
_BYTES_A_WORD = 120
"""What a tool's and a word's Python objects come to, about."""


@dataclass(frozen=True, slots=True)
class Words:
    """How often each term stands in an entry's text."""

    entry: int
    terms: Sequence[str]
    frequencies: Sequence[int]


@dataclass(frozen=True, slots=True)
class Postings:
    """Which slots hold which terms, sorted by term; ``terms`` are numbers of the vocabulary."""

    terms: "NDArray[np.int32]"
    slots: "NDArray[np.int32]"
    frequencies: "NDArray[np.float32]"

    def of(self, term: int) -> "tuple[NDArray[np.int32], NDArray[np.float32]]":
        """The slots that hold a term, and how often."""
        first, last = np.searchsorted(self.terms, [term, term + 1])
        return self.slots[first:last], self.frequencies[first:last]


@dataclass(frozen=True, slots=True)
class CatalogueIndex:
    """What a search looks through. ``vectors`` [tools, dimensions] are as stored, zero where there is none yet (see
    ``embedded``); ``mean`` [dimensions] and ``lengths`` [tools] put them in their frame (``frame.cosines``); ``words``
    [tools] counts each text's, 0 where they are not here yet."""

    tools: tuple[Entry, ...]
    facets: Facets = field(repr=False)
    entries: "NDArray[np.int64]"
    vectors: "NDArray[np.float32]"
    embedded: "NDArray[np.bool_]"
    mean: "NDArray[np.float32]"
    lengths: "NDArray[np.float32]"
    words: "NDArray[np.float32]"
    postings: Postings
    vocabulary: dict[str, int] = field(repr=False)

    @property
    def size(self) -> int:
        """Bytes of memory, about."""
        arrays = (self.entries, self.vectors, self.embedded, self.lengths, self.words)
        posted = (self.postings.terms, self.postings.slots, self.postings.frequencies)
        objects = _BYTES_A_TOOL * len(self.tools) + _BYTES_A_WORD * len(self.vocabulary)
        return sum(one.nbytes for one in (*arrays, *posted)) + objects

    def slots_of(self, entries: "NDArray[np.int64]") -> "NDArray[np.intp]":
        """The slots of those entries that are here."""
        if not len(self.entries):
            return np.empty(0, np.intp)
        places = np.minimum(np.searchsorted(self.entries, entries), len(self.entries) - 1)
        found: NDArray[np.intp] = places[self.entries[places] == entries]
        return found

    def without_words(self) -> list[int]:
        """Entries whose words are not here."""
        return [int(one) for one in self.entries[self.words == 0]]

    def without_vector(self) -> list[int]:
        """Entries whose vector is not here."""
        return [int(one) for one in self.entries[~self.embedded]]


def empty_index(dimensions: int) -> CatalogueIndex:
    """An index of nothing."""
    none = np.empty(0, np.int32)
    return _blank((), dimensions, Postings(none, none, np.empty(0, np.float32)), {})


def next_index(old: CatalogueIndex, tools: Sequence[Entry]) -> CatalogueIndex:
    """The index of these tools (each entry once), with what the old one knows of them."""
    ordered = tuple(sorted(tools, key=lambda tool: tool.entry))
    new = _blank(ordered, old.vectors.shape[1], old.postings, old.vocabulary)
    kept = old.slots_of(new.entries)
    slots = np.searchsorted(new.entries, old.entries[kept])
    new.vectors[slots], new.embedded[slots], new.words[slots] = old.vectors[kept], old.embedded[kept], old.words[kept]
    moved = np.full(len(old.entries), -1, np.int32)
    moved[kept] = slots
    places = moved[old.postings.slots]
    stays = places >= 0
    postings = Postings(old.postings.terms[stays], places[stays], old.postings.frequencies[stays])
    return replace(new, postings=postings)


def with_words(index: CatalogueIndex, words: Sequence[Words]) -> CatalogueIndex:
    """The same with the words of entries that had none."""
    vocabulary = dict(index.vocabulary)
    counted = index.words.copy()
    slots = index.slots_of(np.array([one.entry for one in words], np.int64))
    terms: list[int] = []
    for slot, one in zip(slots, words, strict=True):
        terms += [vocabulary.setdefault(term, len(vocabulary)) for term in one.terms]
        counted[slot] = max(1, sum(one.frequencies))
    holders = np.repeat(slots, [len(one.terms) for one in words]).astype(np.int32)
    frequencies = np.array([count for one in words for count in one.frequencies], np.float32)
    postings = _merged(index.postings, Postings(np.array(terms, np.int32), holders, frequencies))
    return replace(index, words=counted, postings=postings, vocabulary=vocabulary)


def with_vectors(index: CatalogueIndex, vectors: Mapping[int, "NDArray[np.float32]"]) -> CatalogueIndex:
    """The same with the vectors of entries that had none."""
    slots = index.slots_of(np.array(list(vectors), np.int64))
    made, embedded = index.vectors.copy(), index.embedded.copy()
    if vectors:
        made[slots] = np.stack(list(vectors.values()))
        embedded[slots] = True
    return replace(index, vectors=made, embedded=embedded)


def in_frame(index: CatalogueIndex, frame: Frame) -> CatalogueIndex:
    """The same with vectors measured in the frame, whose mean of tools gives way to that of many real ones."""
    mean = frame.mean_of(index.vectors, int(index.embedded.sum()))
    return replace(index, mean=mean, lengths=frame.lengths(index.vectors, mean))


def _merged(old: Postings, new: Postings) -> Postings:
    terms = np.concatenate([old.terms, new.terms])
    order = np.argsort(terms, kind="stable")
    slots, frequencies = np.concatenate([old.slots, new.slots]), np.concatenate([old.frequencies, new.frequencies])
    return Postings(terms[order], slots[order], frequencies[order])


def _blank(tools: tuple[Entry, ...], dimensions: int, postings: Postings, vocabulary: dict[str, int]) -> CatalogueIndex:
    return CatalogueIndex(
        tools=tools,
        facets=facets_of(tools),
        entries=np.array([tool.entry for tool in tools], np.int64),
        vectors=np.zeros((len(tools), dimensions), np.float32),
        embedded=np.zeros(len(tools), np.bool_),
        mean=np.zeros(dimensions, np.float32),
        lengths=np.ones(len(tools), np.float32),
        words=np.zeros(len(tools), np.float32),
        postings=postings,
        vocabulary=vocabulary,
    )
