"""Sanitising, kept answers and experiments where they meet: the API, the gateway, Postgres and a real upstream."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import openai
import pytest

from shared.agents.blueprint import BlueprintDefinition
from shared.db.database import Database, Row, fetch_all
from shared.settings import Settings
from tests.fakes.openai_server import FakeOpenAI, Reply
from tests.integration.api_server import Api, running_api
from tests.unit.test_llm_sanitize import SECRETS

KEY = SECRETS["daarion_key"]
CHAT = "/v1/chat/completions"
MODEL = "gpt-4.1-mini"


@pytest.fixture
async def fake() -> AsyncIterator[FakeOpenAI]:
    async with FakeOpenAI() as server:
        yield server


@pytest.fixture
async def api(settings: Settings, fake: FakeOpenAI, microdao: str) -> AsyncIterator[Api]:
    configured = replace(settings, openai_api_key="sk-fake", openai_base_url=fake.base_url)
    async with running_api(configured) as running:
        await running.services.agents.seed(microdao)
        yield await running.for_member(microdao)


@pytest.fixture
async def http(api: Api) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"authorization": f"Bearer {api.key}"}
    async with httpx.AsyncClient(base_url=api.url, headers=headers, timeout=30) as client:
        yield client


async def ask(http: httpx.AsyncClient, text: str, **more: Any) -> httpx.Response:
    return await http.post(CHAT, json={"model": MODEL, "messages": [{"role": "user", "content": text}], **more})


def events(response: httpx.Response) -> list[dict[str, Any]]:
    lines = [line[6:] for line in response.text.splitlines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


async def rows(database: Database, microdao: str, table: str, order: str) -> list[Row]:
    async with database.tenant(microdao) as connection:
        return await fetch_all(connection, f"SELECT * FROM {table} ORDER BY {order}")


async def blueprint(database: Database, microdao: str, **changes: Any) -> None:
    """Change the blueprint that the test's agent is bound to."""
    definition = BlueprintDefinition(code="sofia", name="Sofia", model=MODEL, instructions="You are Sofia.")
    changed = BlueprintDefinition.model_validate(definition.model_dump() | changes)
    async with database.tenant(microdao) as connection:
        await connection.execute(
            "UPDATE blueprint_version SET definition = %s FROM blueprint"
            " WHERE blueprint.id = blueprint_id AND blueprint.code = 'sofia'",
            (changed.model_dump_json(),),
        )


async def test_a_secret_is_not_embedded_and_the_call_is_in_the_ledger(http, fake, database, microdao):
    fake.will(Reply(body={"data": [{"index": 0, "embedding": [3.0]}, {"index": 1, "embedding": [4.0]}]}))
    asked = {"model": "text-embedding-3-small", "input": ["plain", f"my key is {KEY}"]}
    answer = await http.post("/v1/embeddings", json=asked)
    assert answer.status_code == 200
    assert fake.requests[0].body["input"] == ["plain", "my key is [redacted:daarion_key]"]
    [row] = await rows(database, microdao, "llm_ledger", "id")
    assert (row["model"], row["outcome"], row["completion_tokens"]) == ("text-embedding-3-small", "succeeded", 0)
    assert row["prompt_tokens"] > 0


async def test_a_secret_does_not_reach_a_provider(http, fake):
    answer = await ask(http, f"my key is {KEY}, is it good?")
    assert answer.status_code == 200
    assert fake.requests[0].body["messages"][0]["content"] == "my key is [redacted:daarion_key], is it good?"


async def test_a_session_keeps_what_was_said(http, fake, database, microdao):
    await blueprint(database, microdao)
    answer = await ask(http, f"my key is {KEY}", model="sofia")
    assert answer.status_code == 200, answer.text
    assert KEY not in json.dumps(fake.requests[0].body)
    messages = await rows(database, microdao, "session_message", "position")
    assert messages[0]["message"]["content"] == f"my key is {KEY}"


async def test_a_blueprint_refuses(http, fake, database, microdao):
    patterns = [{"name": "case", "pattern": r"ACME-\d{4}"}]
    await blueprint(database, microdao, sanitize={"mode": "refuse", "extra_patterns": patterns})
    for text, kind in ((KEY, "daarion_key"), ("about ACME-1234", "case")):
        refused = await ask(http, text, model="sofia")
        assert (refused.status_code, refused.headers["x-should-retry"]) == (400, "false")
        assert kind in refused.json()["error"]["message"]
        assert text not in refused.text
    assert fake.requests == []
    assert (await ask(http, "hello", model="sofia")).status_code == 200


async def test_a_blueprint_switches_it_off(http, fake, database, microdao):
    await blueprint(database, microdao, sanitize={"mode": "off"})
    await ask(http, KEY, model="sofia")
    assert fake.requests[0].body["messages"][-1]["content"] == KEY


@pytest.mark.parametrize("stream", [False, True])
async def test_answers_of_a_blueprint_that_checks_them(http, fake, database, microdao, stream):
    await blueprint(database, microdao, sanitize={"answers": True})
    fake.will(Reply(text=f"it is {KEY} and that is all"))
    answer = await ask(http, "tell me", model="sofia", stream=stream)
    assert KEY not in answer.text
    if stream:
        said = "".join(one["choices"][0]["delta"].get("content") or "" for one in events(answer) if one["choices"])
    else:
        said = answer.json()["choices"][0]["message"]["content"]
    assert said == "it is [redacted:daarion_key] and that is all"


async def test_a_kept_answer_costs_nothing_and_calls_nobody(http, fake, database, microdao):
    fake.will(Reply(text="forty-two", usage={"prompt_tokens": 1000, "completion_tokens": 500}))
    asked = {"metadata": {"cache": {"ttl_s": 60}}}
    first = (await ask(http, "the answer?", **asked)).json()
    again = (await ask(http, "the answer?", **asked)).json()
    assert len(fake.requests) == 1
    assert "cached" not in first["daarion"]
    assert first["daarion"]["cost_microusd"] > 0
    assert (again["daarion"]["cached"], again["daarion"]["cost_microusd"]) == (True, 0)
    assert again["choices"] == first["choices"]
    assert again["usage"]["total_tokens"] == first["usage"]["total_tokens"]
    assert again["id"] != first["id"]
    called, kept = await rows(database, microdao, "llm_ledger", "admitted_at")
    assert (called["outcome"], kept["outcome"], kept["cost_microusd"]) == ("succeeded", "cached", 0)
    assert called["cost_microusd"] > 0
    totals = await rows(database, microdao, "usage_event", "occurred_at")
    assert [one["cost_microusd"] for one in totals] == [called["cost_microusd"], 0]
    assert await rows(database, microdao, "llm_reservation", "id") == []


async def test_a_kept_answer_is_streamed(api, http, fake):
    fake.will(Reply(text="word " * 40))
    asked = {
        "model": MODEL,
        "messages": [{"role": "user", "content": "words"}],
        "extra_body": {"metadata": {"cache": True}},
    }
    async with openai.AsyncOpenAI(base_url=f"{api.url}/v1", api_key=api.key, max_retries=0) as client:
        told = []
        for _ in range(2):
            stream = await client.chat.completions.create(stream=True, stream_options={"include_usage": True}, **asked)
            chunks = [chunk async for chunk in stream]
            assert chunks[-1].usage is not None
            told.append("".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices))
        whole = await client.chat.completions.create(**asked)
    assert told[0] == told[1] == whole.choices[0].message.content == "word " * 40
    assert len(fake.requests) == 1


async def test_errors_and_cut_answers_are_not_kept(http, fake):
    asked = {"metadata": {"cache": True}}
    fake.will(Reply(status=400), Reply(text="cut", finish_reason="length"), Reply(text="whole"))
    assert (await ask(http, "q", **asked)).status_code == 400
    for text in ("cut", "whole", "whole"):
        assert (await ask(http, "q", **asked)).json()["choices"][0]["message"]["content"] == text
    assert len(fake.requests) == 3
    refused = await ask(http, "q", metadata={"cache": {"ttl_s": -1}})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "metadata.cache")


async def test_a_blueprint_keeps_answers(http, fake, database, microdao):
    await blueprint(database, microdao, cache_ttl_s=60)
    for _ in range(2):
        answer = await ask(http, "what is the capital of France?", model="sofia")
        assert answer.status_code == 200, answer.text
    outcomes = [row["outcome"] for row in await rows(database, microdao, "llm_ledger", "admitted_at")]
    assert outcomes[0] == "succeeded"
    assert len(outcomes) == 2


async def test_an_experiment_on_a_blueprint(api, http, fake, database, microdao):
    await blueprint(database, microdao)
    admin = await api.services.keys.create(microdao, ["admin"], "admin")
    variant = {"name": "terse", "instructions": "Be terse.", "model": "gpt-4.1", "temperature": 0}
    made = await http.post(
        "/admin/experiments",
        json={"name": "style", "blueprint": "sofia", "variants": [variant]},
        headers={"authorization": f"Bearer {admin.secret}"},
    )
    assert made.status_code == 201, made.text
    await ask(http, "hello", model="sofia")
    sent = fake.requests[0].body
    assert (sent["model"], sent["temperature"]) == ("gpt-4.1", 0)
    assert sent["messages"][0]["content"] == "You are Sofia.\n\nBe terse."
    [row] = await rows(database, microdao, "llm_ledger", "id")
    assert row["variant"] == "style/terse"
    results = await http.get("/admin/experiments/style/results", headers={"authorization": f"Bearer {admin.secret}"})
    [figures] = results.json()["variants"]
    assert (figures["variant"], figures["requests"], figures["errors"]) == ("terse", 1, 0)
    assert figures["cost_microusd"] == row["cost_microusd"] > 0
