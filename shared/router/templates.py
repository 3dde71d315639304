"""References in a step's arguments: ``{{input}}``, ``{{goal}}`` and ``{{steps.<id>.output.<path>}}``.

Only looking up, never evaluating: a path walks keys of objects and indexes of lists. Other double braces are text.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import orjson

from shared.errors import InvalidArgs

_REFERENCE = re.compile(r"\{\{\s*(input|goal|steps\.[^{}\s]*)\s*\}\}")
_STEP = re.compile(r"steps\.([A-Za-z0-9_-]+)\.output((?:\.[^.]+)*)")


def references(value: Any) -> Iterator[str]:
    """Every reference in the strings of a JSON value."""
    if isinstance(value, str):
        yield from (found[1] for found in _REFERENCE.finditer(value))
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


def step_of(reference: str) -> str | None:
    """The step that a reference reads; None for the flow's own fields. Raises InvalidArgs when it is malformed."""
    if reference in ("input", "goal"):
        return None
    found = _STEP.fullmatch(reference)
    if found is None:
        raise InvalidArgs(f"{{{{{reference}}}}} is not a reference; write {{{{steps.<id>.output.<field>}}}}")
    return found[1]


def resolve(value: Any, fields: Mapping[str, str], outputs: Mapping[str, Any]) -> Any:
    """The value with every reference replaced by what it names.

    A string that is one reference becomes the value itself, whatever its type; inside other text values are written as
    JSON, strings as they are. ``fields`` holds ``input`` and ``goal``, ``outputs`` the outputs by step id. Raises
    InvalidArgs for a step without output or a field that its output lacks.
    """
    return _map_strings(value, lambda text: _resolve_text(text, fields, outputs))


def _map_strings(value: Any, change: Callable[[str], Any]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {key: _map_strings(inner, change) for key, inner in value.items()}
    if isinstance(value, list):
        return [_map_strings(inner, change) for inner in value]
    return value


def _resolve_text(text: str, fields: Mapping[str, str], outputs: Mapping[str, Any]) -> Any:
    whole = _REFERENCE.fullmatch(text)
    if whole:
        return _look_up(whole[1], fields, outputs)
    return _REFERENCE.sub(lambda found: as_text(_look_up(found[1], fields, outputs)), text)


def as_text(value: Any) -> str:
    """A JSON value inside text: strings as they are, everything else as JSON."""
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _look_up(reference: str, fields: Mapping[str, str], outputs: Mapping[str, Any]) -> Any:
    step_id = step_of(reference)
    if step_id is None:
        return fields[reference]
    if step_id not in outputs:
        raise InvalidArgs(f"step {step_id!r} has no output to take {{{{{reference}}}}} from")
    value = outputs[step_id]
    for part in reference.split(".")[3:]:
        value = _descend(value, part, reference)
    return value


def _descend(value: Any, part: str, reference: str) -> Any:
    if isinstance(value, Mapping) and part in value:
        return value[part]
    if isinstance(value, list) and part.isdecimal() and int(part) < len(value):
        return value[int(part)]
    raise InvalidArgs(f"{{{{{reference}}}}} names nothing: the output has no {part!r}")
