"""Kept answers in Postgres: found by the same tenant until their time is over, within the tenant's room."""

import asyncio
from typing import Any

import pytest

from shared.db.database import Database, fetch_all
from shared.ids import new_id
from shared.llm.answers.response_cache import MAX_ANSWER_BYTES, CacheKey, ResponseCache, cache_key
from shared.llm.caller import Caller
from shared.llm.safety.policy import SanitizePolicy
from shared.wire.chat import ChatRequest, completion, new_usage


def key_of(microdao: str, text: str = "hello") -> CacheKey:
    request = ChatRequest.model_validate({"model": "smart", "messages": [{"role": "user", "content": text}]})
    return cache_key(request, Caller(microdao_id=microdao), SanitizePolicy())


def answer(text: str = "hi", finish_reason: str = "stop") -> dict[str, Any]:
    made = completion("chatcmpl-old", 1, "smart", {"content": text}, finish_reason, new_usage(3, 4))
    return made | {"daarion": {"cost_microusd": 12, "provider": "openai", "provider_model": "gpt"}}


async def rows(database: Database, microdao: str) -> list[dict[str, Any]]:
    async with database.tenant(microdao) as connection:
        return await fetch_all(connection, "SELECT * FROM llm_response_cache ORDER BY created_at")


@pytest.fixture
def cache(database: Database) -> ResponseCache:
    return ResponseCache(database)


async def test_found_again_as_a_new_answer_that_costs_nothing(cache, microdao):
    key = key_of(microdao)
    assert await cache.find(key) is None
    assert await cache.keep(key, answer(), 60)
    found = await cache.find(key)
    assert found["choices"] == answer()["choices"]
    assert found["usage"] == answer()["usage"]
    assert found["daarion"] == {"cached": True, "cost_microusd": 0}
    assert found["id"] != "chatcmpl-old"
    assert found["created"] > 1
    await cache.keep(key, answer("newer"), 60)
    assert (await cache.find(key))["choices"][0]["message"]["content"] == "newer"


async def test_another_tenant_and_another_question_find_nothing(cache, database, microdao):
    await cache.keep(key_of(microdao), answer(), 60)
    assert await cache.find(key_of(microdao, "hello?")) is None
    other = f"microdao:{new_id('test')}"
    assert await cache.find(CacheKey(other, "smart", key_of(microdao).digest)) is None


async def test_answers_expire_and_are_swept(cache, database, microdao):
    await cache.keep(key_of(microdao, "old"), answer(), 60)
    await cache.keep(key_of(microdao, "new"), answer(), 60)
    async with database.tenant(microdao) as connection:
        await connection.execute(
            "UPDATE llm_response_cache SET expires_at = now() WHERE digest = %s", (key_of(microdao, "old").digest,)
        )
    assert await cache.find(key_of(microdao, "old")) is None
    assert await cache.sweep() >= 1
    assert [row["digest"] for row in await rows(database, microdao)] == [key_of(microdao, "new").digest]


@pytest.mark.parametrize("made", [answer(finish_reason="length"), answer("x" * MAX_ANSWER_BYTES)])
async def test_what_is_not_kept(cache, database, microdao, made):
    assert not await cache.keep(key_of(microdao), made, 60)
    assert await rows(database, microdao) == []


async def test_a_tenant_s_room_is_bounded_even_when_many_keep_at_once(database, microdao):
    cache = ResponseCache(database, max_tenant_bytes=5000)
    await asyncio.gather(*(cache.keep(key_of(microdao, f"q{number}"), answer("x" * 700), 60) for number in range(20)))
    kept = await rows(database, microdao)
    assert 4 <= len(kept) <= 6
    assert sum(row["bytes"] for row in kept) <= 5000
    await cache.keep(key_of(microdao, "last"), answer("x" * 700), 60)
    assert (await rows(database, microdao))[-1]["digest"] == key_of(microdao, "last").digest


async def test_a_tool_call_is_kept(cache, microdao):
    made = answer(finish_reason="tool_calls")
    call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    made["choices"][0]["message"] |= {"content": None, "tool_calls": [call]}
    assert await cache.keep(key_of(microdao), made, 60)
    assert (await cache.find(key_of(microdao)))["choices"][0]["message"]["tool_calls"] == [call]
