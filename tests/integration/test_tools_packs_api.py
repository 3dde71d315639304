"""Packs: exported, changed on the way, imported into another microDAO."""

import copy
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from shared.bootstrap import Services
from shared.ids import new_id
from shared.tools.catalogue.definition import canonical_hash
from tests.integration.test_tools_admin_api import BASE, SCHEMA, SOFIA, client_of, made, tool

PACK = f"{BASE}/import/pack"


@pytest.fixture
async def admin(services: Services, microdao: str) -> AsyncIterator[httpx.AsyncClient]:
    async with await client_of(services, microdao, "admin") as client:
        yield client


@pytest.fixture
async def stranger(services: Services) -> AsyncIterator[httpx.AsyncClient]:
    other = f"microdao:{new_id('test')}"
    await services.tenants.create(other, "Other")
    async with await client_of(services, other, "owner") as client:
        yield client


@pytest.fixture
async def pack(admin: httpx.AsyncClient) -> dict[str, Any]:
    config = {"url": "https://weather.example/now", "secret_ref": "weather-key"}
    await made(admin, aliases=["forecast"], tags=["sky"], grant_to=[SOFIA], config=config, environments=["dev"])
    steps = [{"id": "a", "tool": "weather.now", "args": {"city": "{{args.city}}"}}, {"id": "b", "tool": "math"}]
    await made(admin, name="plan", executor="chain", config={"steps": steps}, tags=["sky"])
    answer = await admin.post(f"{BASE}/export", json={"tools": ["tag:sky"]})
    assert answer.status_code == 200, answer.text
    return answer.json()


def sealed(pack: dict[str, Any]) -> dict[str, Any]:
    """With a checksum that fits."""
    body = {name: one for name, one in pack.items() if name != "checksum"}
    return {**body, "checksum": canonical_hash(body)}


async def test_a_pack_says_what_it_needs_and_nothing_of_its_tenant(pack: dict[str, Any], microdao: str):
    assert (pack["format"], pack["version"]) == ("daarion-tools", 1)
    assert pack["requires"] == ["secret:weather-key", "tool:math"]
    assert [one["name"] for one in pack["tools"]] == ["plan", "weather.now"]
    assert not any(word in str(pack) for word in (microdao, SOFIA, "tool_", "created"))


async def test_a_pack_goes_to_another_tenant(stranger: httpx.AsyncClient, pack: dict[str, Any]):
    rehearsed = (await stranger.post(PACK, json={"pack": pack, "dry_run": True})).json()
    assert (rehearsed["counts"], rehearsed["requires"]) == ({"made": 2}, pack["requires"])
    assert (await stranger.get(BASE)).json()["tools"] == []
    report = (await stranger.post(PACK, json={"pack": pack})).json()
    assert report["counts"] == {"made": 2}
    tools = {one["name"]: one for one in (await stranger.get(BASE)).json()["tools"]}
    weather = tools["weather.now"]
    assert (weather["active"], weather["aliases"], weather["tags"]) == (False, ["forecast"], ["sky"])
    assert (weather["parameters"], weather["environments"]) == (SCHEMA, ["dev"])
    assert (await stranger.post(PACK, json={"pack": pack})).json()["counts"] == {"unchanged": 2}
    exported = (await stranger.post(f"{BASE}/export", json={"tools": ["weather.now", "plan"]})).json()
    assert exported == pack


async def test_active_at_once_when_an_administrator_says_so(stranger: httpx.AsyncClient, pack: dict[str, Any]):
    await stranger.post(PACK, json={"pack": pack, "activate": True})
    assert all(one["active"] for one in (await stranger.get(BASE)).json()["tools"])


async def test_a_conflict_lets_nothing_in(stranger: httpx.AsyncClient, pack: dict[str, Any]):
    await stranger.post(BASE, json=tool("weather_now"))
    answer = await stranger.post(PACK, json={"pack": pack})
    assert answer.status_code == 409
    assert answer.json()["details"] == [{"path": "weather.now", "message": "the name is taken by weather_now"}]
    assert [one["name"] for one in (await stranger.get(BASE)).json()["tools"]] == ["weather_now"]
    rehearsed = (await stranger.post(PACK, json={"pack": pack, "dry_run": True})).json()
    assert rehearsed["counts"] == {"made": 1, "skipped": 1}


async def test_an_alias_in_the_way_lets_nothing_in(stranger: httpx.AsyncClient, pack: dict[str, Any]):
    await stranger.post(BASE, json=tool("forecast"))
    assert (await stranger.post(PACK, json={"pack": pack})).status_code == 409


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"checksum": "0" * 64}, "pack.checksum"),
        ({"format": "zip"}, "pack.format"),
        ({"version": 2}, "pack.version"),
        ({"version": True}, "pack.version"),
        ({"tools": []}, "pack.checksum"),
    ],
)
async def test_what_is_no_pack_is_refused(
    stranger: httpx.AsyncClient, pack: dict[str, Any], change: dict[str, Any], param: str
):
    answer = await stranger.post(PACK, json={"pack": {**pack, **change}})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


@pytest.mark.parametrize(
    "change",
    [
        {"name": "1"},
        {"name": None},
        {"parameters": {"type": "objekt"}},
        {"config": {"url": "https://x", "headers": {"Authorization": "Bearer abcdefgh"}}},
        {"config": {"url": "file:///etc/passwd"}},
        {"risk": "E"},
        {"timeout_ms": "5"},
        {"surprise": 1},
    ],
)
async def test_a_forged_pack_cannot_say_what_the_api_refuses(
    stranger: httpx.AsyncClient, pack: dict[str, Any], change: dict[str, Any]
):
    forged = copy.deepcopy(pack)
    forged["tools"][1] |= change
    assert (await stranger.post(PACK, json={"pack": sealed(forged)})).status_code == 400
    assert (await stranger.get(BASE)).json()["tools"] == []
