"""Which JSON schemas a tool may have: draft 2020-12, and cheap to evaluate whatever the arguments. Pure functions."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from shared.errors import InvalidRequest
from shared.tools.arguments import compile_schema
from shared.wire.depth import is_deeper

MAX_BYTES: Final = 65_536
MAX_DEPTH: Final = 24
MAX_UNFOLDED: Final = 5_000
"""Subschemas, each counted as often as it is referred to: a few lines of ``$ref`` can stand for millions."""

DRAFT: Final = "https://json-schema.org/draft/2020-12/schema"
MAPS: Final = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
LISTS: Final = ("allOf", "anyOf", "oneOf", "prefixItems")
SINGLES: Final = (
    *("items", "additionalProperties", "unevaluatedProperties", "unevaluatedItems", "contains", "propertyNames"),
    *("not", "if", "then", "else", "contentSchema"),
)
_DEFINITIONS: Final = ("$defs", "definitions")
_REFUSED: Final = (
    "$id",
    "$anchor",
    "$dynamicRef",
    "$dynamicAnchor",
    "$recursiveRef",
    "$recursiveAnchor",
    "$vocabulary",
)
_NOT_AT_ROOT: Final = ("allOf", "anyOf", "oneOf", "not", "enum", "$ref")


def check_schema(schema: dict[str, Any], param: str, *, is_object: bool = True) -> None:
    """Raises InvalidRequest, saying why, for a schema that is none or that a tool may not have.

    ``is_object``: it must describe an object, as arguments are.
    """
    try:
        _check_size(schema)
        if is_object:
            _check_root(schema)
        _check_draft(schema)
        _Unfolding(schema).count(schema, ())
        compile_schema(json.dumps(schema, sort_keys=True))
    except ValueError as error:
        raise InvalidRequest(f"{param} is not a usable JSON schema: {error}", param=param) from None


def subschemas(schema: Any) -> Iterator[tuple[str, Any]]:
    """The schemas directly within one, with the keyword (and name) where each stands."""
    if not isinstance(schema, Mapping):
        return
    for keyword in MAPS:
        if isinstance(named := schema.get(keyword), Mapping):
            yield from ((f"{keyword}.{name}", one) for name, one in named.items())
    for keyword in LISTS:
        if isinstance(listed := schema.get(keyword), list):
            yield from ((keyword, one) for one in listed)
    yield from ((keyword, schema[keyword]) for keyword in SINGLES if keyword in schema)


def resolve_pointer(document: Any, reference: str) -> Any:
    """What a local reference (``#/a/b``) points to. Raises ValueError when there is nothing."""
    if not reference.startswith("#"):
        raise ValueError(f"$ref {reference[:100]!r} is not within the document")
    found = document
    for part in reference[1:].split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        try:
            found = found[int(name)] if isinstance(found, list) else found[name]
        except (KeyError, IndexError, ValueError, TypeError):
            raise ValueError(f"$ref {reference[:100]!r} points to nothing") from None
    return found


def _check_size(schema: dict[str, Any]) -> None:
    if is_deeper(schema, MAX_DEPTH):
        raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels")
    if len(json.dumps(schema)) > MAX_BYTES:
        raise ValueError(f"it is larger than {MAX_BYTES:,} bytes")


def _check_root(schema: dict[str, Any]) -> None:
    if schema.get("type") != "object":
        raise ValueError('its root must have "type": "object"')
    if found := [keyword for keyword in _NOT_AT_ROOT if keyword in schema]:
        raise ValueError(f"{found[0]} may not stand at its root: models are not told of it")


def _check_draft(schema: dict[str, Any]) -> None:
    declared = schema.get("$schema", DRAFT)
    if not isinstance(declared, str) or declared.rstrip("#") != DRAFT:
        raise ValueError(f"$schema must be {DRAFT} or left out")


class _Unfolding:
    """Counts subschemas as an evaluation meets them. Refuses recursion: its cost grows with the arguments' depth."""

    def __init__(self, root: dict[str, Any]) -> None:
        self._root = root
        self._counted: dict[str, int] = {}

    def count(self, schema: Any, within: tuple[str, ...]) -> int:
        """How many schemas stand in this one. Raises ValueError. ``within`` are the references it is met through."""
        total = 1
        if isinstance(schema, Mapping):
            if refused := [keyword for keyword in _REFUSED if keyword in schema]:
                raise ValueError(f"it may not use {refused[0]}")
            if isinstance(reference := schema.get("$ref"), str):
                total += self._count_reference(reference, within)
        for place, one in subschemas(schema):
            if not place.startswith(_DEFINITIONS):
                total += self.count(one, within)
            if total > MAX_UNFOLDED:
                raise ValueError(f"with its references it stands for more than {MAX_UNFOLDED:,} subschemas")
        return total

    def _count_reference(self, reference: str, within: tuple[str, ...]) -> int:
        if reference in within or reference == "#":
            raise ValueError(f"$ref {reference[:100]!r} is recursive")
        if len(within) >= MAX_DEPTH:
            raise ValueError(f"its references lead through more than {MAX_DEPTH} others")
        if reference not in self._counted:
            self._counted[reference] = self.count(resolve_pointer(self._root, reference), (*within, reference))
        return self._counted[reference]
