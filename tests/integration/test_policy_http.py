"""Every route asks the policy: guest, member, admin, owner and operator against all that the API serves."""

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

import httpx
import pytest

from functions.chat.app import create_api, create_app
from shared.bootstrap import Services
from shared.ids import new_id
from shared.settings import Settings
from tests.integration.memory_cases import CASES, Ids
from tests.integration.policy_cases import ASKS_NOBODY, ROUTES, SOFIA

ROLES: Final = ("guest", "member", "admin", "owner", "operator")
NOTHING: Final = "forbid (principal, action, resource);"


@dataclass(frozen=True)
class World:
    """A tenant with a key of each role, and one whose own policy forbids whatever it can."""

    client: httpx.AsyncClient
    services: Services
    microdao: str
    shut: str
    keys: dict[str, str]

    async def call(self, route: tuple[str, str], key: str, **changed: Any) -> httpx.Response:
        method, path = route
        asked: dict[str, Any] = {"json": ROUTES[route].body}
        if case := CASES.get(route):
            call = case.call(Ids(actor=SOFIA, item="none", document="none", snapshot="none", grant="none"))
            asked = {"json": call.body, "params": call.query, "content": call.file}
            path, asked["headers"] = path.format(**call.path), call.headers
        path = re.sub(r"{(\w+)}", lambda name: SOFIA if name[1] == "agent_id" else "none", path)
        headers = {"authorization": f"Bearer {self.keys[key]}", **asked.pop("headers", {})}
        return await self.client.request(method, path, headers=headers, **{**asked, **changed})


@pytest.fixture(scope="module")
async def world(settings: Settings) -> AsyncIterator[World]:
    services = Services(settings)
    microdao, shut = (f"microdao:{new_id('policy')}" for _ in range(2))
    for one in (microdao, shut):
        await services.tenants.create(one, "Policy")
        await services.agents.seed(one)
        await services.agents.create_agent(one, SOFIA, "Sofia", "sofia")
    keys = {role: (await services.keys.create(microdao, [role], role)).secret for role in ROLES}
    keys |= {f"shut {role}": (await services.keys.create(shut, [role], role)).secret for role in ROLES}
    transport = httpx.ASGITransport(create_app(services))
    async with httpx.AsyncClient(transport=transport, base_url="http://test", timeout=60) as client:
        made = World(client, services, microdao, shut, keys)
        nothing = {"name": "nothing", "source": NOTHING}
        assert (await made.call(("POST", "/admin/policies"), "shut admin", json=nothing)).status_code == 201
        yield made
    await services.close()


def test_each_route_has_its_line(settings: Settings) -> None:
    api = create_api(Services(settings))
    api.state.areas.complete()
    served = {(method.upper(), path) for path, methods in api.openapi()["paths"].items() for method in methods}
    assert served == ROUTES.keys() | ASKS_NOBODY.keys(), "each route needs a line in tests/integration/policy_cases.py"


@pytest.mark.parametrize("route", ROUTES, ids=" ".join)
async def test_each_route_refuses_who_is_below(world: World, route: tuple[str, str]) -> None:
    below = ROLES[: ROLES.index(ROUTES[route].least)]
    for role in below:
        response = await world.call(route, role)
        assert response.status_code == 403, f"{role}: {response.text}"
        error = response.json()["error"]
        assert (error["code"], error["type"]) == ("unauthorized", "permission_error")
        assert "policy" in error["message"] or "forbidden by" in error["message"], "the message names the rule"


@pytest.mark.parametrize("route", ROUTES, ids=" ".join)
async def test_each_route_serves_who_may(world: World, route: tuple[str, str]) -> None:
    if not ROUTES[route].is_tried:
        pytest.skip("it would change the platform for other tests")
    for role in ROLES[ROLES.index(ROUTES[route].least) :]:
        response = await world.call(route, role)
        assert response.status_code not in (401, 403), f"{role}: {response.text}"
        assert response.status_code < 500, response.text


@pytest.mark.parametrize(
    "route", [route for route, how in ROUTES.items() if how.least in ("guest", "member")], ids=" ".join
)
async def test_a_microdaos_own_forbid_reaches_each_route(world: World, route: tuple[str, str]) -> None:
    """What guests and members may do is refused where the microDAO forbids it: so each of these routes asks, too."""
    if route == ("POST", "/internal/policy/decide"):
        assert (await world.call(route, "shut owner")).json()["allow"] is False
        return
    for role in ("member", "owner"):
        response = await world.call(route, f"shut {role}")
        assert response.status_code == 403, f"{role}: {response.text}"
        assert "own/nothing" in response.json()["error"]["message"]


async def test_refusals_are_listed_for_admins_with_filters(world: World) -> None:
    await world.call(("GET", "/admin/keys"), "guest")
    page = await world.call(("GET", "/internal/policy/denials"), "admin", params={"action": "key.write", "limit": 1})
    (row,) = page.json()["denials"]
    assert (row["action"], row["request_id"][:4]) == ("key.write", "req_")
    assert page.json()["next"] == row["id"]
    empty = await world.call(("GET", "/internal/policy/denials"), "admin", params={"tool": "no.such"})
    assert empty.json() == {"denials": [], "next": None}
    since = await world.call(("GET", "/internal/policy/denials"), "admin", params={"since": "2999-01-01T00:00:00Z"})
    assert since.json()["denials"] == []
    naive = await world.call(("GET", "/internal/policy/denials"), "admin", params={"since": "2999-01-01T00:00:00"})
    assert naive.status_code == 400


async def offered(world: World) -> set[str]:
    """The tools that Sofia's prompt may hold and, asked for all, those that search finds for her."""
    listed = {tool.name for tool in await world.services.toolbox.list_for_agent(world.microdao, SOFIA)}
    found = await world.call(
        ("POST", "/internal/tools/search"), "member", json={"query": "calculate", "agent_id": SOFIA, "k": 50}
    )
    assert found.status_code == 200, found.text
    return listed | {tool["name"] for tool in found.json()["tools"]}


async def test_a_policy_over_http(world: World) -> None:
    body = {
        "name": "no-math",
        "source": 'forbid (principal, action == Action::"tool.invoke", resource == Tool::"math");',
    }
    created = (await world.call(("POST", "/admin/policies"), "admin", json=body)).json()
    assert (created["version"], created["active"], created["source"]) == (1, True, body["source"])
    call = ("POST", "/internal/tools/call")
    refused = await world.call(call, "member")
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "unauthorized")
    assert "own/no-math" in refused.json()["error"]["message"]
    asked = await world.call(
        ("POST", "/internal/policy/decide"), "member", json={"principal": SOFIA, "action": "tool.math.invoke"}
    )
    assert asked.json()["policies"] == ["own/no-math"]
    headers = {"authorization": f"Bearer {world.keys['admin']}"}
    assert "math" not in await offered(world), "a tool that may not be run is not shown"
    told = await world.client.get(f"/internal/tools/agents/{SOFIA}/permissions", headers=headers)
    (math,) = [one for one in told.json()["tools"] if one["name"] == "math"]
    assert math["reason"] == "granted, but tool.invoke is forbidden by own/no-math"
    path = f"/admin/policies/{created['id']}"
    changed = await world.client.put(path, headers=headers, json={**body, "active": False})
    assert (changed.json()["version"], changed.json()["active"]) == (2, False)
    assert (await world.client.get(path, headers=headers)).json() == changed.json()
    assert (await world.call(call, "member")).status_code == 200
    assert "math" in await offered(world)
    assert (await world.client.delete(path, headers=headers)).status_code == 200
    assert (await world.client.get(path, headers=headers)).status_code == 404
    history = (await world.client.get(f"{path}/versions", headers=headers, params={"limit": 2})).json()
    assert [one["change"] for one in history["versions"]] == ["deleted", "changed"]
    assert history["next"] == 2


async def test_a_bad_policy_is_refused_with_its_line(world: World) -> None:
    body = {"name": "bad", "source": "forbid (principal,\naction, resource whatever);"}
    response = await world.call(("POST", "/admin/policies"), "admin", json=body)
    assert response.status_code == 400
    assert response.json()["error"]["message"].startswith("line 2: ")
    tried = await world.call(("POST", "/admin/policies/validate"), "admin", json={"source": body["source"]})
    assert (tried.json()["valid"], tried.json()["faults"][0]["line"]) == (False, 2)
    sound = await world.call(("POST", "/admin/policies/validate"), "admin", json={"source": NOTHING})
    assert sound.json() == {"valid": True, "faults": []}


@pytest.mark.parametrize(
    ("asked", "allow", "why"),
    [
        ({"principal": SOFIA, "action": "tool.math.invoke"}, True, "agents-act"),
        ({"principal": {"agent_id": SOFIA}, "action": "tool.create_task.invoke"}, True, "agents-act"),
        ({"action": "tool.math.invoke", "context": {"agent_id": SOFIA}}, True, "members-use"),
        ({"action": "tool.invoke", "resource": {"kind": "Tool", "id": "math"}, "principal": SOFIA}, True, "agents-act"),
        ({"action": "tool.math.invoke"}, False, "tools-need-a-grant"),
        ({"action": "tool.math.invoke", "context": {"granted": True}}, True, "members-use"),
        (
            {"action": "tool.math.invoke", "context": {"granted": True, "environments": ["prod"]}},
            False,
            "tools-run-in-their-environments",
        ),
        ({"principal": {"roles": ["guest"]}, "action": "tool.llm.invoke"}, False, "no policy for your roles"),
        ({"principal": {"roles": ["guest"]}, "action": "agent.run.invoke"}, True, "guests-converse"),
        ({"action": "no.such"}, False, "unknown action"),
    ],
)
async def test_asking_why(world: World, asked: dict[str, Any], allow: bool, why: str) -> None:
    response = await world.call(("POST", "/internal/policy/decide"), "member", json=asked)
    assert response.status_code == 200, response.text
    assert (response.json()["allow"], why in response.json()["reason"]) == (allow, True), response.text


async def test_asking_gives_what_a_call_would_get(world: World) -> None:
    decide, call = ("POST", "/internal/policy/decide"), ("POST", "/internal/tools/call")
    async with world.services.database.tenant(world.microdao) as connection:
        await connection.execute("UPDATE tool SET active = false WHERE name = 'project.create'")
    async with world.services.database.system() as connection:
        await connection.execute(
            "UPDATE tool_version SET risk = 'D' FROM tool WHERE tool.id = tool_id AND tool.name = 'search_docs'"
            " AND tool.microdao_id = %s",
            (world.microdao,),
        )
    await world.services.toolbox.set_grants(world.microdao, SOFIA, [], ["tasks.list"])
    names = [tool.name for tool in await world.services.toolbox.list_all(world.microdao, "", 200)]
    for name in names:
        for confidential in (False, True):
            context = {"agent_id": SOFIA, "confidential": confidential}
            asked = await world.call(decide, "member", json={"action": f"tool.{name}.invoke", "context": context})
            body = {"tool_name": name, "agent_id": SOFIA, "args": {"no": "such"}, "confidential": confidential}
            called = await world.call(call, "member", json=body)
            is_refused = called.status_code in (403, 404)
            assert asked.json()["allow"] is not is_refused, (name, asked.text, called.text)
            if is_refused:
                assert asked.json()["reason"] == called.json()["error"]["message"]


async def test_asking_about_others(world: World) -> None:
    decide = ("POST", "/internal/policy/decide")
    other = await world.services.keys.create(world.microdao, ["guest"], "other")
    asked = {"principal": other.id, "action": "flow.run"}
    assert (await world.call(decide, "member", json=asked)).status_code == 403
    assert (await world.call(decide, "admin", json=asked)).json()["allow"] is False
    foreign = await world.services.keys.create(world.shut, ["owner"], "foreign")
    for unknown in ("key_none", foreign.id, "agent:nobody"):
        response = await world.call(decide, "admin", json={"principal": unknown, "action": "flow.run"})
        assert response.status_code == 404, unknown
    two = {"action": "tool.math.invoke", "resource": {"kind": "Tool", "id": "other"}}
    assert (await world.call(decide, "admin", json=two)).status_code == 400
    elsewhere = {"action": "flow.run", "microdao_id": world.shut}
    assert (await world.call(decide, "admin", json=elsewhere)).status_code == 404
    assert (await world.call(decide, "operator", json=elsewhere)).json()["allow"] is False, "its own policy forbids it"
