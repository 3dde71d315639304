"""Idempotency-Key against the real API, database and a real upstream: answered once, repeated to the byte."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import openai
import pytest

from shared.db.database import Database, fetch_all
from shared.errors import IdempotencyConflict, IdempotencyInProgress
from shared.llm.answers.idempotency import MAX_ANSWER_BYTES, IdempotentRequests, StoredAnswer
from shared.llm.answers.request_key import RequestKey
from shared.settings import Settings
from tests.fakes.openai_server import FakeOpenAI, Reply
from tests.integration.api_server import Api, running_api

CHAT = "/v1/chat/completions"
PROXY = "/internal/llm/proxy"


@pytest.fixture
async def fake() -> AsyncIterator[FakeOpenAI]:
    async with FakeOpenAI() as server:
        yield server


@pytest.fixture
async def api(settings: Settings, fake: FakeOpenAI, microdao: str) -> AsyncIterator[Api]:
    configured = replace(settings, openai_api_key="sk-fake", openai_base_url=fake.base_url)
    async with running_api(configured) as running:
        yield await running.for_member(microdao)


@pytest.fixture
async def http(api: Api) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"authorization": f"Bearer {api.key}"}
    async with httpx.AsyncClient(base_url=api.url, headers=headers, timeout=30) as client:
        yield client


def asked(text: str = "hello", **more: Any) -> dict[str, Any]:
    return {"model": "gpt-4.1-mini", "messages": [{"role": "user", "content": text}], **more}


async def post(http: httpx.AsyncClient, key: str, body: dict[str, Any], path: str = CHAT) -> httpx.Response:
    return await http.post(path, json=body, headers={"idempotency-key": key})


async def cost(database: Database, microdao: str) -> int:
    async with database.tenant(microdao) as connection:
        return len(await fetch_all(connection, "SELECT 1 FROM llm_ledger"))


async def stored(database: Database, microdao: str) -> list[dict[str, Any]]:
    async with database.tenant(microdao) as connection:
        return await fetch_all(connection, "SELECT * FROM idempotent_request")


async def until_stored(database: Database, microdao: str, count: int) -> None:
    async with asyncio.timeout(10):
        while len(await stored(database, microdao)) != count:  # noqa: ASYNC110 - polled with a deadline
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("path", [CHAT, PROXY])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_repetition_gets_the_same_bytes(http, fake, database, microdao, path, stream):
    fake.will(Reply(text="one two three"))
    body = asked(stream=stream)
    first = await post(http, "k1", body, path)
    again = await post(http, "k1", dict(reversed(body.items())), path)
    assert (first.status_code, again.status_code) == (200, 200)
    assert again.content == first.content
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    same = ("content-type", "x-daarion-provider", "cache-control")
    assert [again.headers.get(name) for name in same] == [first.headers.get(name) for name in same]
    assert again.headers["x-request-id"] != first.headers["x-request-id"]
    assert len(fake.requests) == 1
    assert await cost(database, microdao) == 1


async def test_embeddings(http, fake):
    body = {"model": "text-embedding-3-small", "input": "hello"}
    models = (await http.get("/v1/models")).json()["data"]
    embedding = next((one["id"] for one in models if "embed" in one["id"]), None)
    assert embedding is not None
    first = await post(http, "k1", body | {"model": embedding}, "/v1/embeddings")
    again = await post(http, "k1", body | {"model": embedding}, "/v1/embeddings")
    assert first.status_code == 200, first.text
    assert again.content == first.content
    assert again.headers["idempotent-replayed"] == "true"


async def test_without_the_header_every_request_is_answered(http, fake, database, microdao):
    for _ in range(2):
        assert (await http.post(CHAT, json=asked())).status_code == 200
    assert len(fake.requests) == 2
    assert await stored(database, microdao) == []


async def test_another_body_or_path_is_a_conflict(http, fake):
    await post(http, "k1", asked())
    for other, path in ((asked("another"), CHAT), (asked(), PROXY)):
        refused = await post(http, "k1", other, path)
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "idempotency_conflict")
    assert len(fake.requests) == 1
    assert (await post(http, "k2", asked("another"))).status_code == 200


@pytest.mark.parametrize("key", ["", "x" * 256, "a\tb"])
async def test_bad_keys(http, fake, key):
    refused = await post(http, key, asked())
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "Idempotency-Key")
    assert fake.requests == []
    assert (await post(http, "x" * 255, asked())).status_code == 200


async def test_of_many_at_once_one_is_answered(http, fake, database, microdao):
    fake.will(Reply(text="slow", delay_s=0.5))
    answers = await asyncio.gather(*(post(http, "k1", asked()) for _ in range(12)))
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 11
    for answer in answers:
        if answer.status_code == 409:
            assert answer.json()["error"]["code"] == "idempotency_in_progress"
            assert int(answer.headers["retry-after"]) >= 1
    assert len(fake.requests) == 1
    assert await cost(database, microdao) == 1


async def test_a_failure_leaves_the_key_free(http, fake, database, microdao):
    fake.will(Reply(status=400), Reply(text="now it works"))
    assert (await post(http, "k1", asked())).status_code == 400
    assert await stored(database, microdao) == []
    good = await post(http, "k1", asked())
    assert good.json()["choices"][0]["message"]["content"] == "now it works"
    assert (await post(http, "bad-model", asked(model="no-such"))).status_code == 404
    assert (await post(http, "bad-body", {"model": "x"})).status_code == 400
    assert len(await stored(database, microdao)) == 1


async def test_a_stream_that_breaks_off_leaves_the_key_free(http, fake, database, microdao):
    fake.will(Reply(text="one two three", close_after=2), Reply(text="one two three"))
    broken = await post(http, "k1", asked(stream=True))
    assert broken.status_code == 200
    assert '"error"' in broken.text
    assert "[DONE]" not in broken.text
    await until_stored(database, microdao, 0)
    whole = await post(http, "k1", asked(stream=True))
    assert whole.text.endswith("data: [DONE]\n\n")
    assert (await post(http, "k1", asked(stream=True))).content == whole.content


async def test_a_client_that_leaves_leaves_the_key_free(http, fake, database, microdao):
    fake.will(Reply(text="one two three", hang_after=2), Reply(text="one"))
    async with http.stream("POST", CHAT, json=asked(stream=True), headers={"idempotency-key": "k1"}) as response:
        async for line in response.aiter_lines():
            if "two" in line:
                break
        assert (await post(http, "k1", asked(stream=True))).status_code == 409
    await until_stored(database, microdao, 0)
    assert (await post(http, "k1", asked(stream=True))).status_code == 200


async def test_keys_do_not_meet(api, http, fake, database, microdao):
    fake.will(Reply(text="mine"), Reply(text="yours"))
    mine = await post(http, "k1", asked())
    other = await api.for_member(microdao)
    async with httpx.AsyncClient(base_url=api.url, headers={"authorization": f"Bearer {other.key}"}) as stranger:
        yours = await post(stranger, "k1", asked())
    contents = [answer.json()["choices"][0]["message"]["content"] for answer in (mine, yours)]
    assert contents == ["mine", "yours"]


async def test_the_openai_client(api, fake):
    fake.will(Reply(text="only once"))
    headers = {"Idempotency-Key": "from-the-sdk"}
    async with openai.AsyncOpenAI(base_url=f"{api.url}/v1", api_key=api.key) as client:
        create = client.chat.completions.with_raw_response.create
        answers = [
            await create(model="gpt-4.1-mini", messages=asked()["messages"], extra_headers=headers) for _ in range(2)
        ]
        assert answers[0].parse().id == answers[1].parse().id
        assert answers[1].headers["idempotent-replayed"] == "true"
        texts = []
        for _ in range(2):
            stream = await client.chat.completions.create(
                model="gpt-4.1-mini",
                messages=asked("count")["messages"],
                stream=True,
                stream_options={"include_usage": True},
                extra_headers={"Idempotency-Key": "a-stream"},
            )
            chunks = [chunk async for chunk in stream]
            texts.append([chunk.model_dump() for chunk in chunks])
        assert texts[0] == texts[1]
    assert len(fake.requests) == 2


async def test_the_openai_client_waits_for_the_answer_under_way(api, fake):
    fake.will(Reply(text="worth waiting for", delay_s=0.5))
    async with openai.AsyncOpenAI(base_url=f"{api.url}/v1", api_key=api.key, max_retries=5) as client:

        async def ask() -> str:
            answer = await client.chat.completions.create(
                model="gpt-4.1-mini", messages=asked()["messages"], extra_headers={"Idempotency-Key": "k1"}
            )
            return answer.choices[0].message.content

        assert await asyncio.gather(ask(), ask()) == ["worth waiting for"] * 2
    assert len(fake.requests) == 1


def request_key(microdao: str, fingerprint: bytes = b"body") -> RequestKey:
    return RequestKey(microdao_id=microdao, key_id="key_1", idempotency_key="k", fingerprint=fingerprint)


ANSWER = StoredAnswer(status=200, headers={"content-type": "application/json"}, body=b"{}")


async def expire(database: Database, microdao: str, column: str) -> None:
    async with database.tenant(microdao) as connection:
        await connection.execute(f"UPDATE idempotent_request SET {column} = now()")


async def test_a_dead_owner_s_lease_ends(database, microdao):
    requests, key = IdempotentRequests(database), request_key(microdao)
    dead = await requests.begin(key)
    with pytest.raises(IdempotencyInProgress):
        await requests.begin(key)
    await requests.renew(key, dead)
    await expire(database, microdao, "lease_until")
    with pytest.raises(IdempotencyConflict):
        await requests.begin(request_key(microdao, b"another body"))
    alive = await requests.begin(key)
    assert alive != dead
    await requests.finish(key, dead, ANSWER)
    await requests.release(key, dead)
    with pytest.raises(IdempotencyInProgress):
        await requests.begin(key)
    await requests.finish(key, alive, ANSWER)
    assert await requests.begin(key) == ANSWER


async def test_a_day_later_the_key_is_new(database, microdao):
    requests, key = IdempotentRequests(database), request_key(microdao)
    await requests.finish(key, await requests.begin(key), ANSWER)
    await expire(database, microdao, "expires_at")
    assert isinstance(await requests.begin(request_key(microdao, b"another body")), str)
    await expire(database, microdao, "expires_at")
    assert await requests.sweep() >= 1
    assert await stored(database, microdao) == []


async def test_too_large_an_answer_is_refused_rather_than_given_twice(database, microdao):
    requests, key = IdempotentRequests(database), request_key(microdao)
    large = replace(ANSWER, body=b"x" * (MAX_ANSWER_BYTES + 1))
    await requests.finish(key, await requests.begin(key), large)
    with pytest.raises(IdempotencyConflict, match="too large"):
        await requests.begin(key)


async def test_of_many_claims_one_wins(database, microdao):
    requests, key = IdempotentRequests(database), request_key(microdao)
    outcomes = await asyncio.gather(*(requests.begin(key) for _ in range(40)), return_exceptions=True)
    assert sum(isinstance(outcome, str) for outcome in outcomes) == 1
    assert sum(isinstance(outcome, IdempotencyInProgress) for outcome in outcomes) == 39


async def test_the_header_is_documented(http):
    document = (await http.get("/openapi.json")).json()
    for path in (CHAT, PROXY, "/v1/embeddings"):
        parameters = document["paths"][path]["post"]["parameters"]
        assert "Idempotency-Key" in {one["name"] for one in parameters}, path
    assert "Idempotency-Key" not in json.dumps(document["paths"]["/v1/models"])
