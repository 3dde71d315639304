"""How deep JSON may be nested: deeper than any honest client goes, shallower than any parser's limit."""

from typing import Any, Final

MAX_DEPTH: Final = 64


def is_deeper(value: Any, levels: int = MAX_DEPTH) -> bool:
    """Whether parsed JSON is nested deeper than so many levels."""
    if not isinstance(value, dict | list):
        return False
    children = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(is_deeper(child, levels - 1) for child in children)
