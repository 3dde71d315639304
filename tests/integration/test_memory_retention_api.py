"""/admin/memory over HTTP, and the hourly schedule."""

import json
from collections.abc import AsyncIterator

import httpx
import pytest

from functions.chat.app import create_app
from functions.memory_indexer.handler import on_direct
from shared.bootstrap import Services
from shared.db.database import Database
from shared.settings import ROOT
from tests.memories import AGENT, age, kept, new

POLICY = "/admin/memory/policy"


@pytest.fixture
async def client(services: Services) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(create_app(services))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


async def headers(services: Services, microdao: str, role: str = "admin") -> dict[str, str]:
    return {"authorization": f"Bearer {(await services.keys.create(microdao, [role], role)).secret}"}


async def test_policies_are_inherited_and_overridden(client, services, microdao):
    admin = await headers(services, microdao)
    asked = (await client.get(POLICY, headers=admin)).json()
    assert asked["settings"] == {}
    assert {name: value for name, value in asked["effective"].items() if value is not None} == {
        "unused_importance_below": 0.3,
        "consolidate_min_items": 6,
    }
    made = await client.put(POLICY, json={"max_items": 10, "mid_term_max_age_days": 30}, headers=admin)
    assert made.status_code == 200
    own = await client.put(f"{POLICY}?agent_id={AGENT}", json={"max_items": None}, headers=admin)
    assert (own.json()["settings"], own.json()["effective"]["mid_term_max_age_days"]) == ({"max_items": None}, 30)
    assert own.json()["effective"]["max_items"] is None
    await client.put(f"{POLICY}?agent_id={AGENT}", json={}, headers=admin)
    assert (await client.get(f"{POLICY}?agent_id={AGENT}", headers=admin)).json()["effective"]["max_items"] == 10


@pytest.mark.parametrize(
    ("query", "body", "status"),
    [
        ("", {"max_items": -1}, 400),
        ("", {"max_itmes": 1}, 400),
        ("", {"mid_term_max_age_days": 1e9}, 400),
        ("", {"unused_importance_below": None}, 400),
        ("", {"consolidate_min_items": 1}, 400),
        ("", {"consolidate_model": "no-such-model"}, 400),
        ("", {"consolidate_model": "multilingual-e5-small"}, 400),
        (f"?agent_id={AGENT}", {"total_max_items": 1}, 400),
        ("?agent_id=agent:nobody", {}, 404),
        ("?microdao_id=microdao:other", {}, 404),
        ("?agent_id=%00", {}, 400),
    ],
)
async def test_bad_policies(client, services, microdao, query, body, status):
    admin = await headers(services, microdao)
    answer = await client.put(f"{POLICY}{query}", json=body, headers=admin)
    assert answer.status_code == status, answer.text
    assert (await client.get(POLICY, headers=admin)).json()["settings"] == {}


async def test_a_dry_run_then_a_run_then_the_report(client, services, database, microdao):
    admin = await headers(services, microdao)
    ids = [(await services.memory.store(new(microdao, f"note {number}", importance=0.1))).id for number in range(5)]
    await age(database, microdao, 40, *ids[:3])
    await client.put(POLICY, json={"mid_term_max_age_days": 30, "max_items": 1}, headers=admin)

    dry = (await client.post("/admin/memory/prune", json={"dry_run": True}, headers=admin)).json()
    assert await kept(database, microdao) == set(ids)
    done = (await client.post("/admin/memory/prune", json={}, headers=admin)).json()

    assert done == {**dry, "dry_run": False}
    assert (dry["complete"], dry["removed"]["age"]["items"], dry["removed"]["size"]["items"]) == (True, 3, 1)
    assert set(dry["removed"]["age"]["ids"]) == set(ids[:3])
    assert len(await kept(database, microdao)) == 1
    first = (await client.get("/admin/memory/prunings?limit=1", headers=admin)).json()
    second = (await client.get(f"/admin/memory/prunings?limit=1&after={first['next']}", headers=admin)).json()
    assert {page["prunings"][0]["reason"] for page in (first, second)} == {"age", "size"}
    assert (await client.get(f"/admin/memory/prunings?after={second['next']}", headers=admin)).json()["prunings"] == []
    nobody = await client.post("/admin/memory/prune", json={"agent_id": "agent:nobody"}, headers=admin)
    assert nobody.status_code == 404


async def test_only_admins_and_only_at_home(client, services, database, microdao):
    other = f"{microdao}-other"
    async with database.system() as connection:
        await connection.execute("INSERT INTO microdao (microdao_id, name) VALUES (%s, 'Other')", (other,))
        await connection.execute("INSERT INTO agent VALUES (%s, %s, 'Sofia', 'sofia')", (other, AGENT))
    theirs = (await services.memory.store(new(other, "tea"))).id
    await services.memory.retention.set_policy(other, None, {"max_items": 0})
    for role in ("member", "agent", "guest"):
        key = await headers(services, microdao, role)
        assert (await client.get(POLICY, headers=key)).status_code == 403
        assert (await client.put(POLICY, json={}, headers=key)).status_code == 403
        assert (await client.post("/admin/memory/prune", json={}, headers=key)).status_code == 403
        assert (await client.get("/admin/memory/prunings", headers=key)).status_code == 403
    admin = await headers(services, microdao)
    for body in ({"microdao_id": other}, {"microdao_id": other, "agent_id": AGENT}):
        assert (await client.post("/admin/memory/prune", json=body, headers=admin)).status_code == 404
    assert (await client.post("/admin/memory/prune", json={}, headers=admin)).json()["removed"] == {}
    assert await kept(database, other) == {theirs}
    operator = await headers(services, microdao, "operator")
    done = await client.post("/admin/memory/prune", json={"microdao_id": other}, headers=operator)
    assert done.json()["removed"]["size"]["ids"] == [theirs]
    nowhere = {"params": {"microdao_id": "microdao:nowhere"}, "headers": operator}
    for answer in (await client.get(POLICY, **nowhere), await client.put(POLICY, json={}, **nowhere)):
        assert answer.status_code == 404
    body = {"microdao_id": "microdao:nowhere"}
    assert (await client.post("/admin/memory/prune", json=body, headers=operator)).status_code == 404


async def test_the_schedule(services: Services, database: Database, microdao: str):
    event = json.loads((ROOT / "events" / "memory_indexer.schedule_maintain.json").read_text())
    await services.memory.store(new(microdao, "tea"))
    await services.memory.retention.set_policy(microdao, None, {"max_items": 0})
    done = await on_direct(services, event)
    assert (done["complete"], done["failed"]) == (True, 0)
    assert await kept(database, microdao) == set()
    with pytest.raises(ValueError, match="maintain"):
        await on_direct(services, {"task": "dance"})
