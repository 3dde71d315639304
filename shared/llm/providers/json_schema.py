"""JSON schemas as providers want them."""

from typing import Any, Final

_SCHEMAS_BY_NAME: Final = ("properties", "patternProperties", "$defs", "definitions")
_SCHEMAS: Final = ("items", "prefixItems", "anyOf", "allOf", "oneOf", "not", "if", "then", "else", "contains")


def closed(schema: Any) -> Any:
    """The schema with ``additionalProperties: false`` in each object that says nothing of them.

    Anthropic demands it of every object; what fits the closed schema fits the open one, too.
    """
    if isinstance(schema, list):
        return [closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    made = {name: _closed_inside(name, value) for name, value in schema.items()}
    return {"additionalProperties": False, **made} if _is_object(schema) else made


def _closed_inside(keyword: str, value: Any) -> Any:
    if keyword in _SCHEMAS_BY_NAME and isinstance(value, dict):
        return {name: closed(one) for name, one in value.items()}
    return closed(value) if keyword in _SCHEMAS else value


def _is_object(schema: dict[str, Any]) -> bool:
    kind = schema.get("type")
    return (
        kind == "object" or (isinstance(kind, list) and "object" in kind) or (kind is None and "properties" in schema)
    )
