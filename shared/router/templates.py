"""References in a step's arguments: ``{{input}}``, ``{{goal}}`` and ``{{steps.<id>.output.<path>}}``."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from shared.errors import InvalidArgs
from shared.tools import references as paths

_REFERENCE = re.compile(r"\{\{\s*(input|goal|steps\.[^{}\s]*)\s*\}\}")
_STEP = re.compile(r"steps\.([A-Za-z0-9_-]+)\.output((?:\.[^.]+)*)")


def references(value: Any) -> Iterator[str]:
    """Every reference in the strings of a JSON value."""
    return paths.references(value, _REFERENCE)


def step_of(reference: str) -> str | None:
    """The step that a reference reads; None for the flow's own fields. Raises InvalidArgs when it is malformed."""
    if reference in ("input", "goal"):
        return None
    found = _STEP.fullmatch(reference)
    if found is None:
        raise InvalidArgs(f"{{{{{reference}}}}} is not a reference; write {{{{steps.<id>.output.<field>}}}}")
    return found[1]


def resolve(value: Any, fields: Mapping[str, str], outputs: Mapping[str, Any]) -> Any:
    """The value with every reference replaced by what it names (see ``shared.tools.references``).

    ``fields`` holds ``input`` and ``goal``, ``outputs`` the outputs by step id. Raises InvalidArgs for a step without
    output, a field that its output lacks, or a result that is too large.
    """
    return paths.resolve(value, _REFERENCE, lambda reference: _look_up(reference, fields, outputs))


def _look_up(reference: str, fields: Mapping[str, str], outputs: Mapping[str, Any]) -> Any:
    step_id = step_of(reference)
    if step_id is None:
        return fields[reference]
    if step_id not in outputs:
        raise InvalidArgs(f"step {step_id!r} has no output to take {{{{{reference}}}}} from")
    return paths.descend(outputs[step_id], reference.split(".")[3:], reference)
