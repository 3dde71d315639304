"""From the schemas of an OpenAPI document (3.0 or 3.1) to JSON schema without references. Pure functions."""

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import unquote

from shared.tools.arguments import compile_schema
from shared.tools.catalogue.schemas import LISTS, resolve_pointer

MAX_NODES: Final = 2_000
"""Schemas that one operation may unfold to."""
MAX_REFERENCES: Final = 12
"""References that may lead through one another; beyond, and where they come round, anything is taken."""

_KEPT: Final = (
    *("type", "title", "description", "enum", "const", "default", "format", "pattern"),
    *("multipleOf", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "minLength", "maxLength"),
    *("minItems", "maxItems", "uniqueItems", "minProperties", "maxProperties", "required"),
)
_SINGLES: Final = ("items", "additionalProperties", "not", "propertyNames", "contains")


class Unusable(ValueError):
    """An operation cannot be a tool; the message says why."""


class Schemas:
    """Converts the schemas of one operation."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = document
        self._nodes = 0

    def resolve(self, value: Any) -> Any:
        """What a possible reference (to a parameter, a body, a schema) stands for. Raises Unusable."""
        for _ in range(MAX_REFERENCES):
            if not isinstance(value, Mapping) or not isinstance(value.get("$ref"), str):
                return value
            value = {**self._target(value["$ref"]), **{name: one for name, one in value.items() if name != "$ref"}}
        raise Unusable("its references lead in a circle")

    def convert(self, schema: Any, within: tuple[str, ...] = ()) -> dict[str, Any]:
        """JSON schema (draft 2020-12) with everything inline. Raises Unusable."""
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise Unusable(f"its schemas unfold to more than {MAX_NODES:,}")
        if schema is False:
            return {"not": {}}
        if not isinstance(schema, Mapping):
            return {}
        if isinstance(reference := schema.get("$ref"), str):
            return self._referred(schema, reference, within)
        return self._plain(schema, within)

    def _referred(self, schema: Mapping[str, Any], reference: str, within: tuple[str, ...]) -> dict[str, Any]:
        target, siblings = self._target(reference), {name: one for name, one in schema.items() if name != "$ref"}
        if reference in within or len(within) >= MAX_REFERENCES:
            return {"description": f"Like {reference.rpartition('/')[2]} above."}
        return self.convert({**target, **siblings}, (*within, reference))

    def _target(self, reference: str) -> Mapping[str, Any]:
        try:
            found = resolve_pointer(self._document, unquote(reference))
        except ValueError as error:
            raise Unusable(str(error)) from None
        return found if isinstance(found, Mapping) else {}

    def _plain(self, schema: Mapping[str, Any], within: tuple[str, ...]) -> dict[str, Any]:
        converted = {name: schema[name] for name in _KEPT if name in schema}
        if isinstance(named := schema.get("properties"), Mapping):
            converted["properties"] = {
                name: self.convert(one, within) for name, one in named.items() if not _is_read_only(one)
            }
            converted["required"] = [
                name for name in schema.get("required", ()) if name not in named or name in converted["properties"]
            ]
        for name in _SINGLES:
            if name in schema:
                is_flag = isinstance(schema[name], bool)
                converted[name] = schema[name] if is_flag else self.convert(schema[name], within)
        for name in LISTS:
            if isinstance(listed := schema.get(name), list) and listed:
                converted[name] = [self.convert(one, within) for one in listed]
        return merge_all_of(_without_dialect(converted, schema))


def merge_all_of(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with ``allOf`` worked in, where its branches do not contradict one another."""
    if "allOf" not in schema:
        return schema
    merged = {name: one for name, one in schema.items() if name != "allOf"}
    for branch in schema["allOf"]:
        for name, one in branch.items():
            if name == "properties":
                merged[name] = {**one, **merged.get(name, {})}
            elif name == "required":
                merged[name] = list(dict.fromkeys([*merged.get(name, ()), *one]))
            elif name in ("description", "title", "default"):
                merged.setdefault(name, one)
            elif merged.setdefault(name, one) != one:
                return schema
    # What one branch closes another would open: together they are open.
    if len(schema["allOf"]) > 1 and merged.get("additionalProperties") is False:
        del merged["additionalProperties"]
    return merged


def _is_read_only(schema: Any) -> bool:
    return isinstance(schema, Mapping) and schema.get("readOnly") is True


def _without_dialect(converted: dict[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    """What OpenAPI 3.0 says otherwise than JSON schema, and patterns in another dialect than ours."""
    for bound, limit in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if isinstance(flag := converted.get(bound), bool):
            del converted[bound]
            if flag and limit in converted:
                converted[bound] = converted.pop(limit)
    if not converted.get("required", True):
        del converted["required"]
    if "pattern" in converted and not _is_pattern(converted["pattern"]):
        del converted["pattern"]
    return _nullable(converted) if schema.get("nullable") is True else converted


def _nullable(converted: dict[str, Any]) -> dict[str, Any]:
    if isinstance(converted.get("enum"), list) and None not in converted["enum"]:
        converted["enum"] = [*converted["enum"], None]
    if isinstance(kind := converted.get("type"), str):
        converted["type"] = [kind, "null"]
    for choice in ("anyOf", "oneOf"):
        if choice in converted:
            converted[choice] = [*converted[choice], {"type": "null"}]
    if "allOf" in converted:
        return {"anyOf": [{"allOf": converted.pop("allOf")}, {"type": "null"}], **converted}
    return converted


def _is_pattern(pattern: Any) -> bool:
    import json

    try:
        compile_schema(json.dumps({"pattern": pattern}))
    except ValueError:
        return False
    return True
