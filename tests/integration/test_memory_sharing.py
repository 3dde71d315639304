"""Teams, grants and the microDAO's own memory over HTTP."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
import psycopg
import pytest

from functions.chat.app import create_app
from localstack.postgres import EmbeddedPostgres
from shared.bootstrap import Services
from shared.ids import new_id
from shared.settings import Settings
from tests import any_rows

A, B, TEAM = "agent:a", "agent:b", "team:design"
MEMORY = "/internal/agent-memory"


@dataclass(frozen=True)
class Api:
    """The API with a key of each role in one microDAO with two agents."""

    client: httpx.AsyncClient
    keys: dict[str, str]
    microdao: str

    async def __call__(self, method: str, path: str, *, key: str = "admin", **sent: Any) -> httpx.Response:
        headers = {"authorization": f"Bearer {self.keys[key]}"}
        return await self.client.request(method, f"{MEMORY}{path}", headers=headers, **sent)

    async def ok(self, method: str, path: str, **sent: Any) -> dict[str, Any]:
        response = await self(method, path, **sent)
        assert response.status_code in (200, 201), response.text
        return response.json()

    async def grant(self, scope: str, grantee: str, access: str = "read") -> dict[str, Any]:
        body = {"scope": party(scope), "grantee": party(grantee), "access": access}
        return await self.ok("PUT", "/grants", json=body)

    async def finds(self, agent: str, query: str) -> list[str]:
        found = await self.ok("POST", "/query", json={"agent_id": agent, "query": query, "k": 50})
        return [one["text"] for one in found["memories"]]


def party(name: str) -> dict[str, str]:
    return {"kind": name.partition(":")[0], "name": name}


def code(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


@pytest.fixture
async def api(settings: Settings, postgres: EmbeddedPostgres) -> AsyncIterator[Api]:
    services, microdao = Services(settings), f"microdao:{new_id('sharing')}"
    with psycopg.connect(postgres.admin_url, autocommit=True) as connection:
        any_rows.make_tenant(connection, microdao, A, B)
    keys = {
        role: (await services.keys.create(microdao, [role], role)).secret
        for role in ("admin", "member", "agent", "operator")
    }
    transport = httpx.ASGITransport(create_app(services))
    async with httpx.AsyncClient(transport=transport, base_url="http://test", timeout=60) as client:
        yield Api(client, keys, microdao)
    await services.close()


async def test_teams_are_made_renamed_listed_and_deleted(api: Api):
    made = await api.ok("PUT", f"/teams/{TEAM}", json={})
    assert (made["name"], made["members"]) == (TEAM, 0)
    assert (await api.ok("PUT", f"/teams/{TEAM}", json={"name": "Design"}))["name"] == "Design"
    assert (await api.ok("PUT", f"/teams/{TEAM}", json={}))["name"] == "Design"
    await api.ok("PUT", "/teams/team:ops", json={})
    first = await api.ok("GET", "/teams?limit=1")
    second = await api.ok("GET", "/teams", params={"after": first["next"]})
    assert [one["team_id"] for one in first["teams"] + second["teams"]] == [TEAM, "team:ops"]

    for agent in (B, A, A):
        await api.ok("PUT", f"/teams/{TEAM}/members/{agent}")
    assert await api.ok("GET", f"/teams/{TEAM}/members") == {"members": [A, B], "next": None}
    assert await api.ok("GET", f"/teams/{TEAM}/members?limit=1") == {"members": [A], "next": A}
    await api.ok("DELETE", f"/teams/{TEAM}/members/{A}")
    assert (await api.ok("GET", f"/teams/{TEAM}"))["members"] == 1
    assert code(await api("DELETE", f"/teams/{TEAM}/members/{A}")) == (404, "not_found")
    assert code(await api("PUT", f"/teams/{TEAM}/members/agent:nobody")) == (404, "not_found")
    assert code(await api("PUT", f"/teams/team:none/members/{A}")) == (404, "not_found")

    await api.ok("DELETE", f"/teams/{TEAM}")
    assert code(await api("GET", f"/teams/{TEAM}")) == (404, "not_found")
    assert code(await api("DELETE", f"/teams/{TEAM}")) == (404, "not_found")


async def test_a_team_that_remembers_is_deleted_by_force_only(api: Api):
    await api.ok("PUT", f"/teams/{TEAM}", json={})
    await api.ok("PUT", f"/teams/{TEAM}/members/{A}")
    told = {"agent_id": A, "scope": "team", "team_id": TEAM}
    await api.ok("POST", "/store", json={**told, "content": {"text": "the zeppelin leaves at noon"}})
    await api.ok("POST", "/documents", json={**told, "text": "zeppelin timetable"})
    refused = await api("DELETE", f"/teams/{TEAM}")
    assert code(refused) == (409, "conflict")
    assert "2 items and 1 documents" in refused.json()["error"]["message"]
    assert len(await api.finds(A, "zeppelin")) == 2
    await api.ok("DELETE", f"/teams/{TEAM}?force=true")
    await api.ok("PUT", f"/teams/{TEAM}", json={})
    await api.ok("PUT", f"/teams/{TEAM}/members/{A}")
    assert await api.finds(A, "zeppelin") == []


@pytest.mark.parametrize("team_id", ["design", "team:", "team:A", "team:a%1Fb", "team:" + "a" * 101, "team:a%0A"])
async def test_a_teams_id_has_a_form(api: Api, team_id: str):
    assert code(await api("PUT", f"/teams/{team_id}", json={})) == (400, "invalid_request")


async def test_an_operator_needs_a_microdao_that_exists(api: Api):
    body = {"microdao_id": "microdao:none"}
    assert code(await api("PUT", f"/teams/{TEAM}", json=body, key="operator")) == (404, "not_found")
    grant = {**body, "scope": party(A), "grantee": party(B)}
    assert code(await api("PUT", "/grants", json=grant, key="operator")) == (404, "not_found")


async def test_sharing_again_changes_the_access(api: Api):
    first = await api.grant(A, B)
    assert (first["scope"], first["grantee"], first["access"]) == (party(A), party(B), "read")
    assert await api.grant(A, B, "write") == first | {"access": "write"}
    await api.ok("DELETE", f"/grants/{first['id']}")
    assert code(await api("DELETE", f"/grants/{first['id']}")) == (404, "not_found")


async def test_grants_are_listed_in_both_directions(api: Api):
    await api.ok("PUT", f"/teams/{TEAM}", json={})
    await api.ok("PUT", f"/teams/{TEAM}/members/{B}")
    to_b, to_team, of_team = await api.grant(A, B), await api.grant(A, TEAM), await api.grant(TEAM, A)

    async def listed(**asked: str) -> list[dict[str, Any]]:
        return (await api.ok("GET", "/grants", params=asked))["grants"]

    assert await listed() == await listed(agent_id=A) == [to_b, to_team, of_team]
    assert await listed(agent_id=A, shared="by") == [to_b, to_team]
    assert await listed(agent_id=A, shared="with") == [of_team]
    assert await listed(agent_id=B) == [to_b, to_team], "what its team has, it has"
    assert await listed(team_id=TEAM, shared="with") == [to_team]
    page = await api.ok("GET", "/grants?limit=2")
    assert (await api.ok("GET", "/grants", params={"after": page["next"]}))["grants"] == [of_team]
    assert code(await api("GET", "/grants?agent_id=agent:nobody")) == (404, "not_found")
    assert code(await api("GET", f"/grants?agent_id={A}&team_id={TEAM}")) == (400, "invalid_request")


async def test_grants_need_two_who_exist(api: Api):
    for scope, grantee, expected in ((A, A, 400), (A, "agent:no", 404), (A, "team:no", 404), ("agent:no", A, 404)):
        body = {"scope": party(scope), "grantee": party(grantee)}
        assert (await api("PUT", "/grants", json=body)).status_code == expected, body
    body = {"scope": {"kind": "microdao", "name": api.microdao}, "grantee": party(A)}
    assert code(await api("PUT", "/grants", json=body)) == (400, "invalid_request")


async def test_the_scopes_of_an_agent_with_their_reasons(api: Api):
    await api.ok("PUT", f"/teams/{TEAM}", json={})
    await api.ok("PUT", f"/teams/{TEAM}/members/{B}")
    direct, by_team = await api.grant(A, B, "read"), await api.grant(A, TEAM, "write")
    scopes = (await api.ok("GET", f"/agents/{B}/scopes"))["scopes"]

    def reason(reason: str, access: str, grant_id: str | None = None, team_id: str | None = None) -> dict[str, Any]:
        return {"reason": reason, "access": access, "grant_id": grant_id, "team_id": team_id}

    assert scopes == [
        {
            "scope": party(A),
            "access": "write",
            "reasons": [reason("grant", "read", direct["id"]), reason("grant", "write", by_team["id"], TEAM)],
        },
        {"scope": party(B), "access": "write", "reasons": [reason("own", "write")]},
        {"scope": party(api.microdao), "access": "read", "reasons": [reason("microdao", "read")]},
        {"scope": party(TEAM), "access": "write", "reasons": [reason("member", "write")]},
    ]
    first = await api.ok("GET", f"/agents/{B}/scopes?limit=3")
    rest = await api.ok("GET", f"/agents/{B}/scopes", params={"after": first["next"], "limit": 3})
    assert (first["scopes"] + rest["scopes"], rest["next"]) == (scopes, None)
    assert code(await api("GET", "/agents/agent:nobody/scopes")) == (404, "not_found")


FOR_ALL = {"agent_id": A, "scope": "microdao"}
TELLINGS = [
    (f"{MEMORY}/store", {"content": {"text": "the zeppelin is ours"}}),
    (f"{MEMORY}/documents", {"text": "zeppelin papers"}),
    ("/internal/channels/hall/messages", {"messages": [{"text": "zeppelin!"}]}),
]


@pytest.mark.parametrize(("path", "body"), TELLINGS, ids=["store", "documents", "channels"])
async def test_what_concerns_all_is_written_by_admins_and_read_by_all(api: Api, path: str, body: dict[str, Any]):
    for key in ("member", "agent", "admin"):
        headers = {"authorization": f"Bearer {api.keys[key]}"}
        answer = await api.client.post(path, json={**FOR_ALL, **body}, headers=headers)
        assert answer.status_code == (201 if key == "admin" else 403), answer.text
        assert len(await api.finds(B, "zeppelin")) == (1 if key == "admin" else 0)


async def test_what_concerns_all_is_deleted_by_admins(api: Api):
    item = (await api.ok("POST", "/store", json={**FOR_ALL, "content": {"text": "zeppelin one"}}))["id"]
    document = (await api.ok("POST", "/documents", json={**FOR_ALL, "text": "zeppelin two"}))["id"]
    own = (await api.ok("POST", "/store", json={"agent_id": B, "content": {"text": "zeppelin three"}}))["id"]
    everyones = {"scope": "microdao"}
    for path in (f"/agents/{A}/items/{item}", f"/documents/{document}?agent_id={A}"):
        assert code(await api("DELETE", path)) == (403, "unauthorized"), "an agent cannot, whoever calls for it"
        address, _, query = path.partition("?")
        asked = {**everyones, **({"agent_id": A} if query else {})}
        assert code(await api("DELETE", address, params=asked, key="member")) == (403, "unauthorized")
        await api.ok("DELETE", address, params=asked)
    assert code(await api("DELETE", f"/agents/{A}/items/{own}", params=everyones)) == (404, "not_found")
    assert await api.finds(B, "zeppelin") == ["zeppelin three"]


async def test_a_body_names_one_memory(api: Api):
    body = {"agent_id": A, "content": {"text": "x"}}
    for wrong in ({"scope": "team"}, {"scope": "team", "team_id": TEAM, "owner_agent_id": B}):
        assert code(await api("POST", "/store", json=body | wrong)) == (400, "invalid_request")
