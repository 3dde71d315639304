"""Tools of built-in functions that are defined with other parameters: refused when made, failing clearly if called."""

from typing import Any

import httpx
import pytest

from functions.chat.app import create_app
from shared.bootstrap import Services
from shared.db.database import Database
from shared.tools.model import ToolOutcome
from tests.outer_tools import add_tool, request

TEXT = {"type": "string"}
GOOD = {"type": "object", "required": ["expression"], "properties": {"expression": TEXT}}


async def test_it_is_refused_when_it_is_made_and_when_it_is_changed(services: Services, microdao: str):
    key = (await services.keys.create(microdao, ["admin"], "test")).secret
    bad = {"type": "object", "required": ["formula"], "properties": {"formula": TEXT}}
    sum_up = {"name": "sum.up", "description": "Sums up.", "executor": "builtin", "config": {"function": "math"}}
    transport = httpx.ASGITransport(create_app(services))
    headers = {"authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://test", headers=headers) as admin:
        refused = await admin.post("/admin/tools", json={**sum_up, "parameters": bad})
        made = await admin.post("/admin/tools", json={**sum_up, "parameters": GOOD, "grant_to": ["agent:sofia"]})
        path = f"/admin/tools/{made.json()['id']}"
        changed = await admin.patch(path, json={"parameters": bad})
        other_function = await admin.patch(path, json={"config": {"function": "task.create"}})
    assert [refused.status_code, made.status_code, changed.status_code, other_function.status_code] == [
        *(400, 201, 400, 400),
    ]
    for answer, param in ((refused, "expression"), (changed, "expression"), (other_function, "title")):
        assert answer.json()["error"]["param"] == f"parameters.{param}"
    outcome = await services.toolbox.execute(*request(microdao, "sum.up", expression="6 * 7"))
    assert (outcome.status, outcome.result) == ("succeeded", {"result": 42})


async def called(
    services: Services, microdao: str, function: str | None, parameters: dict[str, Any], args: dict[str, Any]
) -> ToolOutcome:
    """A call of a tool that was put into the catalogue before definitions were checked."""
    fields: dict[str, Any] = {"executor": "builtin", "parameters": parameters}
    config = {} if function is None else {"function": function}
    await add_tool(services.database, microdao, "older", config, **fields)
    return await services.toolbox.execute(*request(microdao, "older", **args))


@pytest.mark.parametrize(
    ("function", "args", "said"),
    [
        ("math", {"formula": "1 + 1"}, "expression is required"),
        ("math", {"expression": 5}, "expression 5 is not of type"),
        ("math", {"expression": "1+" * 9_000 + "1"}, "expression"),
        ("projects.list", {"archived": "yes"}, "archived"),
        ("tasks.list", {"state": "lost"}, "state"),
        ("task.update", {"task": "x", "state": None}, "state"),
        ("followup.create", {"text": "Look"}, "due is required"),
        ("memory.search", {}, "query is required"),
        ("memory.store", {"text": ["a", "list"]}, "text"),
        ("summarize_channel", {"name": "general"}, "channel is required"),
        ("fs_read", {"path": 7}, "path"),
        ("code.run", {"source": "def run(args): pass"}, "code is required"),
    ],
)
async def test_one_that_is_there_already_fails_and_says_why(
    services: Services, microdao: str, function: str, args: dict[str, Any], said: str
):
    outcome = await called(services, microdao, function, {"type": "object"}, args)
    assert (outcome.status, outcome.error_code) == ("failed", "invalid_args")
    assert said in str(outcome.error_message)
    assert f"{function!r} takes" in str(outcome.error_message)


async def test_what_fits_is_run_though_the_definition_would_allow_more(
    services: Services, database: Database, microdao: str
):
    outcome = await called(services, microdao, "math", {"type": "object"}, {"expression": "6 * 7", "note": "surplus"})
    assert (outcome.status, outcome.result) == ("succeeded", {"result": 42})


@pytest.mark.parametrize("function", [None, "os.system"])
async def test_a_function_that_is_none(services: Services, microdao: str, function: str | None):
    outcome = await called(services, microdao, function, {"type": "object"}, {})
    assert (outcome.status, outcome.error_code) == ("failed", "tool_failed")
    assert "no built-in function" in str(outcome.error_message)
