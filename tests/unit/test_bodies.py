"""What a body may hold."""

import pytest

from functions.chat.bodies import parse_body
from shared.errors import InvalidRequest, UnsupportedMediaType


def test_good_bodies() -> None:
    assert parse_body(b'{"a": [1]}', "application/json; charset=utf-8") == {"a": [1]}
    assert parse_body(b"{}", None) == {}
    assert parse_body(b"", "text/plain") is None
    assert parse_body(b'{"a": 1}', "application/merge-patch+json") == {"a": 1}
    assert parse_body(rb'{"a": "a literal \\u0000 in a text about JSON"}', None) == {
        "a": r"a literal \u0000 in a text about JSON"
    }


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b'{"a": NaN}',
        b'{"a": "\xff"}',
        rb'{"a": "\u0000"}',
        rb'{"a": "\\\u0000"}',
        rb'"\ud800"',
        b"[" * 65 + b"]" * 65,
    ],
)
def test_bad_bodies(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        parse_body(body, "application/json")


def test_other_media_types() -> None:
    with pytest.raises(UnsupportedMediaType, match="application/json"):
        parse_body(b"a=b", "application/x-www-form-urlencoded")
