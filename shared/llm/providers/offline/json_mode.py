"""JSON mode of the offline provider: a valid object for a schema, filled as far as a sentence and defaults go. Pure."""

from typing import Any

from shared.wire.chat import ChatRequest

_DEPTH = 12


def wants_json(request: ChatRequest) -> bool:
    """Whether the request asks for ``response_format`` ``json_object`` or ``json_schema``."""
    return _format(request).get("type") in ("json_object", "json_schema")


def as_json(request: ChatRequest, text: str) -> Any:
    """The object: by the request's schema where it gives one, otherwise ``{"answer": text}``."""
    wrapped = _format(request).get("json_schema")
    schema = wrapped.get("schema") if isinstance(wrapped, dict) else None
    return value_for(schema, schema, text) if isinstance(schema, dict) else {"answer": text}


def value_for(schema: Any, root: dict[str, Any], text: str, depth: int = 0) -> Any:
    """A value that the schema allows: its constant, default, first option, or the plainest of its type."""
    schema = _resolved(schema, root)
    if depth > _DEPTH or not isinstance(schema, dict):
        return None
    for key in ("const", "default"):
        if key in schema:
            return schema[key]
    if isinstance(schema.get("enum"), list) and schema["enum"]:
        said = [option for option in schema["enum"] if str(option).lower() in text.lower().split()]
        return (said or schema["enum"])[0]
    return _plain(schema, root, text, depth)


def _plain(schema: dict[str, Any], root: dict[str, Any], text: str, depth: int) -> Any:
    kind = schema.get("type", "object" if "properties" in schema else "string")
    kind = next((one for one in kind if one != "null"), "null") if isinstance(kind, list) else kind
    if kind == "object":
        properties = schema.get("properties") or {}
        return {name: value_for(entry, root, text, depth + 1) for name, entry in properties.items()}
    if kind == "array":
        return [
            value_for(schema.get("items"), root, text, depth + 1) for _ in range(min(schema.get("minItems", 0), 10))
        ]
    if kind in ("integer", "number"):
        return schema.get("minimum", 0)
    if kind == "string":
        return _string(schema, text)
    return False if kind == "boolean" else None


def _string(schema: dict[str, Any], text: str) -> str:
    fitted = text[: schema.get("maxLength", 2000)]
    return fitted.ljust(schema.get("minLength", 0), ".")


def _resolved(schema: Any, root: dict[str, Any]) -> Any:
    """The schema behind a local ``$ref``, and the first alternative that is not null."""
    for _ in range(_DEPTH):
        if not isinstance(schema, dict):
            return schema
        if isinstance(schema.get("$ref"), str):
            schema = _pointed(root, schema["$ref"])
        elif options := schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf"):
            schema = next((one for one in options if one != {"type": "null"}), None)
        else:
            return schema
    return None


def _pointed(root: Any, reference: str) -> Any:
    for part in reference.removeprefix("#").strip("/").split("/"):
        root = root.get(part) if isinstance(root, dict) and part else root
    return root


def _format(request: ChatRequest) -> dict[str, Any]:
    found = (request.model_extra or {}).get("response_format")
    return found if isinstance(found, dict) else {}
