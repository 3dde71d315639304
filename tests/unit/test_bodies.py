"""What a body may hold."""

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from functions.chat.bodies import parse_body
from functions.chat.error_responses import from_validation
from shared.errors import InvalidRequest, UnsupportedMediaType
from shared.router.flow import FlowRequest
from shared.wire.chat import ChatRequest


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


@pytest.mark.parametrize(
    ("model", "body", "message"),
    [
        (FlowRequest, {"steps": [{"id": "a", "agent": "x"}]}, "steps.0.agent: Extra inputs are not permitted"),
        (FlowRequest, {"steps": "later"}, "steps: Input should be a valid list"),
        (
            ChatRequest,
            {"model": "smart", "messages": [{"role": "user", "content": 5}]},
            "messages.0.content: Input should be a valid string",
        ),
    ],
)
def test_a_fault_is_named_by_its_place_in_the_body(model: type[BaseModel], body: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        model.model_validate(body)
    assert from_validation(caught.value.errors()).message == message


@pytest.mark.parametrize(
    ("location", "message"),
    [
        (("body", "query"), "query: Field required"),
        (("query", "query"), "query: Field required"),
        (("body", "filters", "path"), "filters.path: Field required"),
        (("body",), "The request needs a body, in JSON."),
    ],
)
def test_only_where_a_field_stands_is_left_out_of_its_name(location: tuple[str, ...], message: str) -> None:
    fault = from_validation([{"type": "missing", "loc": location, "msg": "Field required"}])
    assert fault.message == message
