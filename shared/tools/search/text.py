"""What a tool is found by: its name in words, its description, its parameters. Pure."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import Any, Final

from shared.memory.search.terms import LEXICON as _TERMS
from shared.memory.search.terms import item_terms

LEXICON: Final = 100 + _TERMS
"""Changes when the same tool would get other words."""

TEXT_VERSION: Final = 1
"""Raise it when the same tool would get other texts to embed."""

_DEEPEST: Final = 3
_MOST_CHARACTERS: Final = 4000
_BOUNDARY: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|[\W_]+")


def split_name(name: str) -> str:
    """``getHTTPStatus_v2`` → ``get HTTP Status v2``."""
    return " ".join(_BOUNDARY.sub(" ", name).split())


def tool_views(name: str, description: str, parameters: Mapping[str, Any]) -> list[str]:
    """What is embedded of a tool, each view by itself: one long text would drown the name in the parameters."""
    words = split_name(name)
    arguments = parameter_text(parameters)
    views = [words, description.strip()[:_MOST_CHARACTERS]]
    if arguments:
        views.append(f"{words}: {views[1]} Parameters: {arguments}")
    return [view for view in views if view] or [name]


def tool_terms(name: str, description: str, parameters: Mapping[str, Any]) -> Counter[str]:
    """How often each word stands in a tool's text."""
    text = f"{split_name(name)}: {description[:_MOST_CHARACTERS]} {parameter_text(parameters)}"
    return item_terms(text)


def parameter_text(parameters: Mapping[str, Any]) -> str:
    """``place: City or town; days: How many days``, nested properties included, of a JSON schema."""
    return "; ".join(_described(parameters, 0))[:_MOST_CHARACTERS]


def views_hash(views: list[str]) -> bytes:
    """The identity of what is embedded."""
    return sha256("\x1f".join([str(TEXT_VERSION), *views]).encode("utf-8", "surrogatepass")).digest()


def _described(schema: Mapping[str, Any], depth: int) -> Iterator[str]:
    properties = schema.get("properties")
    if depth > _DEEPEST or not isinstance(properties, Mapping):
        return
    for name, inner in properties.items():
        if not isinstance(inner, Mapping):
            continue
        described = inner.get("description")
        yield f"{split_name(str(name))}: {described}" if isinstance(described, str) else split_name(str(name))
        items = inner.get("items")
        yield from _described(items if isinstance(items, Mapping) else inner, depth + 1)
