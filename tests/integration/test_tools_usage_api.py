"""What a caller may see of the catalogue, grants by tag, and how tools are used."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from shared.bootstrap import Services
from shared.db.database import Database, fetch_all
from tests.integration.test_tools_admin_api import BASE, SOFIA, client_of, tool

TOOLS = "/internal/tools"


@pytest.fixture
async def admin(services: Services, microdao: str) -> AsyncIterator[httpx.AsyncClient]:
    async with await client_of(services, microdao, "admin") as client:
        yield client


@pytest.fixture
async def agent(services: Services, microdao: str) -> AsyncIterator[httpx.AsyncClient]:
    async with await client_of(services, microdao, "agent") as client:
        yield client


async def test_an_agent_sees_what_it_may_run_and_nothing_else(admin: httpx.AsyncClient, agent: httpx.AsyncClient):
    await admin.post(BASE, json=tool("given", grant_to=[SOFIA]))
    stopped = (await admin.post(BASE, json=tool("stopped", grant_to=[SOFIA], active=False))).json()
    await admin.post(BASE, json=tool("hidden"))
    mine = {"agent_id": SOFIA}
    for path in (TOOLS, f"{TOOLS}/catalog"):
        for client in (admin, agent):
            assert [one["name"] for one in (await client.get(path, params=mine)).json()["tools"]] == ["given"]
        assert [one["name"] for one in (await admin.get(path)).json()["tools"]] == ["given", "hidden", "stopped"]
        assert (await agent.get(path)).json()["error"]["param"] == "agent_id"
        assert (await agent.get(path, params={"agent_id": "agent:nobody"})).status_code == 404
    assert (await agent.get(f"{TOOLS}/given", params=mine)).json()["parameters"]["required"] == ["city"]
    for name in ("hidden", "stopped", stopped["id"], "unheard"):
        refused = await agent.get(f"{TOOLS}/{name}", params=mine)
        said = refused.json()["error"]["message"].replace(repr(name), "")
        assert (refused.status_code, "given" in said, "hidden" in said) == (404, True, False)
        assert (await agent.get(f"{TOOLS}/{name}")).status_code == 400
    assert (await admin.get(f"{TOOLS}/hidden")).json()["version"] == 1


async def test_the_audit_log_and_permissions_name_nothing_else_either(
    admin: httpx.AsyncClient, agent: httpx.AsyncClient
):
    for name, grants in (("given", [SOFIA]), ("hidden", [])):
        await admin.post(BASE, json=tool(name, grant_to=grants))
    permissions = f"{TOOLS}/agents/{SOFIA}/permissions"
    assert [one["name"] for one in (await admin.get(permissions)).json()["tools"]] == ["given", "hidden"]
    assert [one["name"] for one in (await agent.get(permissions)).json()["tools"]] == ["given"]
    log = f"{TOOLS}/executions"
    assert (await agent.get(log)).json()["error"]["param"] == "agent_id"
    assert (await agent.get(log, params={"agent_id": SOFIA})).json()["executions"] == []
    said = (await agent.get(log, params={"agent_id": SOFIA, "tool": "hiden"})).json()["error"]["message"]
    assert "given" in said
    assert "hidden" not in said


async def test_pages_of_an_agents_tools(admin: httpx.AsyncClient):
    for name in ("a1", "a2", "a3"):
        await admin.post(BASE, json=tool(name, grant_to=[SOFIA]))
    page = (await admin.get(TOOLS, params={"agent_id": SOFIA, "limit": 2})).json()
    assert ([one["name"] for one in page["tools"]], page["next"]) == (["a1", "a2"], "a2")
    page = (await admin.get(TOOLS, params={"agent_id": SOFIA, "after": "a2"})).json()
    assert ([one["name"] for one in page["tools"]], page["next"]) == (["a3"], None)


async def test_grants_by_tag(admin: httpx.AsyncClient):
    for name, tags in (("a1", ["money"]), ("a2", ["money", "eu"]), ("a3", [])):
        await admin.post(BASE, json=tool(name, tags=tags))
    path = f"{TOOLS}/agents/{SOFIA}/permissions"
    shown = (await admin.put(path, json={"grant": ["tag:money"]})).json()["tools"]
    assert {one["name"]: one["granted"] for one in shown} == {"a1": True, "a2": True, "a3": False}
    shown = (await admin.put(path, json={"revoke": ["tag:eu"]})).json()["tools"]
    assert {one["name"]: one["granted"] for one in shown} == {"a1": True, "a2": False, "a3": False}
    assert (await admin.put(path, json={"grant": ["tag:none"]})).status_code == 404


async def call(client: httpx.AsyncClient, name: str, args: dict[str, Any]) -> str:
    body = {"tool_name": name, "agent_id": SOFIA, "args": args}
    return str((await client.post(f"{TOOLS}/call", json=body)).json()["status"])


async def test_usage(admin: httpx.AsyncClient, services: Services, database: Database, microdao: str):
    await services.toolbox.seed(microdao, SOFIA)
    assert await call(admin, "math", {"expression": "1+1"}) == "succeeded"
    assert await call(admin, "math", {"expression": "1/0"}) == "failed"
    assert await call(admin, "project.create", {"name": "x"}) == "succeeded"
    await admin.post(BASE, json=tool("hidden"))
    refused = await admin.post(f"{TOOLS}/call", json={"tool_name": "hidden", "agent_id": SOFIA, "args": {}})
    assert refused.status_code == 403
    async with database.system() as connection:
        await connection.execute(
            "UPDATE tool_execution SET status = 'unknown', ms = 100, cost_microusd = 9, error_code = 'tool_timeout'"
            " WHERE microdao_id = %s AND args->>'name' = 'x'",
            (microdao,),
        )
    report = (await admin.get(f"{TOOLS}/analytics")).json()
    total = report["total"]
    assert [total[field] for field in ("runs", "succeeded", "failed", "unknown", "cost_microusd")] == [3, 1, 1, 1, 9]
    assert total["failures"] == {"tool_failed": 1, "tool_timeout": 1}
    assert [(one["tool"], one["runs"], one["failures"]) for one in report["groups"]] == [
        ("math", 2, {"tool_failed": 1}),
        ("project.create", 1, {"tool_timeout": 1}),
    ]
    assert (report["groups"][1]["ms_p50"], report["groups"][1]["ms_p95"]) == (100, 100)
    assert (report["denied"], report["denials"]) == (1, [{"denied": 1, "tool": "hidden", "agent": None, "day": None}])
    unused = {one["name"]: one for one in report["unused"]}
    assert "math" not in unused
    assert (unused["search_docs"]["agents"], unused["search_docs"]["last_used_at"]) == (1, None)
    by = (await admin.get(f"{TOOLS}/analytics", params={"group_by": "agent,day", "tool": "math"})).json()
    assert [(one["agent"], one["runs"], one["tool"]) for one in by["groups"]] == [(SOFIA, 2, None)]
    old = (await admin.get(f"{TOOLS}/analytics", params={"period": "2020-01-01"})).json()
    assert (old["total"]["runs"], old["total"]["ms_p50"], old["groups"]) == (0, None, [])
    assert (await admin.get(f"{TOOLS}/analytics", params={"group_by": "moon"})).status_code == 400
    assert (await admin.get(f"{TOOLS}/analytics", params={"tool": "unheard"})).status_code == 404


async def test_analytics_reach_back_as_far_as_runs_are_kept_and_the_bill_further(
    admin: httpx.AsyncClient, services: Services, database: Database, microdao: str
):
    await services.toolbox.seed(microdao, SOFIA)
    for name, expression in (("math", "1+1"), ("math", "2+2")):
        assert await call(admin, name, {"expression": expression}) == "succeeded"
    assert await call(admin, "project.create", {"name": "x"}) == "succeeded"
    async with database.tenant(microdao) as connection:
        await connection.execute(
            "UPDATE tool_execution SET created_at = created_at - interval '91 days',"
            " finished_at = finished_at - interval '91 days' WHERE args->>'expression' IS DISTINCT FROM '1+1'"
        )

    async def year() -> tuple[dict[str, int], dict[str, str | None]]:
        report = (await admin.get(f"{TOOLS}/analytics", params={"period": "365d"})).json()
        assert report["total"]["runs"] == sum(one["runs"] for one in report["groups"])
        unused = {one["name"]: one["last_used_at"] for one in report["unused"]}
        return {one["tool"]: one["runs"] for one in report["groups"]}, unused

    runs, unused = await year()
    assert (runs, "project.create" in unused) == ({"math": 2, "project.create": 1}, False)
    await services.execution_pruning.sweep()
    runs, unused = await year()
    assert (runs, unused["project.create"]) == ({"math": 1}, None)
    async with database.tenant(microdao) as connection:
        charged = await fetch_all(connection, "SELECT subject FROM usage_event WHERE kind = 'tool' ORDER BY subject")
    assert [row["subject"] for row in charged] == ["math", "math", "project.create"]
