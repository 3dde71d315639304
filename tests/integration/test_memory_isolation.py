"""Whose memory is whose, at every endpoint of memory, documents, channels and sharing. Cases: memory_cases.py."""

import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

import httpx
import psycopg
import pytest

from functions.chat.app import create_api, create_app
from localstack.postgres import EmbeddedPostgres
from shared.bootstrap import Services
from shared.ids import new_id
from shared.memory.channels import Message
from shared.memory.documents.documents import NewDocument
from shared.memory.model import Access, Grantee, NewMemory, ScopeRef
from shared.settings import Settings
from tests import any_rows
from tests.integration.memory_cases import ALICE, BOB, CASES, CHANNEL, SECRET, TEAM, Ids

PREFIXES = ("/internal/agent-memory", "/internal/channels", "/admin/memory")
COUNTERS = ("memory_use", "memory_activity")
"""What reading changes."""

Route = tuple[str, str]


def routes_of(*kinds: str) -> list[Route]:
    return [route for route, case in CASES.items() if case.kind in kinds]


@dataclass(frozen=True)
class World:
    """A tenant with Alice, who remembers things, and Bob; another tenant with agents of the same names."""

    client: httpx.AsyncClient
    services: Services
    microdao: str
    foreign: str
    keys: dict[str, str]
    ids: Ids
    admin_url: str

    async def call(self, route: Route, ids: Ids, key: str = "admin") -> httpx.Response:
        call = CASES[route].call(ids)
        return await self.client.request(
            route[0],
            route[1].format(**call.path),
            params=call.query,
            json=call.body,
            headers={"authorization": f"Bearer {self.keys[key]}"},
        )

    async def fresh(self) -> Ids:
        """Ids of an item and a document of Alice's that are there now."""
        memory, text = self.services.memory, f"{SECRET} {new_id('note')}"
        item = await memory.store(
            NewMemory(microdao_id=self.microdao, agent_id=ALICE, tier="mid_term", content={"text": text})
        )
        document = await memory.documents.add(
            NewDocument(microdao_id=self.microdao, agent_id=ALICE, data=text.encode(), media_type="text/plain")
        )
        return replace(self.ids, item=item.id, document=document["id"])

    async def share(self, access: Access, grantee: Grantee) -> str:
        row = await self.services.memory.sharing.share(self.microdao, Grantee("agent", ALICE), grantee, access)
        return str(row["id"])

    def fingerprint(self) -> dict[str, str]:
        """What the tenant has, table by table."""
        prints = {}
        with psycopg.connect(self.admin_url) as connection:
            for table in any_rows.protected_tables(connection):
                mine = "microdao_id = %(id)s" if table["has_tenant"] else _IN_SCOPES
                query = f"SELECT t::text FROM {table['name']} t WHERE {mine} ORDER BY 1"
                rows = connection.execute(query, {"id": self.microdao}).fetchall()
                prints[table["name"]] = hashlib.sha256(repr(rows).encode()).hexdigest()
        return {name: value for name, value in prints.items() if name not in COUNTERS}


_IN_SCOPES = "scope_id IN (SELECT scope_id FROM memory_scope WHERE microdao_id = %(id)s)"


@pytest.fixture
async def world(settings: Settings, postgres: EmbeddedPostgres) -> AsyncIterator[World]:
    services = Services(settings)
    microdao, foreign = (f"microdao:{new_id('isolation')}" for _ in range(2))
    with psycopg.connect(postgres.admin_url, autocommit=True) as connection:
        for one in (microdao, foreign):
            any_rows.make_tenant(connection, one, ALICE, BOB)
    sharing, channels = services.memory.sharing, services.memory.channels
    await sharing.put_team(microdao, TEAM, f"{SECRET} players")
    message = Message(text=f"who has the {SECRET}?", author=SECRET)
    await channels.post(microdao, ALICE, CHANNEL, [message])
    grant = await sharing.share(microdao, Grantee("team", TEAM), Grantee("agent", ALICE), "read")
    keys = {
        "admin": (await services.keys.create(microdao, ["admin"], "ours")).secret,
        "member": (await services.keys.create(microdao, ["member"], "ours")).secret,
        "foreign": (await services.keys.create(foreign, ["owner"], "theirs")).secret,
    }
    transport = httpx.ASGITransport(create_app(services))
    async with httpx.AsyncClient(transport=transport, base_url="http://test", timeout=60) as client:
        made = World(client, services, microdao, foreign, keys, Ids(grant=grant["id"]), postgres.admin_url)
        yield replace(made, ids=await made.fresh())
    await services.close()


def shows(response: httpx.Response) -> bool:
    return SECRET in response.text


def test_every_route_has_a_case(settings: Settings) -> None:
    api = create_api(Services(settings))
    api.state.areas.complete()
    served = {
        (method.upper(), path)
        for path, methods in api.openapi()["paths"].items()
        if path.startswith(PREFIXES)
        for method in methods
    }
    assert served == CASES.keys(), "each route of memory needs a line in tests/integration/memory_cases.py"


@pytest.mark.parametrize("route", CASES, ids=lambda route: " ".join(route))
async def test_another_tenant_gets_and_changes_nothing(world: World, route: Route) -> None:
    before = world.fingerprint()
    named = await world.call(route, replace(world.ids, microdao_id=world.microdao), key="foreign")
    assert (named.status_code, named.json()["error"]["code"]) == (404, "not_found"), named.text
    for actor in (BOB, ALICE):
        own = await world.call(route, replace(world.ids, actor=actor), key="foreign")
        is_its_own_write = CASES[route].kind == "writes" and actor == ALICE  # into its own agent of that name
        assert own.status_code == (201 if is_its_own_write else CASES[route].foreign), own.text
        assert not shows(own) or is_its_own_write
    assert world.fingerprint() == before


@pytest.mark.parametrize("route", CASES, ids=lambda route: " ".join(route))
async def test_an_agent_that_does_not_exist_finds_nothing(world: World, route: Route) -> None:
    if CASES[route].kind == "administers":
        return
    before = world.fingerprint()
    response = await world.call(route, replace(world.ids, actor="agent:nobody"))
    assert not shows(response)
    assert response.status_code in (200, 404), response.text
    assert world.fingerprint() == before


async def expect(world: World, ids: Ids, access: str | None) -> None:
    """What Bob gets at every route while Alice shares this much with him, and that nothing else changes."""
    before = world.fingerprint()
    for route in routes_of("reads", "reads one"):
        response = await world.call(route, ids)
        is_found = 404 if access is None and CASES[route].kind == "reads one" else 200
        assert response.status_code == is_found, f"{route}: {response.text}"
        named = shows(response) or (response.status_code == 200 and ids.document in response.text)
        assert named == (access is not None), f"{route} with {access}: {response.text}"
    for route in routes_of("own"):
        response = await world.call(route, ids)
        assert response.status_code == 200, f"{route}: {response.text}"
        assert not shows(response)
    if access != "write":
        for route in routes_of("writes", "deletes"):
            response = await world.call(route, ids)
            assert response.status_code == (404 if access is None else 403), f"{route} with {access}: {response.text}"
            assert not shows(response)
        assert world.fingerprint() == before


async def expect_writable(world: World) -> None:
    for route in routes_of("writes", "deletes"):
        response = await world.call(route, await world.fresh())
        assert response.status_code == (201 if CASES[route].kind == "writes" else 200), f"{route}: {response.text}"


async def test_another_agent_gets_what_is_shared_and_for_as_long(world: World) -> None:
    bob = Grantee("agent", BOB)
    await expect(world, world.ids, None)
    await world.share("read", bob)
    await expect(world, world.ids, "read")
    grant = await world.share("write", bob)
    await expect(world, world.ids, "write")
    await expect_writable(world)
    ids = await world.fresh()
    await world.share("read", bob)
    await expect(world, ids, "read")
    await world.services.memory.sharing.revoke(world.microdao, grant)
    await expect(world, ids, None)


async def test_a_team_gets_what_is_shared_with_it_and_members_for_as_long_as_they_are(world: World) -> None:
    sharing = world.services.memory.sharing
    await world.share("write", Grantee("team", TEAM))
    await expect(world, world.ids, None)
    await sharing.add_member(world.microdao, TEAM, BOB)
    await expect(world, world.ids, "write")
    await expect_writable(world)
    ids = await world.fresh()
    await sharing.remove_member(world.microdao, TEAM, BOB)
    await expect(world, ids, None)
    await sharing.add_member(world.microdao, TEAM, BOB)
    await expect(world, ids, "write")
    await sharing.delete_team(world.microdao, TEAM, force=True)
    await expect(world, ids, None)


async def test_a_teams_own_memory_is_its_members(world: World) -> None:
    memory, sharing = world.services.memory, world.services.memory.sharing
    await sharing.add_member(world.microdao, TEAM, BOB)
    new = NewMemory(
        microdao_id=world.microdao,
        agent_id=BOB,
        tier="mid_term",
        content={"text": f"team {SECRET}"},
        scope=ScopeRef("team", TEAM),
    )
    await memory.store(new)
    query: Route = ("POST", "/internal/agent-memory/query")
    assert shows(await world.call(query, world.ids))
    assert "team " in (await world.call(query, replace(world.ids, actor=ALICE))).text, "the team shares with Alice"
    await sharing.remove_member(world.microdao, TEAM, BOB)
    assert not shows(await world.call(query, world.ids))
    told = await world.client.post(
        "/internal/agent-memory/store",
        json={"agent_id": BOB, "scope": "team", "team_id": TEAM, "content": {"text": "one more"}},
        headers={"authorization": f"Bearer {world.keys['admin']}"},
    )
    assert told.status_code == 404, told.text


async def test_members_look_and_admins_share(world: World) -> None:
    for method, path in routes_of("administers"):
        before: Any = world.fingerprint()
        response = await world.call((method, path), world.ids, key="member")
        assert response.status_code == (200 if method == "GET" else 403), f"{path}: {response.text}"
        assert world.fingerprint() == before
