"""One score out of what a search knows of each candidate. Pure.

The score is a linear combination of normalised signals (Bruch, Gai and Ingber 2023, arXiv:2210.11934: better than
ranks fused reciprocally, and it was so here): the candidate's own cosine and BM25 (Robertson and Zaragoza 2009), those
of its neighbours in the same thread, what the best of its thread is like, and what is known of it without the question.
The weights were fitted by the softmax likelihood of the evidence turns of five LoCoMo conversations, each held out in
turn, then rounded; ``docs/memory-search.md`` has the figures. Both signals of a candidate have an absolute scale, so
that a score does: cosines are taken between two marks of the embedder, and BM25 is measured by what the question could
give, so that words decide little where they match poorly.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Literal, NamedTuple

from shared.memory.search.terms import query_terms

Mode = Literal["hybrid", "vector", "lexical"]


class Candidate(NamedTuple):
    """An item that may answer: a tuple, because a search makes a hundred of them.

    ``cosine`` is None while it has no embedding; ``bm25`` is 0 when it holds no query term; ``held`` has bit i set when
    it holds the i-th query term; ``length`` counts its posted terms; ``asks`` tells that its text ends with a question
    mark; ``importance`` is 0 to 1, 0.5 when unstated.

    ``near_*`` are of its neighbours in the same thread, two on both sides: the means of their cosines (each held
    between the question's marks, the lower one without an embedding) and of their BM25, and the greatest cosine. None
    without any. ``held_beside`` is what the two next to it hold; ``replies`` tells that the one before it asks.
    """

    number: int
    thread: str | None
    author: str | None
    occurred_at: datetime
    importance: float
    length: int
    cosine: float | None
    bm25: float
    held: int
    asks: bool
    near_cosine: float | None = None
    near_best: float | None = None
    near_bm25: float | None = None
    held_beside: int | None = None
    replies: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked, when, and how much each of ``query_terms(text)`` tells (its inverse document frequency).

    ``cosines`` are two marks of the embedder: what counts as 0 (a little less than unrelated texts have) and what as 1.
    Most embedders do well with the default; multilingual-e5-small needs 0.75 and 0.92.
    """

    text: str
    asked_at: datetime
    idf: tuple[float, ...]
    cosines: tuple[float, float] = (0.0, 0.9)


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """How much each signal counts; the positive ones of the score's parts add up to 1."""

    vector: float = 0.12
    lexical: float = 0.1
    near_vector: float = 0.13
    near_lexical: float = 0.14
    thread: float = 0.21
    coverage: float = 0.13
    author: float = 0.03
    length: float = 0.11
    asks: float = -0.03
    replies: float = 0.03
    alone: float = 0.55
    """Share of its own signal by which a candidate without neighbours is credited for them: what neighbours of good
    candidates have on average, so that lone facts are neither favoured over turns of a thread nor buried under them."""
    recency: float = 0.0
    """Bonus of something said now, as a share of its score; halves each ``half_life_days``."""
    half_life_days: float = 30.0
    importance: float = 0.1
    """Bonus (malus) of importance 1 (0), as a share of the score."""
    breadth: float = 0.02
    """What an item of a thread answered already must be better by to take one of the last places."""
    breadth_share: float = 0.3
    """Share of the ``k`` places that are the last ones."""


class Ranked(NamedTuple):
    """A candidate's score, 0 (unrelated) to 1 (perfect in every way).

    ``why`` has its parts, which add up to it unclamped, when they were asked for.
    """

    number: int
    score: float
    why: dict[str, float]


DEFAULT = Weights()
_FULL_LENGTH = math.log(60)
_PARTS = ("vector", "lexical", "neighbours", "thread", "coverage", "author", "form")
_SECONDS_A_DAY = 86_400


def rank(
    candidates: Sequence[Candidate],
    question: Question,
    k: int,
    mode: Mode = "hybrid",
    weights: Weights = DEFAULT,
    *,
    explain: bool = True,
) -> list[Ranked]:
    """All candidates, best first; the first ``k`` spread over threads a little. Equal scores go by number."""
    scale = _scale(candidates, question, weights)
    parts = {"hybrid": _hybrid, "vector": _vector_only, "lexical": _lexical_only}[mode](candidates, scale)
    ranked = [_ranked(one, each, scale, explain) for one, each in zip(candidates, parts, strict=True)]
    ranked.sort(key=lambda one: (-one.score, one.number))
    if mode != "hybrid":
        return ranked
    return _spread(ranked, {one.number: one.thread for one in candidates}, k, weights)


@dataclass(frozen=True, slots=True)
class _Scale:
    """What raw signals are measured by. ``shares`` has the share of what the question tells by the bit of each term."""

    question: Question
    weights: Weights
    low: float
    width: float
    best_bm25: float
    shares: Mapping[int, float]
    named: Mapping[str | None, float]

    def similarity(self, cosine: float | None) -> float:
        """The cosine between the embedder's marks, as 0 to 1; 0 without one."""
        if cosine is None or cosine <= self.low:
            return 0.0
        share = (cosine - self.low) / self.width
        return share if share < 1.0 else 1.0

    def coverage(self, held: int) -> float:
        """The share of what the query terms tell that these tell."""
        share = 0.0
        while held:
            bit = held & -held
            share += self.shares.get(bit, 0.0)
            held ^= bit
        return share


def _scale(candidates: Sequence[Candidate], question: Question, weights: Weights) -> _Scale:
    told = sum(question.idf) or 1.0  # what an item of average length has for BM25 when it holds each term once
    asked = frozenset(query_terms(question.text))
    low, high = question.cosines
    return _Scale(
        question=question,
        weights=weights,
        low=low,
        width=high - low,
        best_bm25=max([told, *(one.bm25 for one in candidates)]),
        shares={1 << place: idf / told for place, idf in enumerate(question.idf)},
        named={author: _named(author, asked) for author in {one.author for one in candidates}},
    )


def _named(author: str | None, asked: frozenset[str]) -> float:
    """The share of the terms of that word of the name which the question has most of."""
    return max((len(asked & word) / len(word) for word in _name(author)), default=0.0)


@lru_cache(maxsize=1_000)
def _name(author: str | None) -> tuple[frozenset[str], ...]:
    words = (frozenset(query_terms(word)) for word in (author or "").split())
    return tuple(word for word in words if word)


def _vector_only(candidates: Sequence[Candidate], scale: _Scale) -> list[tuple[float, ...]]:
    return [(scale.similarity(one.cosine),) for one in candidates]


def _lexical_only(candidates: Sequence[Candidate], scale: _Scale) -> list[tuple[float, ...]]:
    return [(0.0, one.bm25 / scale.best_bm25) for one in candidates]


def _hybrid(candidates: Sequence[Candidate], scale: _Scale) -> list[tuple[float, ...]]:
    """The parts of each candidate's score, in the order of ``_PARTS``."""
    seen = [_seen(one, scale) for one in candidates]
    best: dict[str | None, float] = {}
    for one, signals in zip(candidates, seen, strict=True):
        best[one.thread] = max(best.get(one.thread, 0.0), signals.most)
    return [
        _parts(one, signals, signals.own if one.thread is None else best[one.thread], scale)
        for one, signals in zip(candidates, seen, strict=True)
    ]


class _Seen(NamedTuple):
    """What a candidate has of both signals, its neighbours have on average, and the most similar of them all has."""

    own: float
    lexical: float
    near_vector: float
    near_lexical: float
    most: float


def _seen(one: Candidate, scale: _Scale) -> _Seen:
    own, lexical = scale.similarity(one.cosine), one.bm25 / scale.best_bm25
    if one.near_bm25 is None:
        alone = scale.weights.alone
        return _Seen(own, lexical, alone * own, alone * lexical, own)
    words = min(1.0, one.near_bm25 / scale.best_bm25)
    most = max(own, scale.similarity(one.near_best))
    return _Seen(own, lexical, scale.similarity(one.near_cosine), words, most)


def _parts(one: Candidate, signals: _Seen, thread: float, scale: _Scale) -> tuple[float, ...]:
    weights = scale.weights
    return (
        weights.vector * signals.own,
        weights.lexical * signals.lexical,
        weights.near_vector * signals.near_vector + weights.near_lexical * signals.near_lexical,
        weights.thread * thread,
        weights.coverage * scale.coverage(one.held | (one.held_beside or 0)),
        weights.author * scale.named[one.author],
        weights.length * min(1.0, math.log1p(one.length) / _FULL_LENGTH)
        + weights.asks * one.asks
        + weights.replies * bool(one.replies),
    )


def _ranked(one: Candidate, parts: tuple[float, ...], scale: _Scale, explain: bool) -> Ranked:
    score, weights = sum(parts), scale.weights
    recency = score * weights.recency * _freshness(one, scale) if weights.recency else 0.0
    importance = score * weights.importance * 2 * (one.importance - 0.5)
    why = {}
    if explain:
        why = dict(zip((*_PARTS[: len(parts)], "recency", "importance"), (*parts, recency, importance), strict=True))
    return Ranked(number=one.number, score=min(1.0, max(0.0, score + recency + importance)), why=why)


def _freshness(one: Candidate, scale: _Scale) -> float:
    """1 for something said now, halved each half-life."""
    age = (scale.question.asked_at - one.occurred_at).total_seconds() / _SECONDS_A_DAY
    return math.pow(0.5, max(0.0, age) / scale.weights.half_life_days)


def _spread(ranked: list[Ranked], threads: Mapping[int, str | None], k: int, weights: Weights) -> list[Ranked]:
    """Give the last of the first ``k`` places to threads not yet seen, unless their best is worse by ``breadth``."""
    head = k - int(k * weights.breadth_share)
    chosen, rest = ranked[:head], ranked[head:]
    seen = {threads[one.number] for one in chosen} - {None}
    for _ in range(min(k - head, len(rest))):
        best = max(rest, key=lambda one: one.score - weights.breadth * (threads[one.number] in seen))
        rest.remove(best)
        chosen.append(best)
        seen |= {threads[best.number]} - {None}
    return sorted(chosen, key=lambda one: (-one.score, one.number)) + rest
