"""One score out of what a search knows of each candidate. Pure.

The score is a linear combination of normalised signals (Bruch, Gai and Ingber 2023, arXiv:2210.11934: better than
ranks fused reciprocally, and it was so here): the candidate's own cosine and BM25 (Robertson and Zaragoza 2009), those
of its neighbours in the same thread, what the best of its thread is like, and what is known of it without the question.
The weights were fitted by the softmax likelihood of the evidence turns of five LoCoMo conversations, each held out in
turn, then rounded; ``docs/memory-search.md`` has the figures. They suit embedders whose cosine of unrelated texts is
about 0; others need ``cosine_floor``.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Literal

from shared.memory.search.terms import query_terms

Mode = Literal["hybrid", "vector", "lexical"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbour:
    """A turn near a candidate, as the question sees it. ``held`` has bit i set when it holds the i-th query term."""

    cosine: float | None = None
    bm25: float = 0.0
    held: int = 0
    asks: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """An item that may answer. ``neighbours`` are those of its thread by distance: -1 is the turn before it.

    ``cosine`` is None while it has no embedding; ``bm25`` is 0 when it holds no query term; ``length`` counts its
    posted terms; ``asks`` tells that its text ends with a question mark; ``importance`` is 0 to 1, 0.5 when unstated.
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
    neighbours: Mapping[int, Neighbour] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked, when, and how much each of ``query_terms(text)`` tells (its inverse document frequency)."""

    text: str
    asked_at: datetime
    idf: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """How much each signal counts; the positive ones of the score's parts add up to 1."""

    vector: float = 0.13
    lexical: float = 0.09
    near_vector: float = 0.14
    near_lexical: float = 0.13
    thread: float = 0.18
    coverage: float = 0.14
    author: float = 0.04
    length: float = 0.12
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
    cosine_floor: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranked:
    """A candidate's score, 0 (unrelated) to 1 (perfect in every way), and its parts: they add up to it, unclamped."""

    number: int
    score: float
    why: dict[str, float]


DEFAULT = Weights()
_FULL_LENGTH = 60
_COVERED_STEPS = (-1, 1)


def rank(
    candidates: Sequence[Candidate], question: Question, k: int, mode: Mode = "hybrid", weights: Weights = DEFAULT
) -> list[Ranked]:
    """All candidates, best first; the first ``k`` spread over threads a little. Equal scores go by number."""
    top = max((one.bm25 for one in candidates), default=0.0) or 1.0
    asked, told = frozenset(query_terms(question.text)), sum(question.idf) or 1.0
    scale = _Scale(question.idf, asked, told, weights, top, _best_of_threads(candidates, weights))
    parts = {"hybrid": scale.parts, "vector": scale.vector_only, "lexical": scale.lexical_only}[mode]
    ranked = [_ranked(one, parts(one), question, weights) for one in candidates]
    ranked.sort(key=lambda one: (-one.score, one.number))
    if mode != "hybrid":
        return ranked
    return _spread(ranked, {one.number: one.thread for one in candidates}, k, weights)


@dataclass(frozen=True, slots=True)
class _Scale:
    """Turns raw signals into the parts of a score."""

    idf: tuple[float, ...]
    asked: frozenset[str]
    told: float
    weights: Weights
    top: float
    best: Mapping[str, float]

    def parts(self, one: Candidate) -> dict[str, float]:
        weights, own = self.weights, _similarity(one.cosine, self.weights)
        lexical = one.bm25 / self.top
        near_vector, near_lexical = self._near(one, own, lexical)
        before = one.neighbours.get(-1)
        return {
            "vector": weights.vector * own,
            "lexical": weights.lexical * lexical,
            "neighbours": weights.near_vector * near_vector + weights.near_lexical * near_lexical,
            "thread": weights.thread * (own if one.thread is None else self.best[one.thread]),
            "coverage": weights.coverage * self._coverage(one),
            "author": weights.author * (not self.asked.isdisjoint(_name(one.author))),
            "form": weights.length * min(1.0, math.log1p(one.length) / math.log(_FULL_LENGTH))
            + weights.asks * one.asks
            + weights.replies * (before is not None and before.asks),
        }

    def vector_only(self, one: Candidate) -> dict[str, float]:
        return {"vector": _similarity(one.cosine, self.weights)}

    def lexical_only(self, one: Candidate) -> dict[str, float]:
        return {"lexical": one.bm25 / self.top}

    def _near(self, one: Candidate, own: float, lexical: float) -> tuple[float, float]:
        """The mean cosine and BM25 of its neighbours."""
        near = one.neighbours.values()
        if not near:
            return self.weights.alone * own, self.weights.alone * lexical
        cosines = sum(_similarity(other.cosine, self.weights) for other in near)
        return cosines / len(near), min(1.0, sum(other.bm25 for other in near) / self.top / len(near))

    def _coverage(self, one: Candidate) -> float:
        """The share of what the query terms tell that the candidate and its next neighbours hold."""
        held = one.held
        for step in _COVERED_STEPS:
            held |= one.neighbours[step].held if step in one.neighbours else 0
        return sum(idf for place, idf in enumerate(self.idf) if held >> place & 1) / self.told


def _best_of_threads(candidates: Sequence[Candidate], weights: Weights) -> dict[str, float]:
    best: dict[str, float] = defaultdict(float)
    for one in candidates:
        if one.thread is not None:
            near = (other.cosine for other in one.neighbours.values())
            best[one.thread] = max(best[one.thread], *(_similarity(each, weights) for each in (one.cosine, *near)))
    return best


def _similarity(cosine: float | None, weights: Weights) -> float:
    """The cosine from the embedder's floor up, as 0 to 1."""
    floor = weights.cosine_floor
    if cosine is None or cosine <= floor:  # no min() and max(): it is asked a thousand times a question
        return 0.0
    return (cosine - floor) / (1.0 - floor) if cosine < 1.0 else 1.0


@lru_cache(maxsize=1_000)
def _name(author: str | None) -> frozenset[str]:
    return frozenset(query_terms(author or ""))


def _ranked(one: Candidate, parts: dict[str, float], question: Question, weights: Weights) -> Ranked:
    score = sum(parts.values())
    age_days = max(0.0, (question.asked_at - one.occurred_at).total_seconds() / 86_400)
    recency = score * weights.recency * 0.5 ** (age_days / weights.half_life_days)
    importance = score * weights.importance * 2 * (one.importance - 0.5)
    why = {**parts, "recency": recency, "importance": importance}
    return Ranked(number=one.number, score=min(1.0, max(0.0, score + recency + importance)), why=why)


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
