"""A definition's hash is its identity; schemas and configs are checked before they are stored."""

import random
import time
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import InvalidRequest
from shared.tools.catalogue.configs import literal_secret
from shared.tools.catalogue.definition import definition_hash
from shared.tools.catalogue.schemas import MAX_BYTES, MAX_DEPTH, check_schema

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
OBJECTS = st.dictionaries(st.text(), JSON, max_size=5)


def shuffled(value: Any, seed: int) -> Any:
    """The same with its keys in another order."""
    if isinstance(value, dict):
        names = list(value)
        random.Random(seed).shuffle(names)
        return {name: shuffled(value[name], seed) for name in names}
    return [shuffled(one, seed) for one in value] if isinstance(value, list) else value


@given(st.text(), st.text(), OBJECTS, st.integers())
def test_the_hash_does_not_depend_on_the_order_of_keys(name: str, description: str, schema: dict[str, Any], seed: int):
    assert definition_hash(name, description, schema) == definition_hash(name, description, shuffled(schema, seed))


@given(st.text(), st.text(), st.text(), st.text(), OBJECTS, OBJECTS)
def test_the_hash_tells_apart_what_differs(
    name: str, other: str, said: str, meant: str, schema: dict[str, Any], changed: dict[str, Any]
):
    first = definition_hash(name, said, schema)
    for differs, second in (
        (name != other, definition_hash(other, said, schema)),
        (said != meant, definition_hash(name, meant, schema)),
        (_text(schema) != _text(changed), definition_hash(name, said, changed)),
    ):
        assert (first != second) == differs


def _text(value: Any) -> str:
    """JSON that tells 1 from 1.0 and true, as a hash must."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{name!r}:{_text(value[name])}" for name in sorted(value)) + "}"
    return "[" + ",".join(map(_text, value)) + "]" if isinstance(value, list) else repr(value)


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


def chain(levels: int) -> dict[str, Any]:
    """References that lead through so many others."""
    definitions = {f"d{level}": {"$ref": f"#/$defs/d{level + 1}"} for level in range(levels)}
    return {
        "type": "object",
        "$defs": {**definitions, f"d{levels}": {}},
        "properties": {"a": {"$ref": "#/$defs/d0"}},
    }


def bomb(levels: int) -> dict[str, Any]:
    """A few lines that stand for 2 ** levels schemas."""
    definitions: dict[str, Any] = {"d0": {"type": "string"}}
    for level in range(levels):
        reference = {"$ref": f"#/$defs/d{level}"}
        definitions[f"d{level + 1}"] = {"allOf": [reference, dict(reference)]}
    return {"type": "object", "$defs": definitions, "properties": {"a": {"$ref": f"#/$defs/d{levels}"}}}


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object"},
        {"type": "object", "$schema": "https://json-schema.org/draft/2020-12/schema"},
        {"type": "object", "properties": {"a": {"anyOf": [{"type": "string"}, {"type": "null"}]}}},
        {"type": "object", "$defs": {"a": {"type": "string"}}, "properties": {"b": {"$ref": "#/$defs/a"}}},
        {"type": "object", "properties": {"$ref": {"type": "string"}, "$id": {"type": "string"}}},
        {"type": "object", "properties": {"a": {"enum": [{"$ref": "http://x"}], "default": {"$id": 1}}}},
        nested(5),
        bomb(5),
    ],
)
def test_a_sound_schema_passes(schema: dict[str, Any]):
    check_schema(schema, "parameters")


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ({}, "type"),
        ({"type": ["object", "null"]}, "type"),
        ({"type": "object", "anyOf": [{"required": ["a"]}]}, "anyOf"),
        ({"type": "object", "properties": {"a": {"type": "text"}}}, "text"),
        ({"type": "object", "properties": {"a": {"pattern": "("}}}, "regex"),
        ({"type": "object", "properties": {"a": {"pattern": r"(a)\1"}}}, "regex"),
        ({"type": "object", "properties": {"a": {"$ref": "https://x.example/s.json"}}}, "x.example"),
        ({"type": "object", "properties": {"a": {"$ref": "file:///etc/passwd"}}}, "passwd"),
        ({"type": "object", "properties": {"a": {"$ref": "#/$defs/none"}}}, "none"),
        ({"type": "object", "properties": {"a": {"$ref": "#"}}}, "recursive"),
        ({"type": "object", "properties": {"a": {"$ref": "#/properties/a"}}}, "recursive|circular|infinite"),
        ({"type": "object", "properties": {"a": {"$id": "https://x.example/b"}}}, r"\$id"),
        ({"type": "object", "properties": {"a": {"$dynamicRef": "#a"}}}, r"\$dynamicRef"),
        ({"type": "object", "$schema": "http://json-schema.org/draft-07/schema#"}, "2020-12"),
        ({"type": "object", "description": "x" * MAX_BYTES}, "larger"),
        (nested(MAX_DEPTH), "deeper"),
        (bomb(20), "more than"),
        (bomb(30), "more than"),
        (chain(1_000), "lead through"),
    ],
)
def test_an_unsound_schema_is_refused_with_the_reason(schema: dict[str, Any], why: str):
    started = time.perf_counter()
    with pytest.raises(InvalidRequest, match=why):
        check_schema(schema, "parameters")
    assert time.perf_counter() - started < 1


@given(JSON)
def test_whatever_is_no_schema_is_refused_and_nothing_else_happens(value: Any):
    with suppress(InvalidRequest):
        check_schema({"type": "object", "properties": {"a": value}}, "parameters")


@pytest.mark.parametrize(
    ("config", "path"),
    [
        ({"headers": {"Authorization": "Bearer abcdef"}}, "headers.Authorization"),
        ({"headers": {"x-api-key": "1"}}, "headers.x-api-key"),
        ({"headers": {"Cookie": "a=b"}}, "headers.Cookie"),
        ({"query": {"access_token": "x"}}, "query.access_token"),
        ({"url": "https://a:b@c.example"}, "url"),
        ({"url": "https://c.example/?token=x"}, "url"),
        ({"body": [{"deep": "sk-" + "a1" * 20}]}, "body.0.deep"),
        ({"headers": {"X": "Basic dXNlcjpwYXNz"}}, "headers.X"),
        ({"code": "KEY = 'AKIAABCDEFGHIJKLMNOP'\ndef run(args): pass"}, "code"),
    ],
)
def test_a_literal_secret_is_found(config: dict[str, Any], path: str):
    assert str(literal_secret(config)).startswith(f"{path} looks like a secret")


@pytest.mark.parametrize(
    "config",
    [
        {"headers": {"Authorization": "Bearer {{secret}}"}, "secret_ref": "key"},
        {"query": {"token": "{{secrets.other}}"}},
        {"url": "https://c.example/{token}", "in": {"token": "path", "api_key": "query"}},
        {"headers": {"Accept": "application/json"}},
        {"code": "def run(args):\n    token = args['token']\n    return token"},
    ],
)
def test_a_reference_is_no_secret(config: dict[str, Any]):
    assert literal_secret(config) is None
