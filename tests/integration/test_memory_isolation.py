"""Whose memory is whose, at every endpoint about memory. Cases: memory_cases.py."""

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
from shared.memory.retention import store_retention
from shared.settings import Settings
from tests import any_rows
from tests.integration.memory_cases import ALICE, BOB, CASES, CHANNEL, SECRET, TEAM, Ids
from tests.memories import age

PREFIXES = ("/internal/agent-memory", "/internal/channels", "/admin/memory")
COUNTERS = ("memory_use", "memory_activity", "policy_denial", "api_key")
"""What reading changes, being refused does, and a key keeps of its use."""

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

    async def call(self, route: Route, ids: Ids, key: str = "") -> httpx.Response:
        call = CASES[route].call(ids)
        return await self.client.request(
            route[0],
            route[1].format(**call.path),
            params=call.query,
            json=call.body,
            content=call.file,
            headers={"authorization": f"Bearer {self.keys[key or CASES[route].key]}", **call.headers},
        )

    async def fresh(self) -> Ids:
        """Ids of an item (used, and old), a document and a snapshot of Alice's that are there now."""
        memory, text = self.services.memory, f"{SECRET} {new_id('note')}"
        item = await memory.store(
            NewMemory(microdao_id=self.microdao, agent_id=ALICE, tier="mid_term", content={"text": text})
        )
        document = await memory.documents.add(
            NewDocument(microdao_id=self.microdao, agent_id=ALICE, data=text.encode(), media_type="text/plain")
        )
        await age(self.services.database, self.microdao, 10, item.id, document["id"])
        async with self.services.database.tenant(self.microdao) as connection:
            await connection.execute(_USE, (item.id,))
        snapshot = await memory.snapshots.save(self.microdao, ALICE, SECRET)
        return replace(self.ids, item=item.id, document=document["id"], snapshot=snapshot["id"])

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


_USE = """
INSERT INTO memory_use (scope_id, item, hits, last_hit_at)
SELECT scope_id, number, 3, created_at FROM memory_item WHERE id = %s
"""
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
    await services.memory.retention.set_policy(microdao, ALICE, {"max_bytes": 10**9})
    pruned = {"scope_kind": "agent", "scope_name": ALICE, "reason": "age", "items": 1, "bytes": 1, "ids": [SECRET]}
    async with services.database.tenant(microdao) as connection:
        await store_retention.write_report(connection, microdao, pruned)
    keys = {
        "admin": (await services.keys.create(microdao, ["admin"], "ours")).secret,
        "member": (await services.keys.create(microdao, ["member"], "ours")).secret,
        "foreign": (await services.keys.create(foreign, ["owner"], "theirs")).secret,
    }
    for secret in keys.values():
        await services.keys.authenticate(secret)  # that they were used is written now, not while a test compares
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
    refused = (403, "unauthorized") if CASES[route].kind == "operates" else (404, "not_found")
    assert (named.status_code, named.json()["error"]["code"]) == refused, named.text
    for actor in (BOB, ALICE):
        own = await world.call(route, replace(world.ids, actor=actor), key="foreign")
        is_its_own_write = CASES[route].kind == "writes" and actor == ALICE  # into its own agent of that name
        assert own.status_code == (201 if is_its_own_write else CASES[route].foreign), own.text
        assert not shows(own) or is_its_own_write
    assert world.fingerprint() == before


@pytest.mark.parametrize("route", CASES, ids=lambda route: " ".join(route))
async def test_an_agent_that_does_not_exist_finds_nothing(world: World, route: Route) -> None:
    if CASES[route].kind in ("administers", "governs", "operates"):
        return
    before = world.fingerprint()
    response = await world.call(route, replace(world.ids, actor="agent:nobody"))
    assert not shows(response)
    assert response.status_code in (200, 404), response.text
    assert world.fingerprint() == before


async def expect(world: World, ids: Ids, access: str | None) -> None:
    """What Bob gets at every route while Alice shares this much with him, and that nothing else changes."""
    for route in routes_of("saves"):
        response = await world.call(route, ids)
        saved = response.json()
        assert (response.status_code, saved["items"], saved["documents"]) == (201, 0, 0), f"{route}: {response.text}"
    before = world.fingerprint()
    for route in routes_of("own"):
        response = await world.call(route, ids)
        assert response.status_code == 200, f"{route}: {response.text}"
        assert not shows(response)
    for route in routes_of("reads", "reads one"):
        response = await world.call(route, ids)
        is_found = 404 if access is None and CASES[route].kind == "reads one" else 200
        assert response.status_code == is_found, f"{route}: {response.text}"
        named = shows(response) or (response.status_code == 200 and ids.document in response.text)
        assert named == (access is not None), f"{route} with {access}: {response.text}"
    if access is None:
        for route in routes_of("copies"):
            response = await world.call(route, ids)
            assert (response.status_code, shows(response)) == (404, False), f"{route}: {response.text}"
    if access != "write":
        for route in routes_of("writes", "changes", "deletes"):
            response = await world.call(route, ids)
            assert response.status_code == (404 if access is None else 403), f"{route} with {access}: {response.text}"
            assert not shows(response)
    assert world.fingerprint() == before


async def expect_writable(world: World) -> None:
    for route in routes_of("writes", "changes", "deletes"):
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


SNAPSHOTS = "/internal/agent-memory/snapshots"
ANALYTICS = "/internal/agent-memory/analytics"


async def test_figures_and_lists_are_of_its_own_memory_whatever_is_shared(world: World) -> None:
    await world.share("write", Grantee("agent", BOB))
    for actor in (ALICE, BOB):
        ids, is_hers = replace(world.ids, actor=actor), actor == ALICE
        report = (await world.call(("GET", ANALYTICS), ids)).json()
        figures = (report["growth"], report["stale"], report["duplicates"]["looked_at"], report["queue"]["pending"])
        assert [bool(one) for one in figures] == [is_hers] * 4, report
        for path in (f"{ANALYTICS}/most-used", f"{ANALYTICS}/stale", SNAPSHOTS):
            assert shows(await world.call(("GET", path), ids)) == is_hers, f"{path} for {actor}"


async def test_a_snapshot_is_restored_into_who_may_read_it(world: World) -> None:
    restore: Route = ("POST", f"{SNAPSHOTS}/{{snapshot_id}}/restore")
    query: Route = ("POST", "/internal/agent-memory/query")
    assert (await world.call(restore, world.ids)).status_code == 404
    grant = await world.share("read", Grantee("agent", BOB))
    assert (await world.call(restore, world.ids)).json()["added"] == 3
    await world.services.memory.sharing.revoke(world.microdao, grant)
    copied = (await world.call(query, world.ids)).json()["memories"]
    assert {item["scope"]["name"] for item in copied} == {BOB}, "the copy is his own"
    await world.call(("POST", "/internal/agent-memory/forget"), world.ids)
    assert (await world.call(restore, world.ids)).status_code == 404
    assert not shows(await world.call(query, world.ids)), "nothing was copied"
    by_admin = await world.call(restore, world.ids, key="admin")
    assert (by_admin.status_code, by_admin.json()["added"]) == (200, 3), "who may share may hand over"


async def test_only_admins_govern_and_only_operators_operate(world: World) -> None:
    before = world.fingerprint()
    for key, kinds in (("member", ("governs", "operates")), ("admin", ("operates",))):
        for route in routes_of(*kinds):
            response = await world.call(route, world.ids, key=key)
            assert (response.status_code, shows(response)) == (403, False), f"{route} with {key}: {response.text}"
    assert world.fingerprint() == before
    for route in routes_of("governs"):
        assert (await world.call(route, world.ids)).status_code == 200
    assert shows(await world.call(("GET", "/admin/memory/prunings"), world.ids))


async def test_members_look_and_admins_share(world: World) -> None:
    for method, path in routes_of("administers"):
        before: Any = world.fingerprint()
        response = await world.call((method, path), world.ids, key="member")
        assert response.status_code == (200 if method == "GET" else 403), f"{path}: {response.text}"
        assert world.fingerprint() == before
