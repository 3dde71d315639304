"""Whether a value that comes out of an interpreter is JSON of a size that can be written down."""

import math
from collections.abc import Iterable
from typing import Any

from shared.wire.depth import MAX_DEPTH


def is_plain(value: Any, most: int) -> bool:
    """Whether it has JSON's types only, its usual depth and some ``most`` bytes; found out in as many steps.

    One object may stand in many places of it, so that few of them are more text than any memory holds.
    """
    size, left = 0, [(value, 0)]
    while left and size <= most:
        one, depth = left.pop()
        inside = _inside(one)
        if inside is None or depth > MAX_DEPTH:
            return False
        own_size, children = inside
        size += 1 + own_size
        left.extend((child, depth + 1) for child in children)
    return not left and size <= most


def _inside(value: Any) -> tuple[int, Iterable[Any]] | None:
    """The least that it takes of its own, and what it holds; None when it is no JSON."""
    match value:
        case None | bool():
            return 0, ()
        case int():
            return value.bit_length() // 4, ()
        case float():
            return (0, ()) if math.isfinite(value) else None
        case str():
            return len(value), ()
        case list() | tuple():
            return len(value), value
        case dict() if all(isinstance(name, str) for name in value):
            return len(value) + sum(map(len, value)), value.values()
    return None
