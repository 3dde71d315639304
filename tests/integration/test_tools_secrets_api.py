"""/admin/secrets over HTTP: written, never read."""

from collections.abc import AsyncIterator
from dataclasses import replace

import httpx
import pytest

from functions.chat.app import create_app
from shared.bootstrap import Services
from shared.errors import Unavailable
from shared.policy.principal import Principal
from shared.tools.model import ToolFailed
from shared.tools.web.addresses import Place

SECRET = "sup3r-s3cret-value"
API = Place("api.example.com", 443)


@pytest.fixture
async def services(settings) -> AsyncIterator[Services]:
    services = Services(settings)
    yield services
    await services.close()


@pytest.fixture
async def client(services) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(create_app(services)), base_url="http://test") as client:
        yield client


async def headers(services: Services, microdao: str, role: str = "admin") -> dict[str, str]:
    return {"authorization": f"Bearer {(await services.keys.create(microdao, [role], role)).secret}"}


async def put(client, admin, name="weather", value=SECRET, hosts=("api.example.com",)) -> httpx.Response:
    return await client.put(f"/admin/secrets/{name}", json={"value": value, "hosts": list(hosts)}, headers=admin)


async def test_a_secret_is_set_shown_without_its_value_and_deleted(client, services, microdao):
    admin = await headers(services, microdao)
    answers = [
        await put(client, admin),
        await client.get("/admin/secrets", headers=admin),
        await client.get("/admin/secrets/weather", headers=admin),
    ]
    assert [answer.status_code for answer in answers] == [200, 200, 200]
    assert all(SECRET not in answer.text for answer in answers)
    assert answers[1].json()["secrets"] == [answers[2].json()] == [answers[0].json()]
    assert set(answers[2].json()) == {"name", "hosts", "changed_by", "created_at", "rotated_at", "last_used_at"}
    assert answers[2].json()["hosts"] == ["api.example.com:443"]
    assert answers[2].json()["last_used_at"] is None
    assert (await services.outside.secrets.open(microdao, ["weather"], API)).values == {"weather": SECRET}
    assert (await client.get("/admin/secrets/weather", headers=admin)).json()["last_used_at"] is not None
    assert (await client.delete("/admin/secrets/weather", headers=admin)).json() == {"ok": True}
    assert (await client.get("/admin/secrets/weather", headers=admin)).status_code == 404
    assert (await client.delete("/admin/secrets/weather", headers=admin)).status_code == 404
    with pytest.raises(ToolFailed, match="is not set"):
        await services.outside.secrets.open(microdao, ["weather"], API)


async def test_rotation_replaces_value_and_hosts_together(client, services, microdao):
    admin = await headers(services, microdao)
    first = (await put(client, admin)).json()
    second = (await put(client, admin, value="another-value", hosts=["other.example.com:8443"])).json()
    assert second["created_at"] == first["created_at"]
    assert second["rotated_at"] > first["rotated_at"]
    opened = await services.outside.secrets.open(microdao, ["weather"], Place("other.example.com", 8443))
    assert opened.values == {"weather": "another-value"}
    with pytest.raises(ToolFailed, match=r"is not bound to api\.example\.com:443") as refused:
        await services.outside.secrets.open(microdao, ["weather"], API)
    assert refused.value.code == "unauthorized"
    partial = await client.put("/admin/secrets/weather", json={"hosts": ["evil.example.com"]}, headers=admin)
    assert partial.status_code == 400


@pytest.mark.parametrize("role", ["guest", "member", "agent", "service"])
async def test_only_administrators_know_of_secrets(client, services, microdao, role):
    await put(client, await headers(services, microdao))
    other = await headers(services, microdao, role)
    assert (await put(client, other)).status_code == 403
    for path in ("/admin/secrets", "/admin/secrets/weather"):
        assert (await client.get(path, headers=other)).status_code == 403
    assert (await client.delete("/admin/secrets/weather", headers=other)).status_code == 403


async def test_another_microdao_has_none_of_them(client, services, microdao, database):
    await put(client, await headers(services, microdao))
    other = f"{microdao}-other"
    async with database.system() as connection:
        await connection.execute("INSERT INTO microdao (microdao_id, name) VALUES (%s, 'Other')", (other,))
    theirs = await headers(services, other)
    assert (await client.get("/admin/secrets", headers=theirs)).json()["secrets"] == []
    assert (await client.get("/admin/secrets/weather", headers=theirs)).status_code == 404
    assert (await client.get(f"/admin/secrets?microdao_id={microdao}", headers=theirs)).status_code == 404
    async with database.system() as connection:  # a row that somebody copies over by hand
        await connection.execute(
            "INSERT INTO tool_secret SELECT %s, name, sealed, hosts, changed_by FROM tool_secret"
            " WHERE microdao_id = %s",
            (other, microdao),
        )
    with pytest.raises(Unavailable):
        await services.outside.secrets.open(other, ["weather"], API)


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("UPPER", {"value": SECRET, "hosts": ["a.test"]}),
        ("a%2Fb", {"value": SECRET, "hosts": ["a.test"]}),
        ("ok", {"value": "short-", "hosts": ["a.test"]}),
        ("ok", {"value": SECRET, "hosts": []}),
        ("ok", {"value": SECRET, "hosts": ["*.a.test"]}),
        ("ok", {"value": f"{SECRET}\r\nX-Injected: 1", "hosts": ["a.test"]}),
        ("ok", {"value": SECRET, "hosts": ["a.test"], "extra": SECRET}),
        ("ok", {"value": [SECRET], "hosts": ["a.test"]}),
    ],
)
async def test_bad_secrets_are_refused_and_not_echoed(client, services, microdao, name, body):
    admin = await headers(services, microdao)
    answer = await client.put(f"/admin/secrets/{name}", json=body, headers=admin)
    assert answer.status_code in (400, 404), answer.text
    assert SECRET not in answer.text
    assert (await client.get("/admin/secrets", headers=admin)).json()["secrets"] == []


async def test_a_value_that_is_too_short_is_told_in_characters(client, services, microdao):
    body = {"value": "the-key", "hosts": ["a.test"]}
    answer = await client.put("/admin/secrets/a", json=body, headers=await headers(services, microdao))
    assert answer.json()["error"]["message"] == "value: String should have at least 8 characters"


async def test_lists_are_paged(client, services, microdao):
    admin = await headers(services, microdao)
    for name in ("a", "b", "c"):
        await put(client, admin, name)
    first = (await client.get("/admin/secrets?limit=2", headers=admin)).json()
    assert ([one["name"] for one in first["secrets"]], first["next"]) == (["a", "b"], "b")
    assert [one["name"] for one in (await client.get("/admin/secrets?after=b", headers=admin)).json()["secrets"]] == [
        "c"
    ]


async def test_operators_reseal_with_a_new_key(services, settings, microdao):
    owner = Principal("key", microdao, frozenset({"admin"}))
    await services.outside.secrets.put(owner, "weather", SECRET, ["api.example.com"])
    rotated = Services(replace(settings, secret_key="new-key", previous_secret_keys="unused, test-secret-key"))
    newest = Services(replace(settings, secret_key="new-key"))
    try:
        with pytest.raises(Unavailable):
            await newest.outside.secrets.open(microdao, ["weather"], API)
        assert (await rotated.outside.secrets.open(microdao, ["weather"], API)).values == {"weather": SECRET}
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(create_app(rotated)), base_url="http://test"
        ) as client:
            admin = await headers(rotated, microdao)
            assert (await client.post("/admin/secrets/reseal", headers=admin, json={})).status_code == 403
            operator = await headers(rotated, microdao, "operator")
            resealed = (await client.post("/admin/secrets/reseal", headers=operator, json={})).json()
            assert resealed["resealed"] >= 1
        assert (await newest.outside.secrets.open(microdao, ["weather"], API)).values == {"weather": SECRET}
    finally:
        await rotated.close()
        await newest.close()
