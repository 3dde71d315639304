"""The catalogue's first fill is sound: schemas, names, aliases, functions."""

from typing import Any

import pytest
from jsonschema_rs import Draft202012Validator

from shared.tools.builtin import BUILTINS
from shared.tools.catalogue.seed import canonical_name, definition_hash, first_documents, first_tools
from shared.tools.model import Tool, by_function_name

ROWS = first_tools("microdao:a")


def tool(row: dict[str, Any]) -> Tool:
    fields = {name: value for name, value in row.items() if name != "definition_hash"}
    return Tool(version=1, active=True, **fields)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["name"])
def test_entry(row: dict[str, Any]):
    Draft202012Validator(row["parameters"])
    assert row["parameters"]["type"] == "object"
    assert row["parameters"]["additionalProperties"] is False
    assert all(field["description"] for field in row["parameters"]["properties"].values())
    assert row["config"]["function"] in BUILTINS
    assert row["risk"] in "ABCD"


def test_every_builtin_is_in_the_catalogue_once():
    assert sorted(row["config"]["function"] for row in ROWS) == sorted(BUILTINS)


def test_function_names_are_what_openai_takes_and_lead_back():
    tools = [tool(row) for row in ROWS]
    back = by_function_name(tools)
    assert len(back) == len(tools)
    assert back["task_create"].name == "task.create"
    assert all(name.replace("_", "").replace("-", "").isalnum() for name in back)


def test_aliases():
    assert canonical_name("create_project") == "project.create"
    assert canonical_name("create_task") == "task.create"
    assert canonical_name("task.create") == "task.create"
    assert canonical_name("unheard") == "unheard"


def test_ids_are_the_same_every_time_and_differ_between_tenants():
    assert [row["id"] for row in first_tools("microdao:a")] == [row["id"] for row in ROWS]
    assert {row["id"] for row in first_tools("microdao:b")}.isdisjoint(row["id"] for row in ROWS)
    pages = [page["id"] for page in first_documents("microdao:a")]
    assert len(set(pages)) == len(pages) >= 3


def test_definition_hash_knows_every_part_a_model_sees():
    first = definition_hash("a", "b", {"type": "object"})
    assert definition_hash("a", "b", {"type": "object"}) == first
    assert (
        len({first, definition_hash("a", "c", {"type": "object"}), definition_hash("a", "b", {"type": "array"})}) == 3
    )
