"""JSON mode of the offline provider: a valid object for a schema, filled as far as a sentence and defaults go. Pure.

A schema comes from the caller and may be anything: keywords of a wrong type count as absent, and what a schema makes of
itself is bounded.
"""

import math
from dataclasses import dataclass, field
from typing import Any, NoReturn

import orjson

from shared.errors import InvalidRequest
from shared.wire.chat import ChatRequest

_DEPTH = 12
_SPARSE_DEPTH = 5
"""From here on optional properties are left out and what may be null is: schemas may refer to themselves."""
_MOST_NODES = 1_000
_MOST_CHARACTERS = 20_000
_TEXT_CHARACTERS = 2_000
_MOST_OPTIONS = 100
"""Of an ``enum`` or ``anyOf``: those that are looked at."""
_REFERENCE_CHARACTERS = 500


def wants_json(request: ChatRequest) -> bool:
    """Whether the request asks for ``response_format`` ``json_object`` or ``json_schema``."""
    return _format(request).get("type") in ("json_object", "json_schema")


def as_json(request: ChatRequest, text: str) -> Any:
    """The object: by the request's schema where it gives one, otherwise ``{"answer": text}``.

    Raises InvalidRequest for a schema whose smallest value is beyond what this provider writes.
    """
    wrapped = _format(request).get("json_schema")
    schema = wrapped.get("schema") if isinstance(wrapped, dict) else None
    return _Filler(schema, text).value(schema) if isinstance(schema, dict) else {"answer": text}


def encoded(value: Any) -> str:
    """A value as JSON text. Raises InvalidRequest where a part of it, taken from the request, cannot be written."""
    try:
        return orjson.dumps(value).decode()
    except TypeError:
        raise InvalidRequest("the request asks for a value that is too deep or too large for JSON") from None


@dataclass(slots=True)
class _Filler:
    """Makes one value, within a budget for all of it."""

    root: dict[str, Any]
    text: str
    nodes: int = _MOST_NODES
    characters: int = _MOST_CHARACTERS
    """What the schema demands may have, names included."""
    spare: int = _MOST_CHARACTERS
    """What texts may have that could be shorter."""
    said: set[str] = field(init=False)

    def __post_init__(self) -> None:
        self.said = set(self.text.lower().split())

    def value(self, schema: Any, depth: int = 0) -> Any:
        """A value that the schema allows: its constant, default, first option, or the plainest of its type."""
        self._spend(nodes=1)
        schema = self._resolved(schema, depth)
        if depth > _DEPTH or not isinstance(schema, dict):
            return None
        for key in ("const", "default"):
            if key in schema:
                return self._given(schema[key])
        if isinstance(schema.get("enum"), list) and schema["enum"]:
            options = schema["enum"]
            named = (
                one
                for one in options[:_MOST_OPTIONS]
                if isinstance(one, str | int | float) and str(one).lower() in self.said
            )
            return self._given(next(named, options[0]))
        return self._plain(schema, depth)

    def _plain(self, schema: dict[str, Any], depth: int) -> Any:
        kind = schema.get("type", "object" if "properties" in schema else "string")
        kind = next((one for one in kind if one != "null"), "null") if isinstance(kind, list) else kind
        if kind == "object":
            return self._object(schema, depth)
        if kind == "array":
            return [self.value(schema.get("items"), depth + 1) for _ in range(_whole(schema, "minItems", 0))]
        if kind in ("integer", "number"):
            return _least(schema, is_whole=kind == "integer")
        if kind == "string":
            return self._string(schema)
        return False if kind == "boolean" else None

    def _object(self, schema: dict[str, Any], depth: int) -> dict[str, Any]:
        properties, required = schema.get("properties"), _names(schema.get("required"))
        filled: dict[str, Any] = {}
        for name, entry in properties.items() if isinstance(properties, dict) else ():
            if depth < _SPARSE_DEPTH or name in required:
                self._spend(characters=len(name))
                filled[name] = self.value(entry, depth + 1)
        return filled

    def _string(self, schema: dict[str, Any]) -> str:
        """The text, shortened to what the schema and the budget allow."""
        least = _whole(schema, "minLength", 0)
        self._spend(characters=least)
        most = max(least, min(self.spare, _TEXT_CHARACTERS))
        fitted = self.text[: min(_whole(schema, "maxLength", most), most)]
        self.spare -= max(0, len(fitted) - least)
        return fitted.ljust(least, ".")

    def _given(self, value: Any) -> Any:
        self._spend(characters=len(encoded(value)))
        return value

    def _spend(self, *, nodes: int = 0, characters: int = 0) -> None:
        self.nodes -= nodes
        self.characters -= characters
        if self.nodes < 0 or self.characters < 0:
            _refuse()

    def _resolved(self, schema: Any, depth: int) -> Any:
        """The schema behind a local ``$ref``, and the first alternative that is not null."""
        for _ in range(_DEPTH):
            if not isinstance(schema, dict):
                return schema
            if isinstance(schema.get("$ref"), str):
                schema = _pointed(self.root, schema["$ref"])
            elif options := _alternatives(schema):
                others = [one for one in options if one != {"type": "null"}]
                may_be_null = len(others) < len(options)
                schema = others[0] if others and not (may_be_null and depth >= _SPARSE_DEPTH) else None
            else:
                return schema
        return None


def _refuse() -> NoReturn:
    raise InvalidRequest(
        f"the schema asks for more than {_MOST_NODES} values or {_MOST_CHARACTERS} characters", param="response_format"
    )


def _alternatives(schema: dict[str, Any]) -> list[Any]:
    found = (schema.get(key) for key in ("anyOf", "oneOf", "allOf"))
    return next((options for options in found if isinstance(options, list)), [])[:_MOST_OPTIONS]


def _names(required: Any) -> set[str]:
    return {name for name in required[:_MOST_NODES] if isinstance(name, str)} if isinstance(required, list) else set()


def _whole(schema: dict[str, Any], key: str, absent: int) -> int:
    """A keyword that counts something; ``absent`` where it is no such number."""
    value = schema.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else absent


def _least(schema: dict[str, Any], *, is_whole: bool) -> int | float:
    value = schema.get("minimum")
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if not isinstance(value, float) or not math.isfinite(value):
        return 0
    return math.ceil(value) if is_whole else value


def _pointed(root: Any, reference: str) -> Any:
    for part in reference[:_REFERENCE_CHARACTERS].removeprefix("#").strip("/").split("/"):
        root = root.get(part) if isinstance(root, dict) and part else root
    return root


def _format(request: ChatRequest) -> dict[str, Any]:
    found = (request.model_extra or {}).get("response_format")
    return found if isinstance(found, dict) else {}
