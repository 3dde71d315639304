"""Whether the parameters that a tool is defined with can be given to its built-in function. Pure functions.

A definition may leave out what the function can do without, and may narrow the rest. Limits (lengths, ranges) are not
compared: the function's own hold at each call as well.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from shared.errors import InvalidRequest
from shared.tools.arguments import schema_faults
from shared.tools.builtin.shipped import parameters_of
from shared.tools.catalogue.schemas import resolve_pointer

_ALL_NUMBERS: Final = "number"


def check_builtin_parameters(function: str, parameters: Mapping[str, Any]) -> None:
    """Raises InvalidRequest naming the first parameter that the function does not take so.

    ``parameters`` is a usable schema of an object already.
    """
    taken = parameters_of(function)
    offered, known = parameters.get("properties", {}), taken["properties"]
    for name in taken.get("required", ()):
        if name not in offered or name not in parameters.get("required", ()):
            raise _refusal(function, name, "must be there and be required")
    for name, schema in offered.items():
        if name not in known:
            raise _refusal(function, name, f"is not known to it; it takes {', '.join(known)}")
        if fault := _fault(_resolved(schema, parameters), known[name]):
            raise _refusal(function, name, fault)


def _fault(offered: Any, taken: Mapping[str, Any]) -> str | None:
    """Why a value that fits the one schema may not fit the other; None if it does, but for limits."""
    wanted = _types(taken)
    named = f"of type {' or '.join(wanted)}"
    if not isinstance(offered, Mapping):
        return f"must be {named}"
    if (values := _values(offered)) is not None:
        wrong = [value for value in values if schema_faults(dict(taken), value)]
        return f"may not be {repr(wrong[0])[:100]}" if wrong else None
    if "enum" in taken:
        return f"must have an enum of {', '.join(map(str, taken['enum']))}"
    types = _types(offered)
    allowed = {*wanted, "integer"} if _ALL_NUMBERS in wanted else set(wanted)
    return None if types and allowed.issuperset(types) else f"must be {named}"


def _types(schema: Mapping[str, Any]) -> Sequence[str]:
    """The types that a schema names; none if it leaves that open."""
    kind = schema.get("type", ())
    return (kind,) if isinstance(kind, str) else kind


def _values(schema: Mapping[str, Any]) -> Sequence[Any] | None:
    """The only values that a schema takes, if it names them."""
    return (schema["const"],) if "const" in schema else schema.get("enum")


def _resolved(schema: Any, root: Mapping[str, Any]) -> Any:
    """What a schema that is a reference stands for. A usable one has no circles."""
    while isinstance(schema, Mapping) and isinstance(reference := schema.get("$ref"), str):
        schema = resolve_pointer(root, reference)
    return schema


def _refusal(function: str, name: str, fault: str) -> InvalidRequest:
    return InvalidRequest(
        f"parameters: {name[:100]} {fault}, for the built-in function {function!r}", param=f"parameters.{name[:100]}"
    )
