"""The offline provider takes any JSON for a schema or a choice: it answers or refuses, soon and in few characters."""

import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.errors import ApiError, InvalidRequest
from shared.llm.providers.base import Delta
from shared.llm.providers.offline.answer import decide
from shared.llm.providers.offline.provider import OfflineProvider
from shared.llm.providers.offline.requests import Call
from shared.wire.chat import ChatRequest

MOST_SECONDS = 2.0
MOST_CHARACTERS = 300_000
KEYWORDS = (
    *("type", "properties", "required", "items", "minItems", "minLength", "maxLength", "minimum", "enum", "const"),
    *("default", "anyOf", "oneOf", "allOf", "$ref", "$defs", "format", "description", "function", "name", "n", "a"),
)
KINDS = ("object", "array", "string", "integer", "number", "boolean", "null", "#", "#/$defs/a", "lookup", "n")
NUMBERS = st.integers(-(2**63), 2**64 - 1) | st.integers(0, 30) | st.floats()  # what the body parser lets through
SCALARS = st.none() | st.booleans() | NUMBERS | st.sampled_from(KINDS) | st.text(max_size=5)
ANY_JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYWORDS), inner, max_size=5),
    max_leaves=25,
)
TEXTS = st.sampled_from(["n 99999999999999999999999", "n " + "9" * 400 + ".5", "a: no x", "lookup n 5", "", "Hello"])


def request(text: str, parameters: Any = None, schema: Any = None, **more: Any) -> ChatRequest:
    tools = [{"type": "function", "function": {"name": "lookup", "description": "Look n up", "parameters": parameters}}]
    if schema is not None:
        more["response_format"] = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    given_tools = tools if parameters is not None else None
    messages = [{"role": "user", "content": text}]
    return ChatRequest.model_validate({"model": "offline", "messages": messages, "tools": given_tools, **more})


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "array", "minItems": 10, "items": schema}
    return schema


@pytest.mark.parametrize(
    "schema",
    [
        nested(6),
        {"type": "string", "minLength": 300_000_000},
        {"type": "array", "minItems": 10**12},
        {"type": "array", "minItems": 900, "items": {"const": "x" * 10_000}},
        {"type": "object", "required": ["a", "b"], "properties": {"a": {"$ref": "#"}, "b": {"$ref": "#"}}},
        {"const": 2**80},
    ],
    ids=["nested", "long", "many", "constants", "recursive", "number"],
)
def test_a_schema_that_asks_for_too_much_is_refused(schema: dict[str, Any]) -> None:
    began = time.process_time()
    with pytest.raises(InvalidRequest):
        decide(request("Hello", schema=schema))
    assert time.process_time() - began < MOST_SECONDS


def test_texts_are_shortened_before_a_schema_is_refused() -> None:
    entries = {"type": "array", "minItems": 60, "items": {"type": "string", "minLength": 3}}
    answer = json.loads(decide(request("Say only " + "word " * 700, schema=entries)))
    assert len(answer) == 60
    assert min(map(len, answer)) >= 3
    assert sum(map(len, answer)) <= 20_200


def test_a_schema_that_may_end_ends() -> None:
    link = {"anyOf": [{"$ref": "#"}, {"type": "null"}]}
    tree = {"type": "object", "required": ["left", "right"], "properties": {"left": link, "right": link}}
    assert json.loads(decide(request("Hello", schema=tree)))["left"]["right"]


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"type": "array", "minItems": "a"}, []),
        ({"anyOf": 5, "type": "integer"}, 0),
        ({"type": "object", "properties": 5}, {}),
        ({"type": "integer", "minimum": "x"}, 0),
        ({"type": "integer", "minimum": 1.5}, 2),
        ({"type": "string", "minLength": "x", "maxLength": 4}, "pong"),
        ({"type": "string", "minLength": 6, "maxLength": -1}, "pong.."),
    ],
)
def test_keywords_of_a_wrong_type_count_as_absent(schema: dict[str, Any], expected: Any) -> None:
    assert json.loads(decide(request("ping", schema=schema))) == expected
    parameters = {"type": "object", "required": ["n"], "properties": {"n": schema}}
    assert decide(request("lookup", parameters, tool_choice="required")) is not None


@pytest.mark.parametrize("kind", ["integer", "number", "array"])
async def test_a_number_too_large_for_json_is_no_number(kind: str) -> None:
    entry = {"type": kind, "items": {"type": "integer"}}
    parameters = {"type": "object", "required": ["n"], "properties": {"n": entry}}
    for number in ("99999999999999999999999", "9" * 400 + ".5"):
        asked = request(f"n {number}", parameters, tool_choice="required")
        answer = await OfflineProvider().complete(asked, "offline")
        arguments = json.loads(answer.message["tool_calls"][0]["function"]["arguments"])
        assert arguments == {"n": [] if kind == "array" else 0}


def test_a_choice_that_names_no_function_is_any() -> None:
    parameters = {"type": "object", "properties": {}}
    choice = {"type": "function", "function": 5}
    assert decide(request("Hello", parameters, tool_choice=choice)) == Call("lookup", {})


def test_an_option_that_is_given_twice() -> None:
    entry = {"enum": ["x", "x"]}
    parameters = {"type": "object", "required": ["a"], "properties": {"a": entry}}
    assert decide(request("not x", parameters, tool_choice="required")) == Call("lookup", {"a": "x"})


async def answered(asked: ChatRequest) -> int:
    """How many characters the whole answer and the streamed one have; none where the request is refused."""
    provider, written = OfflineProvider(), 0
    try:
        written = len(json.dumps((await provider.complete(asked, "offline")).message))
        async for part in provider.stream(asked, "offline"):
            written += len(json.dumps(part.delta)) if isinstance(part, Delta) else 0
    except ApiError:
        return written
    return written


@settings(max_examples=120)
@given(
    text=TEXTS,
    schema=ANY_JSON,
    choice=st.sampled_from([None, "auto", "required"])
    | st.dictionaries(st.sampled_from(KEYWORDS), ANY_JSON, max_size=4),
    parameters=st.none() | st.dictionaries(st.sampled_from(KEYWORDS), ANY_JSON, max_size=5),
    properties=st.none() | st.dictionaries(st.sampled_from(KEYWORDS), ANY_JSON, max_size=4),
    response_format=st.none() | ANY_JSON,
)
async def test_any_json_is_answered_or_refused(
    text: str, schema: Any, choice: Any, parameters: Any, properties: Any, response_format: Any
) -> None:
    if parameters is not None and properties is not None:
        parameters = {**parameters, "properties": properties, "required": list(properties)}
    wanted = {"response_format": response_format} if response_format is not None else {}
    began = time.process_time()
    for asked in (request(text, parameters, schema, tool_choice=choice), request(text, parameters, **wanted)):
        assert await answered(asked) < MOST_CHARACTERS
    assert time.process_time() - began < MOST_SECONDS
