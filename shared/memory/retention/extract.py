"""A summary without a model: the sentences that have most in common with all others, in order of time. Pure.

Degree centrality over the cosines of weighted words (LexRank without its random walk; Erkan & Radev 2004), and no
sentence that says what a chosen one says already.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from shared.memory.search.terms import item_terms

_END_OF_SENTENCE = re.compile(r"(?<=[.!?…])\s+|\n+")
_MOST_SENTENCES = 400
_MOST_SENTENCE_CHARACTERS = 400
_LEAST_SENTENCE_CHARACTERS = 12
_SAME = 0.6
"""From this cosine on two sentences say the same."""

Weights = Mapping[str, float]


def extract(texts: Iterable[str], characters: int) -> str:
    """The most telling sentences of texts in order, one a line, as many as fit into so many characters (at least one).

    Equal texts give equal summaries.
    """
    sentences = list(dict.fromkeys(sentence for text in texts for sentence in _sentences(text)))[:_MOST_SENTENCES]
    vectors = _weighted([item_terms(sentence) for sentence in sentences])
    central = [sum(_cosine(one, other) for other in vectors) for one in vectors]
    order = sorted(range(len(sentences)), key=lambda place: (-central[place], place))
    chosen: list[int] = []
    for place in order:
        if characters < len(sentences[place]) and chosen:
            continue
        if all(_cosine(vectors[place], vectors[other]) < _SAME for other in chosen):
            chosen.append(place)
            characters -= len(sentences[place]) + 1
    return "\n".join(sentences[place] for place in sorted(chosen))


def _sentences(text: str) -> list[str]:
    found = [part.strip()[:_MOST_SENTENCE_CHARACTERS] for part in _END_OF_SENTENCE.split(text)]
    told = [part for part in found if len(part) >= _LEAST_SENTENCE_CHARACTERS]
    return told or [text.strip()[:_MOST_SENTENCE_CHARACTERS]]


def _weighted(counted: Sequence[Mapping[str, int]]) -> list[Weights]:
    """Unit vectors of tf-idf, so that their products are cosines."""
    found = Counter(term for terms in counted for term in terms)
    weighted = [
        {term: count * math.log(1 + len(counted) / found[term]) for term, count in terms.items()} for terms in counted
    ]
    lengths = [math.sqrt(sum(weight * weight for weight in terms.values())) or 1.0 for terms in weighted]
    return [
        {term: weight / length for term, weight in terms.items()}
        for terms, length in zip(weighted, lengths, strict=True)
    ]


def _cosine(one: Weights, other: Weights) -> float:
    small, large = (one, other) if len(one) <= len(other) else (other, one)
    return sum(weight * large[term] for term, weight in small.items() if term in large)
