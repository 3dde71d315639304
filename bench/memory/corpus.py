"""A made-up corpus: microDAOs of very unequal size, clustered vectors, words as unequal in frequency as in language.

Vectors are a mixture of Gaussians on the sphere: topics are random directions, an item is its topic plus isotropic
noise of ``NOISE`` times its length (cosine of two items of a topic about 0.74, of two topics about 0). Random vectors
without clusters would have no neighbourhoods, and recall among them says nothing. Words follow Zipf's law.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache

import numpy as np
from numpy.typing import NDArray

TENANTS = 100
TINY, SMALL, MIDDLE = 10, 1_000, 20_000
"""Sizes that one tenant has exactly."""
ITEMS_A_TOPIC = 50
NOISE = 0.6
WORDS_AN_ITEM = 25
ITEMS_A_THREAD = 20
_SKEW = 1.3
_VOCABULARY = 50_000
_COMMON = """
the of and to a in is that it for was on with as are he be by at this i you not have from or an which were but they we
her she his their one there been has had would who when what if will about can more so no up out do said them how did
where like time only could people my over some other than into then now see get after our me go work
"""
_ONSETS = "b d f g k l m n p r s t v z br st tr"
_START = datetime(2024, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Tenant:
    """A microDAO of the corpus, with so many items, all of one agent."""

    index: int
    items: int

    @property
    def microdao(self) -> str:
        """Its id."""
        return f"microdao:bench-{self.index:03}"


def tenants(items: int) -> list[Tenant]:
    """100 tenants that have so many items together: Zipf's law, and the three fixed sizes."""
    fixed = [TINY, SMALL, MIDDLE]
    weights = np.arange(1, TENANTS - len(fixed) + 1, dtype=float) ** -_SKEW
    sizes = np.maximum((weights / weights.sum() * (items - sum(fixed))).astype(int), 20)
    sizes[0] += items - sum(fixed) - sizes.sum()
    return [Tenant(index, int(size)) for index, size in enumerate([*fixed, *sizes])]


def vectors(tenant: Tenant, dimensions: int, *, count: int | None = None, seed: int = 0) -> NDArray[np.float16]:
    """The tenant's vectors in order, of length 1; with another ``seed``, others near the same topics, for questions."""
    topics = _unit(np.random.default_rng((tenant.index, 1)), max(1, tenant.items // ITEMS_A_TOPIC), dimensions)
    random = np.random.default_rng((tenant.index, 2, seed))
    count = tenant.items if count is None else count
    made = np.empty((count, dimensions), np.float16)
    for start in range(0, count, 10_000):
        part = topics[random.integers(len(topics), size=min(10_000, count - start))]
        part = part + NOISE * random.standard_normal(part.shape, np.float32) / np.float32(dimensions**0.5)
        made[start : start + len(part)] = part / np.linalg.norm(part, axis=1, keepdims=True)
    return made


def texts(tenant: Tenant, *, count: int | None = None, words: int = WORDS_AN_ITEM, seed: int = 0) -> Iterator[str]:
    """The tenant's texts in order, ``words`` words each."""
    random = np.random.default_rng((tenant.index, 3, seed))
    vocabulary, cumulated = _vocabulary(), _cumulated()
    for _ in range(tenant.items if count is None else count):
        yield " ".join(vocabulary[rank] for rank in np.searchsorted(cumulated, random.random(words)))


def moment(number: int) -> datetime:
    """When an item was said: half a minute after the one before."""
    return _START + timedelta(seconds=30 * number)


def _unit(random: np.random.Generator, count: int, dimensions: int) -> NDArray[np.float32]:
    made = random.standard_normal((count, dimensions), np.float32)
    return made / np.linalg.norm(made, axis=1, keepdims=True)


@cache
def _vocabulary() -> list[str]:
    random = np.random.default_rng(4)
    syllables = [onset + vowel for onset in _ONSETS.split() for vowel in "aeiou"]
    made: dict[str, None] = dict.fromkeys(_COMMON.split())
    while len(made) < _VOCABULARY:
        made["".join(random.choice(syllables, size=random.integers(2, 5)))] = None
    return list(made)


@cache
def _cumulated() -> NDArray[np.float64]:
    weights = 1 / (np.arange(_VOCABULARY) + 2.7)
    return np.cumsum(weights / weights.sum())
