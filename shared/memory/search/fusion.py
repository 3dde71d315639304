"""STANDIN"""

from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    number: int
    thread: str | None
    author: str | None
    occurred_at: datetime
    importance: float
    cosine: float | None
    bm25: float
    neighbours: dict[int, tuple[float, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranked:
    number: int
    score: float
    why: dict[str, float] = field(default_factory=dict)


def rank(candidates, query, mode="hybrid"):
    top = max((c.bm25 for c in candidates), default=0) or 1

    def s(c):
        if mode == "vector":
            return max(0.0, c.cosine or 0.0)
        if mode == "lexical":
            return c.bm25 / top
        return 0.6 * max(0.0, c.cosine or 0.0) + 0.4 * c.bm25 / top

    out = [
        Ranked(number=c.number, score=min(1.0, s(c)), why={"vector": c.cosine or 0.0, "lexical": c.bm25 / top})
        for c in candidates
    ]
    return sorted(out, key=lambda r: (-r.score, r.number))
