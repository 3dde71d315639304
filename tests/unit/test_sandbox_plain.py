"""What is JSON of a size that can be written down, however few objects it is made of."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.tools.sandbox.plain import is_plain

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


def doubled(value: object, times: int) -> object:
    for _ in range(times):
        value = [value, value]
    return value


@given(VALUES)
def test_what_json_can_say_is_plain_and_no_larger_than_its_text(value: object) -> None:
    assert is_plain(value, len(json.dumps(value)))


@pytest.mark.parametrize(
    "value",
    [
        doubled("a", 60),
        [["a" * 1_000] * 1_000] * 1_000,
        [[10**4_000] * 100] * 100,
        {"a" * 600_000: 1, "b" * 600_000: 1},
        [None] * 1_000_001,
        doubled([None] * 500_000, 100),
    ],
)
def test_what_is_larger_is_not(value: object) -> None:
    assert not is_plain(value, 1_000_000)


@pytest.mark.parametrize("value", [doubled(1, 12), ((((({"a": [()]},),),),),)])
def test_what_stands_in_some_places_is_plain(value: object) -> None:
    assert is_plain(value, 1_000_000)


def test_what_is_nested_deeply_is_not() -> None:
    deep: tuple[object, ...] = ()
    for _ in range(100_000):
        deep = (deep,)
    assert not is_plain(deep, 1_000_000)


@pytest.mark.parametrize("value", [{1}, b"a", {1: 2}, math.nan, [math.inf], object(), {"a": [{"b": 1j}]}])
def test_what_is_no_json_is_not(value: object) -> None:
    assert not is_plain(value, 1_000)


def test_a_circle_has_an_end() -> None:
    circle: list[object] = []
    circle.append(circle)
    assert not is_plain(circle, 1_000)
