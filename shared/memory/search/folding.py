"""Near-duplicates among what was found: the same thing said twice should not take two places. Pure."""

import re
from collections.abc import Mapping, Sequence

_WORD = re.compile(r"\w+")
_ALIKE = 0.9
"""Shared words among all words of both texts (Jaccard), from which on two texts say the same."""


def fold(ranked: Sequence[int], texts: Mapping[int, str], k: int) -> list[tuple[int, int | None]]:
    """The best ``k``, each with the number of the better one that it repeats, or None.

    Repetitions stand behind everything else, so that they fill up only what would stay empty.
    """
    distinct: list[tuple[int, int | None]] = []
    repeated: list[tuple[int, int | None]] = []
    words: dict[int, frozenset[str]] = {}
    for number in ranked:
        words[number] = frozenset(_WORD.findall(texts.get(number, "").casefold()))
        original = next((one for one, _ in distinct if _is_alike(words[one], words[number])), None)
        (distinct if original is None else repeated).append((number, original))
    return (distinct + repeated)[:k]


def _is_alike(one: frozenset[str], other: frozenset[str]) -> bool:
    common = len(one & other)
    return common > 0 and common >= _ALIKE * (len(one) + len(other) - common)
