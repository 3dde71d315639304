"""References inside JSON: ``{{name.path}}`` in a string stands for a value that is looked up, never evaluated.

Which names there are is said by a vocabulary (a pattern with the reference as its first group): other double braces
are text. A path walks keys of objects and indexes of lists.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import orjson

from shared.errors import InvalidArgs

MAX_CHARACTERS: Final = 1_000_000
"""What a resolved value may come to, in all."""

_INDEX = re.compile(r"[0-9]{1,9}")


def references(value: Any, vocabulary: re.Pattern[str]) -> Iterator[str]:
    """Every reference in the strings of a JSON value."""
    if isinstance(value, str):
        yield from (found[1] for found in vocabulary.finditer(value))
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from references(inner, vocabulary)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner, vocabulary)


def resolve(value: Any, vocabulary: re.Pattern[str], look_up: Callable[[str], Any]) -> Any:
    """The value with every reference replaced by what it names.

    A string that is one reference becomes the value itself, whatever its type; inside other text values are written as
    JSON, strings as they are. Raises InvalidArgs for a result of more than ``MAX_CHARACTERS``, and what ``look_up``
    raises.
    """
    return _Resolver(vocabulary, look_up).resolve(value)


def descend(value: Any, path: Sequence[str], reference: str) -> Any:
    """The value at a path. Raises InvalidArgs when there is none."""
    for part in path:
        value = _step_into(value, part, reference)
    return value


class _Resolver:
    """Resolves one value. Every piece is paid for before it is built: references can multiply a text a thousandfold."""

    def __init__(self, vocabulary: re.Pattern[str], look_up: Callable[[str], Any]) -> None:
        self._vocabulary = vocabulary
        self._look_up = look_up
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
        if whole := self._vocabulary.fullmatch(text):
            return self._paid(self._look_up(whole[1]))
        pieces, end = [], 0
        for found in self._vocabulary.finditer(text):
            pieces += [self._paid(text[end : found.start()]), as_text(self._paid(self._look_up(found[1])))]
            end = found.end()
        return "".join([*pieces, self._paid(text[end:])])

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


def _step_into(value: Any, part: str, reference: str) -> Any:
    if isinstance(value, Mapping) and part in value:
        return value[part]
    if isinstance(value, list) and _INDEX.fullmatch(part) and int(part) < len(value):
        return value[int(part)]
    raise InvalidArgs(f"{{{{{reference}}}}} names nothing: the output has no {part!r}")
