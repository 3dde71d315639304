"""Tool search over HTTP, in the memory indexer's function and in an agent's turn."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace

import httpx
import pytest

from functions.memory_indexer.handler import on_batch, on_direct
from shared.cloud.serve import Message
from shared.db.database import Database
from shared.settings import ROOT, Settings
from tests.integration.api_server import Api, running_api

SOFIA = "agent:sofia"
EVENTS = ROOT / "events"


@pytest.fixture(scope="module")
async def server(settings: Settings, models: object) -> AsyncIterator[Api]:
    async with running_api(settings) as api:
        yield api


@pytest.fixture
async def api(server: Api, microdao: str) -> Api:
    await server.services.toolbox.seed(microdao, SOFIA)
    return await server.for_member(microdao)


async def post(api: Api, **body: object) -> httpx.Response:
    async with httpx.AsyncClient(base_url=api.url, headers={"authorization": f"Bearer {api.key}"}) as client:
        return await client.post("/internal/tools/search", json={"agent_id": SOFIA, **body}, timeout=60)


async def deliver(api: Api, database: Database, microdao: str) -> None:
    """The memory queue's messages, as the function gets them."""
    async with database.tenant(microdao) as connection:
        cursor = await connection.execute("SELECT id, body FROM outbox WHERE queue = 'memory' ORDER BY id")
        rows = await cursor.fetchall()
    assert rows
    assert await on_batch(api.services, [Message(row["id"], row["body"]) for row in rows]) == set()


async def test_built_in_tools_are_found_in_three_languages(api: Api, database: Database, microdao: str):
    await deliver(api, database, microdao)
    for query, name in (
        ("Start a new project for our website", "project.create"),
        ("What is 17 percent of 2400?", "math"),
        ("створи завдання для команди", "task.create"),
        ("какие у нас есть проекты?", "projects.list"),
    ):
        answer = (await post(api, query=query, k=2)).json()
        assert name in {tool["name"] for tool in answer["tools"]}, query
        assert answer["permitted"] >= 5
        assert all(tool["why"] == "found" for tool in answer["tools"])


async def test_a_job_for_a_tool_that_is_gone_is_done(api: Api):
    (record,) = json.loads((EVENTS / "memory_indexer.sqs_tools.json").read_text())["Records"]
    assert await on_batch(api.services, [Message(record["messageId"], json.loads(record["body"]))]) == set()
    assert await on_batch(api.services, [Message("odd", {"tool_ids": ["tool_1"]})]) == {"odd"}


async def test_a_member_sees_what_the_agent_was_granted_only(api: Api, microdao: str):
    await api.services.toolbox.set_grants(microdao, SOFIA, [], ["math"])
    answer = (await post(api, query="calculate 2 + 2", k=100)).json()
    assert "math" not in {tool["name"] for tool in answer["tools"]}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"query": "x", "k": 0}, 400),
        ({"query": "x", "k": 101}, 400),
        ({"query": "x", "executors": ["shell"]}, 400),
        ({"query": "x", "risk_max": "E"}, 400),
        ({"query": "x" * 20_001}, 400),
        ({"query": "x", "unheard": 1}, 400),
        ({"query": "x", "agent_id": "agent:nobody"}, 404),
        ({"query": "x", "microdao_id": "microdao:other"}, 404),
        ({"query": "x\0"}, 400),
        ({"query": ""}, 200),
    ],
)
async def test_what_is_refused(api: Api, body: dict, status: int):
    answer = await post(api, **body)
    assert answer.status_code == status, answer.text


async def test_a_stranger_gets_nothing(server: Api):
    assert (await post(replace(server, key="sk-nobody"), query="x")).status_code == 401


async def test_the_indexers_sweep_is_also_for_tools(api: Api, database: Database, microdao: str):
    async with database.tenant(microdao) as connection:
        await connection.execute("DELETE FROM outbox")
        await connection.execute("UPDATE tool_entry SET queued_at = now() - interval '1 hour'")
    await on_direct(api.services, {"task": "sweep"})
    await deliver(api, database, microdao)
    async with database.tenant(microdao) as connection:
        cursor = await connection.execute("SELECT min(embedded_in) AS least FROM tool_entry")
        assert (await cursor.fetchone())["least"] > 0


async def test_an_agent_with_many_tools_is_shown_the_best_of_them(api: Api, database: Database, microdao: str):
    async with database.tenant(microdao) as connection:
        for number in range(20):
            row = {"id": f"{microdao}:{number}", "name": f"dummy.number{number}"}
            await connection.execute("INSERT INTO tool VALUES (%(id)s, current_microdao(), %(name)s, 1)", row)
            await connection.execute(
                "INSERT INTO tool_version (microdao_id, tool_id, version, definition_hash, description, parameters,"
                " risk, executor, config, timeout_ms, idempotent) VALUES (current_microdao(), %(id)s, 1, '',"
                " 'Peel potatoes', '{}', 'A', 'builtin', '{}', 1000, true)",
                row,
            )
            await connection.execute("INSERT INTO tool_grant VALUES (current_microdao(), %s, %s)", (SOFIA, row["id"]))
    tools = await api.services.toolbox.list_for_agent(microdao, SOFIA)
    chosen = await api.services.tool_search.choose(
        microdao, SOFIA, tools, text="Please create a task: call Maria", required=["math"], limit=12
    )
    names = {tool.name for tool in chosen}
    assert len(chosen) == 13
    assert {"math", "task.create"} <= names
