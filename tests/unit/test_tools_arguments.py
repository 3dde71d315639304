"""Arguments are checked before anything is written: faults are named, what the database cannot hold is refused."""

import time
from dataclasses import replace
from typing import Any

import pytest

from shared.errors import ApiError, InvalidArgs, InvalidRequest
from shared.tools.arguments import MAX_KEY_LENGTH, args_hash, check_args, check_request, schema_faults
from shared.tools.model import Tool, ToolCallRequest

TOOL = Tool(
    id="tool_1",
    name="note.write",
    version=1,
    description="Write a note.",
    parameters={
        "type": "object",
        "additionalProperties": False,
        "required": ["title"],
        "properties": {
            "title": {"type": "string", "minLength": 1, "maxLength": 20},
            "stars": {"type": "integer", "minimum": 1, "maximum": 5},
            "where": {
                "type": "object",
                "additionalProperties": False,
                "required": ["city"],
                "properties": {"city": {"type": "string"}},
            },
            "tags": {"type": "array", "items": {"type": "string"}},
        },
    },
    risk="B",
    executor="builtin",
    active=True,
    timeout_ms=1000,
    idempotent=False,
    config={},
)
ANYTHING = replace(TOOL, parameters={"type": "object"})
REQUEST = ToolCallRequest("microdao:a", "agent:a", "note.write", {"title": "x"}, "key_1")


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("args", "path"),
    [
        ({}, "title"),
        ({"title": ""}, "title"),
        ({"title": "x" * 21}, "title"),
        ({"title": 1}, "title"),
        ({"title": None}, "title"),
        ({"title": "x", "stars": 0}, "stars"),
        ({"title": "x", "stars": "5"}, "stars"),
        ({"title": "x", "stars": 2.5}, "stars"),
        ({"title": "x", "stars": True}, "stars"),
        ({"title": "x", "colour": "red"}, "colour"),
        ({"title": "x", "where": {}}, "where.city"),
        ({"title": "x", "where": {"city": "Kyiv", "zip": 1}}, "where.zip"),
        ({"title": "x", "tags": ["a", 1]}, "tags.1"),
        ({"title": "x", "tags": "a"}, "tags"),
    ],
)
def test_fault_is_named(args: dict[str, Any], path: str):
    with pytest.raises(InvalidArgs) as refused:
        check_args(TOOL, args)
    assert path in [detail.path for detail in refused.value.details]
    assert path in refused.value.message
    assert "note.write" in refused.value.message


@pytest.mark.parametrize(
    ("args", "path"),
    [
        ({"a": "nul \0"}, "a"),
        ({"a": "half \ud83d"}, "a"),
        ({"a": ["other half", "\ude00"]}, "a.1"),
        ({"a\0": 1}, ""),
        ({"a": {"b\udfff": 1}}, "a"),
        ({"a": [1, {"b": "\0"}]}, "a.1.b"),
        ({"a": float("nan")}, "a"),
        ({"a": float("inf")}, "a"),
        ({"a": 10**100}, "a"),
        ({"a": -(10**100)}, "a"),
        ({"a": nested(5000)}, "a"),
    ],
)
def test_unstorable_is_refused_whatever_the_schema(args: dict[str, Any], path: str):
    with pytest.raises(InvalidArgs) as refused:
        check_args(ANYTHING, args)
    assert refused.value.details[0].path.startswith(path)
    refused.value.message.encode()


@pytest.mark.parametrize(
    "args",
    [
        {"title": "x"},
        {"title": "Привіт 👋", "stars": 5, "where": {"city": "Київ"}, "tags": []},
        {"title": "x", "stars": 3.0},
    ],
)
def test_fitting_arguments_pass(args: dict[str, Any]):
    check_args(TOOL, args)


def test_many_faults_are_cut_short():
    with pytest.raises(InvalidArgs) as refused:
        check_args(TOOL, {f"surplus{index}": "x" * 10_000 for index in range(1000)})
    assert len(refused.value.details) <= 10
    assert len(refused.value.message) < 1000


def test_a_schema_never_fetches_what_it_refers_to():
    remote = replace(TOOL, parameters={"$ref": "http://127.0.0.1:9/schema.json"})
    with pytest.raises(ValueError, match=r"127\.0\.0\.1"):
        check_args(remote, {})


@pytest.mark.parametrize("pattern", ["^(a+)+$", "^(a|a)*$", "^([a-zA-Z]+)*$", "^(.*a){20}$", r"^(\w+\s?)*$"])
def test_a_catastrophic_pattern_takes_linear_time(pattern: str):
    hostile = replace(TOOL, parameters={"type": "object", "properties": {"a": {"type": "string", "pattern": pattern}}})
    with pytest.raises(InvalidArgs):
        check_args(hostile, {"a": "!"})
    started = time.perf_counter()
    with pytest.raises(InvalidArgs):
        check_args(hostile, {"a": "a" * 100_000 + "!\n"})
    assert time.perf_counter() - started < 2  # a backtracking engine would not end within the age of the universe


def test_numbers_beyond_64_bits_are_compared():
    most = replace(TOOL, parameters={"type": "object", "properties": {"n": {"type": "integer", "maximum": 2**70}}})
    check_args(most, {"n": 2**70})
    with pytest.raises(InvalidArgs):
        check_args(most, {"n": 2**70 + 1})


@pytest.mark.parametrize(
    "change",
    [
        {"agent_id": "a\0"},
        {"tool": "\ud800"},
        {"microdao_id": "\0"},
        {"requested_by": "\0"},
        {"session_id": "\0"},
        {"flow_id": "\0"},
        {"step_id": "\0"},
        {"idempotency_key": ""},
        {"idempotency_key": "k" * (MAX_KEY_LENGTH + 1)},
        {"idempotency_key": "k\0"},
    ],
)
def test_identifiers_that_the_database_cannot_hold_are_refused(change: dict[str, str]):
    with pytest.raises(InvalidRequest) as refused:
        check_request(replace(REQUEST, **change))
    assert refused.value.param == next(iter(change))
    assert isinstance(refused.value, ApiError)


def test_hash_knows_the_call_not_the_order_of_keys():
    same = args_hash(ANYTHING, replace(REQUEST, args={"a": 1, "b": {"c": 2, "d": 3}}))
    assert args_hash(ANYTHING, replace(REQUEST, args={"b": {"d": 3, "c": 2}, "a": 1}, requested_by="other")) == same
    others = [
        args_hash(ANYTHING, replace(REQUEST, args={"a": 1, "b": {"c": 2, "d": 4}})),
        args_hash(replace(ANYTHING, id="tool_2"), replace(REQUEST, args={"a": 1, "b": {"c": 2, "d": 3}})),
        args_hash(ANYTHING, replace(REQUEST, agent_id="agent:b", args={"a": 1, "b": {"c": 2, "d": 3}})),
    ]
    assert len({same, *others}) == 4


@pytest.mark.parametrize(
    ("items", "values"),
    [
        ({"anyOf": [{"const": f"k{number}"} for number in range(100)]}, [1] * 5_000),
        ({"enum": list(range(9_000))}, ["x"] * 5_000),
        ({"anyOf": [{"type": "array", "maxItems": number} for number in range(200)]}, [[0] * 5_000]),
    ],
)
def test_faults_without_number_take_no_time(items, values):
    schema = {"type": "object", "properties": {"a": {"type": "array", "items": items}}}
    before = time.process_time()
    (fault,) = schema_faults(schema, {"a": values})
    assert time.process_time() - before < 1
    assert "too large" in fault.message
    assert schema_faults(schema, {"a": [{}]})[0].path == "a.0"


def test_a_check_without_end_is_refused():
    schema = {"type": "object", "properties": {"a": {"items": {"anyOf": [{"const": one} for one in range(3_500)]}}}}
    before = time.process_time()
    (fault,) = schema_faults(schema, {"a": [3_499] * 100_000})
    assert time.process_time() - before < 1
    assert "too many values" in fault.message
    assert schema_faults(schema, {"a": [3_499] * 100}) == []
