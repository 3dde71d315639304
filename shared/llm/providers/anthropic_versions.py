"""What a Claude model can do, told from the version in its name: Anthropic names no capabilities in its answers.

Source: platform.claude.com/docs/en/build-with-claude/thinking-troubleshooting (the table of models) and
…/api/versioning. A name without a version counts as old, since services that imitate the API do what old models do.
"""

import re
from functools import cache

_VERSION = re.compile(r"claude-(?:[a-z]+-)?(\d)(?:-(\d{1,2}))?(?!\d)")


@cache
def version(model: str) -> tuple[int, int]:
    """``claude-sonnet-4-5-20250929`` is (4, 5); ``claude-opus-4-20250514`` is (4, 0)."""
    found = _VERSION.search(model)
    return (int(found[1]), int(found[2] or 0)) if found else (0, 0)


def has_sampling(model: str) -> bool:
    """Whether it takes ``temperature``, ``top_p`` and ``top_k``."""
    return version(model) < (4, 7)


def thinks_adaptively(model: str) -> bool:
    """Whether it decides by itself how much to think, guided by ``effort``; older ones are given a budget."""
    return version(model) >= (4, 6)


def hides_thinking(model: str) -> bool:
    """Whether it keeps its thinking to itself unless asked for a summary."""
    return version(model) >= (4, 7)


def has_extra_effort(model: str) -> bool:
    """Whether it knows the effort ``xhigh``."""
    return version(model) >= (4, 7)
