"""Which tools answer a request best. Pure.

A tool's score is .8 of meaning and .2 of words. Meaning is half of the best cosine that the request or any clause of
it has to the tool and half of the whole request's, in the space's frame: 0 for what has nothing to do with it, about .5
for what fits. Words are BM25 (Robertson and Zaragoza 2009) over the tools that may be used, divided by the best one's:
a sum keeps how much better one tool is than the next, which ranks alone (reciprocal rank fusion) throw away.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from shared.tools.search.frame import cosines
from shared.tools.search.index import CatalogueIndex

if TYPE_CHECKING:
    from numpy.typing import NDArray

MEANING: Final = 0.8
"""The share of meaning in a score; the rest is words'."""

WHOLE: Final = 0.5
"""The whole request's share of meaning; the rest is its best clause's."""

FITS: Final = 0.5
"""The cosine in the frame at which a tool's meaning counts 1."""

_SATURATION: Final = 1.5
_LENGTH: Final = 0.75
"""BM25's k1 and b."""


@dataclass(frozen=True, slots=True)
class Question:
    """A request: ``vectors`` [clauses, dimensions] in the space's frame, the whole one's first; None where
    there is no embedder to ask."""

    vectors: "NDArray[np.float32] | None"
    terms: Sequence[str]


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores of tools, each [tools], in the order of the slots asked for."""

    total: "NDArray[np.float32]"
    meaning: "NDArray[np.float32]"
    words: "NDArray[np.float32]"

    @property
    def found(self) -> bool:
        """Whether the request said anything about any tool."""
        return bool(np.any(self.total != 0))


def score(index: CatalogueIndex, slots: "NDArray[np.intp]", question: Question) -> Scores:
    """How well each of the tools in ``slots`` (ascending) answers. A tool without a vector is taken at its words."""
    words = score_words(index, slots, question.terms)
    meaning = words.copy()
    if question.vectors is not None and len(question.vectors):
        vectors = index.vectors if len(slots) == len(index.tools) else index.vectors[slots]
        near = cosines(question.vectors, vectors, index.mean, index.lengths[slots])
        nearest = np.float32(WHOLE) * near[:, 0] + np.float32(1 - WHOLE) * near.max(axis=1)
        meaning = np.where(index.embedded[slots], nearest / np.float32(FITS), words)
    total = np.float32(MEANING) * meaning + np.float32(1 - MEANING) * words
    return Scores(total, meaning, words)


def score_words(index: CatalogueIndex, slots: "NDArray[np.intp]", terms: Sequence[str]) -> "NDArray[np.float32]":
    """BM25 of each of the tools in ``slots`` (ascending), among themselves, from 0 to 1 for the best."""
    scores = np.zeros(len(slots), np.float32)
    if not len(slots):
        return scores
    place = np.full(len(index.tools), -1, np.int32)
    place[slots] = np.arange(len(slots), dtype=np.int32)
    words = index.words[slots]
    length = _SATURATION * (1 - _LENGTH + _LENGTH * words / max(1.0, float(words.mean())))
    for term in terms:
        number = index.vocabulary.get(term)
        if number is None:
            continue
        holders, frequencies = index.postings.of(number)
        places = place[holders]
        held = places >= 0
        places, frequencies = places[held], frequencies[held]
        idf = np.log1p((len(slots) - len(places) + 0.5) / (len(places) + 0.5))
        scores[places] += idf * frequencies * (_SATURATION + 1) / (frequencies + length[places])
    most = scores.max()
    return scores / most if most > 0 else scores


def best(scores: "NDArray[np.float32]", k: int) -> "NDArray[np.intp]":
    """Where the ``k`` highest scores are, highest first; of equals the first."""
    if k < len(scores):
        least = np.partition(scores, len(scores) - k)[len(scores) - k]
        candidates = np.flatnonzero(scores >= least)
    else:
        candidates = np.arange(len(scores))
    order = np.argsort(-scores[candidates], kind="stable")
    chosen: NDArray[np.intp] = candidates[order][:k]
    return chosen
