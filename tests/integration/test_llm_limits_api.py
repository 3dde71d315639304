"""/admin/limits, /admin/budgets and /internal/llm over HTTP."""

import csv
import io
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from functions.chat.app import create_app
from shared.bootstrap import Services
from shared.db.database import Database

KEYS = ("member", "admin", "operator")


@pytest.fixture
async def client(services: Services) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(create_app(services))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


@pytest.fixture
async def keys(services: Services, microdao: str) -> dict[str, dict[str, str]]:
    """Headers by role."""
    made = {role: await services.keys.create(microdao, [role], role) for role in KEYS}
    return {role: {"authorization": f"Bearer {key.secret}", "x-test-key-id": key.id} for role, key in made.items()}


async def put(client: httpx.AsyncClient, what: str, headers: dict[str, str], **body: Any) -> httpx.Response:
    return await client.put(f"/admin/{what}", json=body, headers=headers)


async def ask(client: httpx.AsyncClient, headers: dict[str, str], **more: Any) -> httpx.Response:
    body = {"model": "offline", "messages": [{"role": "user", "content": "say hello"}], **more}
    return await client.post("/internal/llm/proxy", json=body, headers=headers)


async def test_limits_are_set_listed_and_lifted(client, keys, microdao):
    admin = keys["admin"]
    made = await put(client, "limits", admin, scope="microdao", requests_per_minute=5)
    assert (made.status_code, made.json()) == (
        200,
        {
            "scope": "microdao",
            "id": microdao,
            "microdao_id": microdao,
            "requests_per_minute": 5,
            "tokens_per_minute": None,
        },
    )
    await put(client, "limits", admin, scope="agent", id="agent:sofia", tokens_per_minute=1000)
    first = (await client.get("/admin/limits?limit=1", headers=admin)).json()
    second = (await client.get("/admin/limits", params={"after": first["next"]}, headers=admin)).json()
    assert [row["scope"] for row in first["limits"] + second["limits"]] == ["agent", "microdao"]
    assert second["next"] is None
    await put(client, "limits", admin, scope="microdao", id=microdao, requests_per_minute=None)
    left = (await client.get("/admin/limits", headers=admin)).json()["limits"]
    assert [row["scope"] for row in left] == ["agent"]


async def test_budgets_are_set_listed_and_lifted(client, keys, microdao):
    admin = keys["admin"]
    for period in ("day", "month", "total"):
        made = await put(client, "budgets", admin, scope="microdao", period=period, limit_microusd=7)
        assert made.json()["limit_microusd"] == 7
    rows = (await client.get("/admin/budgets", headers=admin)).json()["budgets"]
    assert {row["period"]: row["resets_at"] is None for row in rows} == {"day": False, "month": False, "total": True}
    assert {(row["limit_microusd"], row["spent_microusd"], row["reserved_microusd"]) for row in rows} == {(7, 0, 0)}
    for period in ("day", "month"):
        await put(client, "budgets", admin, scope="microdao", period=period, limit_microusd=None)
    rows = (await client.get("/admin/budgets", headers=admin)).json()["budgets"]
    assert [row["period"] for row in rows] == ["total"]


async def test_who_may_set_what(client, keys, services, database: Database, microdao):
    other = f"{microdao}-other"
    await services.tenants.create(other, "Other")
    own = {"scope": "microdao", "requests_per_minute": 5}
    assert (await put(client, "limits", keys["member"], **own)).status_code == 403
    assert (await client.get("/admin/limits", headers=keys["member"])).status_code == 403
    for named in ({"scope": "microdao", "id": other}, {"scope": "agent", "id": "agent:sofia", "microdao_id": other}):
        refused = await put(client, "limits", keys["admin"], **named, requests_per_minute=1)
        assert (refused.status_code, refused.json()["error"]["code"]) == (404, "not_found")
    unknown = await put(client, "budgets", keys["admin"], scope="agent", id="agent:x", period="day", limit_microusd=1)
    assert unknown.status_code == 404
    mixed = {"scope": "microdao", "id": microdao, "microdao_id": other}
    assert (await put(client, "limits", keys["operator"], **mixed, requests_per_minute=1)).status_code == 404
    allowed = await put(client, "limits", keys["operator"], scope="microdao", id=other, requests_per_minute=1)
    assert allowed.json()["microdao_id"] == other
    platform = {"scope": "platform", "period": "total", "limit_microusd": 10**12}
    assert (await put(client, "budgets", keys["admin"], **platform)).status_code == 403
    try:
        made = await put(client, "budgets", keys["operator"], **platform)
        assert (made.status_code, made.json()["id"]) == (200, None)
        seen = (await client.get("/admin/budgets", headers=keys["operator"])).json()["budgets"]
        assert [row["scope"] for row in seen] == ["platform"]
        assert (await client.get("/admin/budgets", headers=keys["admin"])).json()["budgets"] == []
    finally:
        await put(client, "budgets", keys["operator"], scope="platform", period="total", limit_microusd=None)


@pytest.mark.parametrize(
    ("what", "body"),
    [
        ("limits", {"scope": "team", "requests_per_minute": 1}),
        ("limits", {"scope": "agent", "requests_per_minute": 1}),
        ("limits", {"scope": "microdao", "requests_per_minute": -1}),
        ("limits", {"scope": "microdao", "requests_per_minute": 10**12}),
        ("limits", {"scope": "microdao", "rpm": 1}),
        ("budgets", {"scope": "microdao", "limit_microusd": 1}),
        ("budgets", {"scope": "microdao", "period": "week", "limit_microusd": 1}),
        ("budgets", {"scope": "microdao", "period": "day"}),
        ("budgets", {"scope": "microdao", "period": "day", "limit_microusd": 10**30}),
    ],
)
async def test_garbage_is_refused(client, keys, what, body):
    refused = await put(client, what, keys["admin"], **body)
    assert (refused.status_code, refused.json()["error"]["type"]) == (400, "invalid_request_error")


async def test_the_proxy_answers_for_an_agent(client, keys, microdao, database):
    plain = await ask(client, keys["member"], agent_id="agent:sofia", microdao_id=microdao)
    assert (plain.status_code, plain.json()["object"], plain.json()["model"]) == (200, "chat.completion", "offline")
    under_metadata = await ask(client, keys["member"], metadata={"agent_id": "agent:sofia", "microdao_id": microdao})
    assert under_metadata.status_code == 200
    streamed = await ask(client, keys["member"], agent_id="agent:sofia", stream=True)
    assert streamed.text.rstrip().endswith("data: [DONE]")
    rows = await database.run("SELECT agent_id, key_id FROM llm_ledger WHERE microdao_id = %s", (microdao,))
    assert rows == [{"agent_id": "agent:sofia", "key_id": keys["member"]["x-test-key-id"]}] * 3


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_limit_shows_in_headers_and_then_refuses(client, keys, streamed):
    await put(client, "limits", keys["admin"], scope="microdao", requests_per_minute=2, tokens_per_minute=100_000)
    for left in ("1", "0"):
        headers = (await ask(client, keys["member"], stream=streamed)).headers
        assert headers["x-ratelimit-limit-requests"] == "2"
        assert headers["x-ratelimit-remaining-requests"] == left
        assert headers["x-ratelimit-reset-requests"].endswith("s")
        assert int(headers["x-ratelimit-remaining-tokens"]) < 100_000
    refused = await ask(client, keys["member"], stream=streamed)
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limit_exceeded")
    assert refused.json()["request_id"]
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    body = {"model": "offline", "messages": [{"role": "user", "content": "hello"}], "stream": streamed}
    as_openai = await client.post("/v1/chat/completions", json=body, headers=keys["member"])
    assert (as_openai.status_code, set(as_openai.json())) == (429, {"error"})


async def test_the_proxy_refuses_what_is_not_there(client, keys):
    for body in ({"agent_id": "agent:x"}, {"microdao_id": "microdao:x"}, {"model": "sofia"}):
        refused = await ask(client, keys["member"], **body)
        assert refused.status_code == 404
        assert refused.json()["error"]["code"] in ("not_found", "model_not_found")
        assert refused.json()["request_id"]


async def test_models_say_health_and_price(client, keys):
    models = (await client.get("/internal/llm/models", headers=keys["member"])).json()["models"]
    (offline,) = [model for model in models if model["id"] == "offline"]
    assert offline["routes"] == [
        {
            "provider": "offline",
            "model": "offline",
            "healthy": True,
            "price": {
                "input_usd_per_mtok": 0,
                "cached_input_usd_per_mtok": 0,
                "cache_creation_usd_per_mtok": 0,
                "output_usd_per_mtok": 0,
            },
        }
    ]


async def test_usage_as_json_and_csv(client, keys, services, database, microdao):
    for agent_id in ("agent:sofia", None):
        assert (await ask(client, keys["member"], agent_id=agent_id)).status_code == 200
    jobs = await database.run("SELECT body FROM outbox WHERE microdao_id = %s AND queue = 'usage'", (microdao,))
    for job in jobs:
        await services.meter.apply(**job["body"])
    url = "/internal/llm/usage?group_by=agent_id,provider&agent_id=agent:sofia"
    report = (await client.get(url, headers=keys["member"])).json()
    (group,) = report["groups"]
    assert (group["agent_id"], group["provider"], group["requests"]) == ("agent:sofia", "offline", 1)
    by_accept = await client.get(url, headers={**keys["member"], "accept": "text/csv"})
    by_format = await client.get(f"{url}&format=csv", headers=keys["member"])
    assert by_accept.headers["content-type"].startswith("text/csv")
    (line,) = csv.DictReader(io.StringIO(by_accept.text))
    assert by_accept.text == by_format.text
    assert list(line)[:3] == ["agent_id", "provider", "requests"]
    assert (line["agent_id"], line["total_tokens"]) == ("agent:sofia", str(group["total_tokens"]))
    total = (await client.get("/internal/llm/usage?format=csv", headers=keys["member"])).text
    assert [row["requests"] for row in csv.DictReader(io.StringIO(total))] == ["2"]
