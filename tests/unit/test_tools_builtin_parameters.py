"""What a tool of a built-in function may be defined with: what the function takes, or less."""

from typing import Any

import pytest

from shared.errors import InvalidRequest
from shared.tools.builtin.shipped import shipped_tools
from shared.tools.catalogue.builtin_parameters import check_builtin_parameters

SHIPPED = {entry["function"]: entry["parameters"] for entry in shipped_tools() if "function" in entry}


def schema(required: list[str] | None = None, /, **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": required or []}


TEXT = {"type": "string"}


@pytest.mark.parametrize("function", SHIPPED)
def test_what_ships_fits_itself(function: str):
    check_builtin_parameters(function, SHIPPED[function])


@pytest.mark.parametrize(
    ("function", "parameters"),
    [
        ("math", schema(["expression"], expression={"type": "string", "maxLength": 5, "description": "Short."})),
        ("math", schema(["expression"], expression={"enum": ["1 + 1", "2 + 2"]})),
        ("math", schema(["expression"], expression={"const": "6 * 7"})),
        ("math", schema(["expression"], expression={"$ref": "#/$defs/a"}) | {"$defs": {"a": TEXT}}),
        ("projects.list", {"type": "object"}),
        ("tasks.list", schema(state={"const": "open"}, limit={"type": "integer"})),
        ("tasks.list", schema(["project"], project=TEXT)),
        ("task.update", schema(["task", "due"], task=TEXT, due=TEXT)),
        ("task.update", schema(["task"], task=TEXT, due={"type": ["null", "string"]})),
        ("memory.store", schema(["text"], text=TEXT, importance={"type": "integer"})),
        ("code.run", schema(["code"], code=TEXT, args={"type": "object", "required": ["a"]})),
    ],
)
def test_less_than_the_function_takes_is_fine(function: str, parameters: dict[str, Any]):
    check_builtin_parameters(function, parameters)


@pytest.mark.parametrize(
    ("function", "parameters", "named", "said"),
    [
        ("math", {"type": "object"}, "expression", "must be there and be required"),
        ("math", schema(expression=TEXT), "expression", "be required"),
        ("math", schema(["expression"]), "expression", "must be there"),
        ("math", schema(["expression", "text"], expression=TEXT, text=TEXT), "text", "it takes expression"),
        ("math", schema(["expression"], expression={"type": "number"}), "expression", "must be of type string"),
        ("math", schema(["expression"], expression={}), "expression", "must be of type string"),
        ("math", schema(["expression"], expression=True), "expression", "must be of type string"),
        ("math", schema(["expression"], expression={"anyOf": [TEXT]}), "expression", "must be of type string"),
        ("math", schema(["expression"], expression={"type": ["string", "null"]}), "expression", "of type string"),
        ("math", schema(["expression"], expression={"enum": ["1", 2]}), "expression", "may not be 2"),
        ("math", schema(["expression"], expression={"$ref": "#/$defs/a"}) | {"$defs": {"a": {}}}, "expression", "type"),
        ("tasks.list", schema(state=TEXT), "state", "must have an enum of open, done"),
        ("tasks.list", schema(state={"enum": ["open", "lost"]}), "state", "may not be 'lost'"),
        ("tasks.list", schema(limit={"type": "number"}), "limit", "must be of type integer"),
        ("task.update", schema(["task"], task=TEXT, due={"type": "integer"}), "due", "of type string or null"),
        ("fs_write", schema(["path"], path=TEXT), "content", "must be there and be required"),
    ],
)
def test_what_the_function_does_not_take_is_named(function: str, parameters: dict[str, Any], named: str, said: str):
    with pytest.raises(InvalidRequest, match=said) as refusal:
        check_builtin_parameters(function, parameters)
    assert refusal.value.param == f"parameters.{named}"
    assert function in refusal.value.message
