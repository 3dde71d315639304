"""The catalogue over HTTP: make, change, approve, delete; what other tenants and lesser roles see; races."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from functions.chat.app import create_app
from shared.bootstrap import Services
from shared.db.database import Database
from shared.ids import new_id

SOFIA = "agent:sofia"
BASE = "/admin/tools"
SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["city"],
    "properties": {"city": {"type": "string", "maxLength": 100}},
}


def tool(name: str = "weather.now", **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "description": "The weather of a city.",
        "parameters": SCHEMA,
        "executor": "http",
        "config": {"url": "https://weather.example/now", "method": "GET", "in": {"city": "query"}},
        "risk": "C",
        "idempotent": True,
        **more,
    }


async def client_of(services: Services, microdao: str, role: str) -> httpx.AsyncClient:
    secret = (await services.keys.create(microdao, [role], "test")).secret
    transport = httpx.ASGITransport(create_app(services))
    return httpx.AsyncClient(transport=transport, base_url="http://test", headers={"authorization": f"Bearer {secret}"})


@pytest.fixture
async def admin(services: Services, microdao: str) -> AsyncIterator[httpx.AsyncClient]:
    async with await client_of(services, microdao, "admin") as client:
        yield client


async def made(admin: httpx.AsyncClient, **more: Any) -> dict[str, Any]:
    response = await admin.post(BASE, json=tool(**more))
    assert response.status_code == 201, response.text
    return response.json()


async def test_create_get_list(admin: httpx.AsyncClient):
    created = await made(
        admin, tags=["weather"], aliases=["get_weather"], grant_to=[SOFIA], cost_microusd=5, environments=["dev"],
        rate_limit_per_minute=7, result_schema={"type": "object"},
    )  # fmt: skip
    expected = tool(
        version=1, active=True, tags=["weather"], aliases=["get_weather"], cost_microusd=5, environments=["dev"],
        rate_limit_per_minute=7, result_schema={"type": "object"}, timeout_ms=30_000, latest_version=1,
        pending_version=None, disabled_reason=None, import_id=None,
    )  # fmt: skip
    assert {field: created[field] for field in expected} == expected
    assert (await admin.get(f"{BASE}/{created['id']}")).json() == created
    await made(admin, name="zoo", executor="python", config={"code": "def run(args):\n    return args"})
    page = (await admin.get(BASE, params={"limit": 1})).json()
    assert ([one["name"] for one in page["tools"]], page["next"]) == (["weather.now"], "weather.now")
    page = (await admin.get(BASE, params={"after": page["next"]})).json()
    assert ([one["name"] for one in page["tools"]], page["next"]) == (["zoo"], None)
    for query, names in (({"tag": "weather"}, ["weather.now"]), ({"executor": "python"}, ["zoo"])):
        assert [one["name"] for one in (await admin.get(BASE, params=query)).json()["tools"]] == names
    shown = (await admin.get(f"/internal/tools/agents/{SOFIA}/permissions")).json()["tools"]
    assert {one["name"]: one["granted"] for one in shown} == {"weather.now": True, "zoo": False}


@pytest.mark.parametrize("name", ["weather.now", "weather_now", "WEATHER.now"])
async def test_a_name_that_a_model_could_not_tell_apart_is_taken(admin: httpx.AsyncClient, name: str):
    await made(admin)
    response = await admin.post(BASE, json=tool(name))
    assert response.status_code == 409
    assert "weather.now" in response.json()["error"]["message"]


async def test_an_alias_leads_to_its_tool_and_to_no_other(admin: httpx.AsyncClient, services: Services, microdao: str):
    created = await made(admin, aliases=["forecast"])
    assert (await services.toolbox.find(microdao, "forecast")).id == created["id"]
    for aliases in (["forecast"], ["weather.now"]):
        response = await admin.post(BASE, json=tool("other", aliases=aliases))
        assert (response.status_code, response.json()["error"]["param"]) == (409, "aliases")
    assert (await admin.patch(f"{BASE}/{created['id']}", json={"aliases": ["sky"]})).json()["aliases"] == ["sky"]
    await made(admin, name="forecast")


async def test_a_change_is_a_new_version_and_the_old_one_stays(admin: httpx.AsyncClient):
    first = await made(admin)
    path = f"{BASE}/{first['id']}"
    second = (await admin.patch(path, json={"description": "Weather of a city, now."})).json()
    assert (second["version"], second["latest_version"], second["config"]) == (2, 2, first["config"])
    assert second["definition_hash"] != first["definition_hash"]
    cosmetic = (await admin.patch(path, json={"timeout_ms": 5})).json()
    assert (cosmetic["version"], cosmetic["definition_hash"]) == (3, second["definition_hash"])
    same = (await admin.patch(path, json={"timeout_ms": 5, "tags": ["a"], "result_schema": None})).json()
    assert (same["version"], same["tags"]) == (3, ["a"])
    versions = (await admin.get(f"{path}/versions", params={"limit": 2})).json()
    assert ([one["version"] for one in versions["versions"]], versions["next"]) == ([3, 2], 2)
    old = (await admin.get(f"{path}/versions/1")).json()
    assert (old["description"], old["timeout_ms"]) == (first["description"], first["timeout_ms"])
    assert (await admin.get(f"{path}/versions/9")).status_code == 404


async def test_a_version_cannot_be_changed_in_the_database(admin: httpx.AsyncClient, database: Database, microdao: str):
    await made(admin)
    async with database.tenant(microdao) as connection:
        with pytest.raises(Exception, match="never changes"):
            await connection.execute("UPDATE tool_version SET description = 'other'")


async def test_a_staged_change_waits_for_approval(admin: httpx.AsyncClient):
    first = await made(admin)
    path = f"{BASE}/{first['id']}"
    staged = (await admin.patch(path, json={"risk": "D", "activate": False})).json()
    assert (staged["version"], staged["risk"], staged["pending_version"], staged["active"]) == (1, "C", 2, True)
    approved = (await admin.post(f"{path}/activate")).json()
    assert (approved["version"], approved["risk"], approved["pending_version"]) == (2, "D", None)
    back = (await admin.post(f"{path}/activate", json={"version": 1})).json()
    assert (back["version"], back["latest_version"], back["risk"]) == (1, 2, "C")
    assert (await admin.post(f"{path}/activate", json={"version": 7})).status_code == 404


async def test_deactivate_and_activate(admin: httpx.AsyncClient, services: Services, microdao: str):
    created = await made(admin, grant_to=[SOFIA])
    path = f"{BASE}/{created['id']}"
    stopped = (await admin.post(f"{path}/deactivate", json={"reason": "upstream is down"})).json()
    assert (stopped["active"], stopped["disabled_reason"]) == (False, "upstream is down")
    assert await services.toolbox.list_for_agent(microdao, SOFIA) == []
    started = (await admin.post(f"{path}/activate")).json()
    assert (started["active"], started["disabled_reason"], started["version"]) == (True, None, 1)
    assert [one.name for one in await services.toolbox.list_for_agent(microdao, SOFIA)] == ["weather.now"]


async def test_delete_frees_the_name_and_keeps_the_audit(admin: httpx.AsyncClient, services: Services, microdao: str):
    await services.toolbox.seed(microdao, SOFIA)
    listed = (await admin.get(BASE)).json()["tools"]
    math = next(one for one in listed if one["name"] == "math")
    ran = await admin.post(
        "/internal/tools/call", json={"tool_name": "math", "agent_id": SOFIA, "args": {"expression": "6*7"}}
    )
    assert ran.json()["status"] == "succeeded"
    assert (await admin.delete(f"{BASE}/{math['id']}")).status_code == 200
    for response in (
        await admin.get(f"{BASE}/{math['id']}"),
        await admin.delete(f"{BASE}/{math['id']}"),
        await admin.patch(f"{BASE}/{math['id']}", json={"risk": "A"}),
        await admin.post(f"{BASE}/{math['id']}/activate"),
        await admin.get("/internal/tools/math"),
        await admin.post("/internal/tools/call", json={"tool_name": "math", "agent_id": SOFIA, "args": {}}),
    ):
        assert response.status_code == 404, response.text
    audit = (await admin.get("/internal/tools/executions")).json()["executions"]
    assert [row["tool"] for row in audit] == ["math"]
    assert (await admin.get(f"{BASE}/{math['id']}/versions/1")).json()["name"] == "math"
    await services.toolbox.seed(microdao)  # what was deleted does not come back
    assert (await made(admin, name="math"))["id"] != math["id"]


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"name": "1st"}, "name"),
        ({"name": "a b"}, "name"),
        ({"parameters": {"type": "array"}}, "parameters"),
        ({"parameters": {"type": "objekt"}}, "parameters"),
        ({"parameters": {"type": "object", "properties": {"a": {"$ref": "http://127.0.0.1/x"}}}}, "parameters"),
        ({"parameters": {"type": "object", "properties": {"a": {"pattern": "(?=a)"}}}}, "parameters"),
        ({"result_schema": {"type": 7}}, "result_schema"),
        ({"config": {}}, "config"),
        ({"config": {"url": "ftp://x"}}, "config"),
        ({"config": {"url": "https://x/{who}"}}, "config"),
        ({"config": {"url": "https://x", "headers": {"Authorization": "Bearer abcdef123456"}}}, "config"),
        ({"config": {"url": "https://user:pass@x"}}, "config"),
        ({"config": {"url": "https://x?api_key=abcdef"}}, "config"),
        ({"config": {"url": "https://x", "headers": {"X-Thing": "ghp_" + "a1" * 18}}}, "config"),
        ({"executor": "python", "config": {"code": "def walk(): pass"}}, "config"),
        ({"executor": "python", "config": {"plugin": "nobody.brings"}}, "config"),
        ({"executor": "builtin", "config": {"function": "os.system"}}, "config"),
        ({"executor": "builtin", "config": {"function": ["math"]}}, "config"),
        ({"executor": "builtin", "config": {"function": "math"}}, "parameters"),
        ({"executor": "mcp", "config": {"url": "https://x"}}, "config"),
        ({"executor": "shell"}, "executor"),
        ({"risk": "E"}, "risk"),
        ({"timeout_ms": 0}, "timeout_ms"),
        ({"cost_microusd": -1}, "cost_microusd"),
        ({"environments": ["moon"]}, "environments"),
        ({"surprise": 1}, "surprise"),
    ],
)
async def test_what_cannot_be_is_refused_and_named(admin: httpx.AsyncClient, change: dict[str, Any], param: str):
    response = await admin.post(BASE, json=tool(**change))
    assert response.status_code == 400, response.text
    assert response.json()["error"]["param"].partition(".")[0] == param
    created = await made(admin, name="sound")
    if param != "name" and param != "surprise":
        assert (await admin.patch(f"{BASE}/{created['id']}", json=change)).status_code == 400
        assert (await admin.get(f"{BASE}/{created['id']}")).json()["version"] == 1


async def test_a_secret_by_reference_passes(admin: httpx.AsyncClient):
    config = {
        "url": "https://x.example/a",
        "query": {"key": "{{secret}}"},
        "headers": {"Authorization": "Bearer {{secret}}", "X-Api-Key": "{{secrets.other}}"},
        "secret_ref": "weather-key",
    }
    assert (await made(admin, config=config))["config"] == config


async def test_an_unknown_agent_in_grant_to_undoes_all(admin: httpx.AsyncClient):
    response = await admin.post(BASE, json=tool(grant_to=[SOFIA, "agent:nobody"]))
    assert (response.status_code, response.json()["error"]["param"]) == (404, "grant_to")
    assert (await admin.get(BASE)).json()["tools"] == []


@pytest.mark.parametrize("role", ["member", "guest", "service", "agent"])
async def test_who_may_not(admin: httpx.AsyncClient, services: Services, microdao: str, role: str):
    path = f"{BASE}/{(await made(admin))['id']}"
    async with await client_of(services, microdao, role) as client:
        for response in (
            await client.post(BASE, json=tool("other")),
            await client.get(BASE),
            await client.get(path),
            await client.patch(path, json={"risk": "A"}),
            await client.delete(path),
            await client.get(f"{path}/versions"),
            await client.get(f"{path}/versions/1"),
            await client.post(f"{path}/activate"),
            await client.post(f"{path}/deactivate"),
        ):
            assert response.status_code == 403, response.text


async def test_another_tenants_tool_does_not_exist(admin: httpx.AsyncClient, services: Services, database: Database):
    created = await made(admin, aliases=["forecast"])
    path = f"{BASE}/{created['id']}"
    other = f"microdao:{new_id('test')}"
    await services.tenants.create(other, "Other")
    async with await client_of(services, other, "owner") as stranger:
        for response in (
            await stranger.get(path),
            await stranger.patch(path, json={"risk": "A"}),
            await stranger.delete(path),
            await stranger.get(f"{path}/versions"),
            await stranger.get(f"{path}/versions/1"),
            await stranger.post(f"{path}/activate"),
            await stranger.post(f"{path}/deactivate"),
            await stranger.get("/internal/tools/weather.now"),
            await stranger.get("/internal/tools/forecast"),
            await stranger.get(f"/internal/tools/{created['id']}"),
            await stranger.get(BASE, params={"microdao_id": created["id"]}),
        ):
            assert response.status_code == 404, response.text
        assert (await stranger.get(BASE)).json()["tools"] == []
        assert (await stranger.post(BASE, json=tool(aliases=["forecast"]))).status_code == 201
    assert (await admin.get(path)).json() == created


async def test_changes_at_once_are_versions_each_on_top_of_the_other(admin: httpx.AsyncClient):
    created = await made(admin)
    path = f"{BASE}/{created['id']}"
    changes: list[dict[str, Any]] = [{"risk": "D"}, {"timeout_ms": 7}, {"cost_microusd": 9}, {"description": "Other."}]
    answers = await asyncio.gather(*(admin.patch(path, json=change) for change in changes))
    assert sorted(answer.json()["version"] for answer in answers) == [2, 3, 4, 5]
    last = (await admin.get(path)).json()
    assert (last["risk"], last["timeout_ms"], last["cost_microusd"], last["description"]) == ("D", 7, 9, "Other.")


async def test_of_two_creations_at_once_one_is_told_of_the_conflict(admin: httpx.AsyncClient):
    for _ in range(5):
        name = f"t{new_id('x')}"
        answers = await asyncio.gather(admin.post(BASE, json=tool(name)), admin.post(BASE, json=tool(name)))
        assert sorted(answer.status_code for answer in answers) == [201, 409]
