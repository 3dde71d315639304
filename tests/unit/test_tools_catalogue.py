"""The catalogue's first fill is sound: schemas, names, aliases, functions."""

from typing import Any

import pytest
from jsonschema_rs import Draft202012Validator

from shared.tools.builtin import BUILTINS, OUTER_BUILTINS
from shared.tools.catalogue.seed import first_documents, first_tools
from shared.tools.executors.code import CODE_FUNCTION
from shared.tools.executors.http_config import check_http_config
from shared.tools.model import Tool, by_function_name
from shared.tools.workspace.devtools import DEVTOOLS

ROWS = first_tools("microdao:a")


def tool(row: dict[str, Any]) -> Tool:
    fields = {name: value for name, value in row.items() if name not in ("definition_hash", "aliases")}
    return Tool(version=1, active=True, **fields)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["name"])
def test_entry(row: dict[str, Any]):
    Draft202012Validator(row["parameters"])
    assert row["parameters"]["type"] == "object"
    assert row["parameters"]["additionalProperties"] is False
    assert all(field["description"] for field in row["parameters"]["properties"].values())
    if row["executor"] == "builtin":
        assert row["config"]["function"] in {*BUILTINS, *OUTER_BUILTINS, *DEVTOOLS, CODE_FUNCTION}
    else:
        config = {name: value for name, value in row["config"].items() if name != "base"}
        check_http_config({**config, "url": f"https://platform.test{config['url']}"}, row["parameters"])
        assert row["config"]["base"] == "platform"
    assert row["risk"] in "ABCD"


def test_every_builtin_is_in_the_catalogue_once():
    named = [row["config"]["function"] for row in ROWS if row["executor"] == "builtin"]
    assert sorted(named) == sorted((*BUILTINS, *OUTER_BUILTINS, *DEVTOOLS, CODE_FUNCTION))


def test_function_names_are_what_openai_takes_and_lead_back():
    tools = [tool(row) for row in ROWS]
    back = by_function_name(tools)
    assert len(back) == len(tools)
    assert back["task_create"].name == "task.create"
    assert all(name.replace("_", "").replace("-", "").isalnum() for name in back)


def test_aliases():
    aliases = {alias: row["name"] for row in ROWS for alias in row["aliases"]}
    assert aliases["create_project"] == "project.create"
    assert aliases["create_task"] == "task.create"
    assert aliases.keys().isdisjoint(row["name"] for row in ROWS)


def test_ids_are_the_same_every_time_and_differ_between_tenants():
    assert [row["id"] for row in first_tools("microdao:a")] == [row["id"] for row in ROWS]
    assert {row["id"] for row in first_tools("microdao:b")}.isdisjoint(row["id"] for row in ROWS)
    pages = [page["id"] for page in first_documents("microdao:a")]
    assert len(set(pages)) == len(pages) >= 3
