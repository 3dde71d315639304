"""References in a step's arguments: ``{{input}}``, ``{{goal}}`` and ``{{steps.<id>.output.<path>}}``.

Only looking up, never evaluating: a path walks keys of objects and indexes of lists. Other double braces are text.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import orjson

from shared.errors import InvalidArgs

MAX_CHARACTERS: Final = 1_000_000
"""What a step's resolved arguments may come to, in all."""

_REFERENCE = re.compile(r"\{\{\s*(input|goal|steps\.[^{}\s]*)\s*\}\}")
_INDEX = re.compile(r"[0-9]{1,9}")
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
    InvalidArgs for a step without output, a field that its output lacks, or a result of more than ``MAX_CHARACTERS``.
    """
    return _Resolver(fields, outputs).resolve(value)


class _Resolver:
    """Resolves one value. Every piece is paid for before it is built: references can multiply a text a thousandfold."""

    def __init__(self, fields: Mapping[str, str], outputs: Mapping[str, Any]) -> None:
        self._fields = fields
        self._outputs = outputs
        self._left = MAX_CHARACTERS

    def resolve(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._resolve_text(value)
        if isinstance(value, Mapping):
            return {self._paid(key): self.resolve(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [self.resolve(inner) for inner in value]
        return self._paid(value)

    def _resolve_text(self, text: str) -> Any:
        if whole := _REFERENCE.fullmatch(text):
            return self._look_up(whole[1])
        pieces, end = [], 0
        for found in _REFERENCE.finditer(text):
            pieces += [self._paid(text[end : found.start()]), as_text(self._look_up(found[1]))]
            end = found.end()
        return "".join([*pieces, self._paid(text[end:])])

    def _look_up(self, reference: str) -> Any:
        return self._paid(_look_up(reference, self._fields, self._outputs))

    def _paid(self, value: Any) -> Any:
        waiting = [value]
        while waiting:
            one = waiting.pop()
            self._left -= _own_characters(one)
            if self._left < 0:
                raise InvalidArgs(f"the arguments come to more than {MAX_CHARACTERS} characters")
            if isinstance(one, Mapping):
                waiting += [*one.keys(), *one.values()]
            elif isinstance(one, list):
                waiting += one
        return value


def _own_characters(value: Any) -> int:
    """About how long a value is as JSON, without what it contains."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, int):
        return value.bit_length() // 3 + 1
    return 2


def as_text(value: Any) -> str:
    """A JSON value inside text: strings as they are, everything else as JSON. Raises InvalidArgs for what has none."""
    if isinstance(value, str):
        return value
    try:
        return orjson.dumps(value).decode()
    except TypeError as error:  # whole numbers of more than 64 bits, above all
        raise InvalidArgs(f"a value cannot be written as text: {error}") from None


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
    if isinstance(value, list) and _INDEX.fullmatch(part) and int(part) < len(value):
        return value[int(part)]
    raise InvalidArgs(f"{{{{{reference}}}}} names nothing: the output has no {part!r}")
