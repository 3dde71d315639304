"""Snapshots over HTTP."""

from collections.abc import AsyncIterator

import httpx
import pytest

from functions.chat.app import create_app
from functions.chat.bodies import MAX_RAW_BYTES
from shared.bootstrap import Services
from shared.db.database import Database
from shared.ids import new_id
from tests.memories import AGENT
from tests.unit.test_memory_snapshot_file import file_of, item

BASE = "/internal/agent-memory/snapshots"
FILE = {"content-type": "application/x-ndjson"}


@pytest.fixture
async def client(services: Services, microdao: str) -> AsyncIterator[httpx.AsyncClient]:
    """With a member's key."""
    transport = httpx.ASGITransport(create_app(services))
    async with httpx.AsyncClient(
        transport=transport, base_url="http://test", headers=await key(services, microdao)
    ) as client:
        yield client


async def key(services: Services, microdao: str, role: str = "member") -> dict[str, str]:
    return {"authorization": f"Bearer {(await services.keys.create(microdao, [role], 'test')).secret}"}


async def store(client: httpx.AsyncClient, text: str) -> None:
    body = {"agent_id": AGENT, "content": {"text": text}}
    assert (await client.post("/internal/agent-memory/store", json=body)).status_code == 201


async def test_save_list_export_restore_import_delete(client: httpx.AsyncClient):
    await store(client, "tea")
    saved = (await client.post(BASE, json={"agent_id": AGENT, "name": "first"})).json()
    assert {**saved, "id": "", "created_at": "", "bytes": 0} == {
        "id": "", "agent_id": AGENT, "name": "first", "items": 1, "documents": 0, "users": 0, "bytes": 0,
        "created_at": "",
    }  # fmt: skip
    second = (await client.post(BASE, json={"agent_id": AGENT})).json()
    page = (await client.get(BASE, params={"agent_id": AGENT, "limit": 1})).json()
    assert (page["snapshots"], page["next"]) == ([saved], saved["id"])
    page = (await client.get(BASE, params={"agent_id": AGENT, "after": page["next"]})).json()
    assert page == {"snapshots": [second], "next": None}

    exported = await client.get(f"{BASE}/{saved['id']}/file")
    assert exported.headers["content-type"].startswith("application/x-ndjson")
    assert len(exported.content) == saved["bytes"]
    assert exported.content.count(b"\n") == 3

    await store(client, "coffee")
    restored = (await client.post(f"{BASE}/{saved['id']}/restore", json={"mode": "replace"})).json()
    assert restored == {
        "agent_id": AGENT, "mode": "replace", "added": 0, "kept": 1, "changed": 0, "removed": 1,
        "documents_added": 0, "documents_removed": 0,
    }  # fmt: skip
    body = {"agent_id": AGENT, "filters": {}, "memory_types": ["mid_term"]}
    await client.post("/internal/agent-memory/forget", json=body)
    for added in (1, 0):
        imported = await client.post(
            f"{BASE}/import", params={"agent_id": AGENT}, content=exported.content, headers=FILE
        )
        assert (imported.status_code, imported.json()["added"], imported.json()["mode"]) == (200, added, "merge")

    assert (await client.delete(f"{BASE}/{saved['id']}")).json() == {"ok": True}
    assert (await client.get(f"{BASE}/{saved['id']}")).status_code == 404


@pytest.mark.parametrize(
    ("content", "headers", "status"),
    [
        (b"", FILE, 400),
        (b"garbage", FILE, 400),
        (b"\xff\xfe\x00", FILE, 400),
        (file_of(item())[:-1], FILE, 400),
        (file_of(item(importance=7)), FILE, 400),
        (file_of(item(content={"text": "a", "context": {"a": "b" * 100_001}})), FILE, 413),
        (b"x" * (MAX_RAW_BYTES + 1), FILE, 413),
        (file_of(item()), {"content-type": "application/json"}, 400),
        (b"{}", {"content-type": "application/json"}, 415),
        (file_of(item()), {"content-type": "application/x-www-form-urlencoded"}, 415),
        (b"", {}, 415),
    ],
    ids=range(11),
)
async def test_what_is_no_file_is_refused(client: httpx.AsyncClient, content: bytes, headers: dict, status: int):
    response = await client.post(f"{BASE}/import", params={"agent_id": AGENT}, content=content, headers=headers)
    assert response.status_code == status, response.text
    assert response.json()["error"]["message"]
    assert (await client.get(f"/internal/agent-memory/agents/{AGENT}/items")).json()["items"] == []


async def test_raw_bodies_are_for_the_import_alone(client: httpx.AsyncClient):
    assert (await client.post(BASE, content=file_of(), headers=FILE)).status_code == 415


# Each call that names a snapshot, with what it needs beside the id.
CALLS = [
    ("GET", "", None),
    ("GET", "/file", None),
    ("POST", "/restore", {"mode": "replace"}),
    ("POST", "/restore", {"mode": "merge", "agent_id": AGENT}),
    ("DELETE", "", None),
]


@pytest.mark.parametrize(("method", "path", "body"), CALLS)
async def test_another_microdao_has_no_such_snapshot(
    client: httpx.AsyncClient, services: Services, database: Database, method: str, path: str, body: dict | None
):
    saved = (await client.post(BASE, json={"agent_id": AGENT})).json()["id"]
    other = f"microdao:{new_id('other')}"
    async with database.system() as connection:
        await connection.execute("INSERT INTO microdao VALUES (%s, 'Other')", (other,))
        await connection.execute("INSERT INTO agent VALUES (%s, %s, 'Sofia', 'sofia')", (other, AGENT))
    stranger = await key(services, other)
    foreign = await client.request(method, f"{BASE}/{saved}{path}", json=body, headers=stranger)
    unknown = await client.request(method, f"{BASE}/snap_none{path}", json=body)
    assert (foreign.status_code, unknown.status_code) == (404, 404)
    assert (await client.get(f"{BASE}/{saved}")).status_code == 200


async def test_guests_may_not(client: httpx.AsyncClient, services: Services, microdao: str):
    saved = (await client.post(BASE, json={"agent_id": AGENT})).json()["id"]
    guest = await key(services, microdao, "guest")
    for method, path, body in CALLS:
        response = await client.request(method, f"{BASE}/{saved}{path}", json=body, headers=guest)
        assert response.status_code == 403, (method, path)
    for method, path, body in (("GET", f"?agent_id={AGENT}", None), ("POST", "", {"agent_id": AGENT})):
        assert (await client.request(method, BASE + path, json=body, headers=guest)).status_code == 403
    response = await client.post(f"{BASE}/import?agent_id={AGENT}", content=file_of(), headers=guest | FILE)
    assert response.status_code == 403
