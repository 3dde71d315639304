"""The OpenAI-compatible provider against a real HTTP server: what it sends, what it makes of answers and failures."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest

from shared.errors import (
    ApiError,
    ContextLengthExceeded,
    InvalidRequest,
    LlmTimeout,
    RateLimitExceeded,
    Unavailable,
    UpstreamError,
)
from shared.llm.providers.base import Delta, End, Endpoint, Quirks
from shared.llm.providers.http import HttpTransport
from shared.llm.providers.local import LocalProvider, list_models, local_base_url
from shared.llm.providers.openai_compatible import DIALECT
from shared.llm.providers.registry import DEEPSEEK_QUIRKS, OPENAI_QUIRKS
from shared.llm.providers.remote import RemoteProvider
from shared.wire.assemble import AnswerAssembler
from shared.wire.chat import ChatRequest, chunk, new_usage
from tests.fakes.openai_server import FakeOpenAI, Reply

CALLS = [
    {"name": "add", "arguments": {"a": 1, "b": 2}, "id": "call_one"},
    {"name": "now", "arguments": {}, "id": "call_two"},
]
TIMEOUT_S = 5.0
SHORT_S = 0.2


def request(**more: Any) -> ChatRequest:
    body = {"model": "cheap", "messages": [{"role": "user", "content": "say hello"}]}
    return ChatRequest.model_validate(body | more)


@pytest.fixture
async def fake() -> AsyncIterator[FakeOpenAI]:
    async with FakeOpenAI() as server:
        yield server


@pytest.fixture
async def provider(fake: FakeOpenAI) -> AsyncIterator[RemoteProvider]:
    made = remote(fake, OPENAI_QUIRKS)
    yield made
    await made.transport.close()


@pytest.fixture
async def impatient(fake: FakeOpenAI) -> AsyncIterator[RemoteProvider]:
    made = remote(fake, OPENAI_QUIRKS, timeout_s=SHORT_S)
    yield made
    await made.transport.close()


def remote(fake: FakeOpenAI, quirks: Quirks, *, timeout_s: float = TIMEOUT_S) -> RemoteProvider:
    endpoint = Endpoint(provider="openai", base_url=fake.base_url, api_key="sk-fake", key_variable="OPENAI_API_KEY")
    return RemoteProvider(endpoint=endpoint, dialect=DIALECT, quirks=quirks, transport=HttpTransport(timeout_s))


async def collect(provider: RemoteProvider, asked: ChatRequest) -> tuple[AnswerAssembler, list[Delta], End]:
    answer, deltas = AnswerAssembler(), []
    async with aclosing(provider.stream(asked, "gpt-4.1-mini")) as parts:
        async for part in parts:
            if isinstance(part, End):
                return answer, deltas, part
            deltas.append(part)
            answer.feed(chunk("id", 1, "cheap", part.delta))
    raise AssertionError("the stream has no end")


async def test_whole_answer(fake, provider):
    fake.will(Reply(text="hello there", usage={"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}))
    answer = await provider.complete(request(), "gpt-4.1-mini")
    assert answer.message["content"] == "hello there"
    assert answer.finish_reason == "stop"
    assert answer.usage == new_usage(9, 2)


async def test_what_is_sent(fake, provider):
    asked = request(
        metadata={"agent_id": "agent:sofia"},
        microdao_id="microdao:daarion",
        max_tokens=7,
        seed=3,
        response_format={"type": "json_object"},
        messages=[
            {"role": "developer", "content": "be brief"},
            {"role": "user", "content": [{"type": "text", "text": "hi"}], "name": "olena"},
            {"role": "assistant", "content": None, "reasoning_content": "hm"},
        ],
    )
    await provider.complete(asked, "gpt-4.1-mini")
    sent = fake.requests[0]
    assert sent.headers["authorization"] == "Bearer sk-fake"
    assert sent.body == {
        "model": "gpt-4.1-mini",
        "messages": [
            {"role": "developer", "content": "be brief"},
            {"role": "user", "content": [{"type": "text", "text": "hi"}], "name": "olena"},
            {"role": "assistant", "content": None},
        ],
        "max_completion_tokens": 7,
        "seed": 3,
        "response_format": {"type": "json_object"},
    }


async def test_quirks(fake):
    provider = remote(fake, DEEPSEEK_QUIRKS)
    asked = request(max_completion_tokens=7, messages=[{"role": "developer", "content": "be brief"}])
    await provider.complete(asked, "deepseek-chat")
    await provider.transport.close()
    assert fake.requests[0].body["max_tokens"] == 7
    assert fake.requests[0].body["messages"][0]["role"] == "system"
    assert "max_completion_tokens" not in fake.requests[0].body


async def test_usage_is_always_asked_for_in_a_stream(fake, provider):
    await collect(provider, request(stream=True, stream_options={"include_obfuscation": False}))
    assert fake.requests[0].body["stream"] is True
    assert fake.requests[0].body["stream_options"] == {"include_obfuscation": False, "include_usage": True}


async def test_streamed_text(fake, provider):
    usage = {
        "prompt_tokens": 10,
        "completion_tokens": 4,
        "prompt_tokens_details": {"cached_tokens": 6},
        "completion_tokens_details": {"reasoning_tokens": 1},
    }
    fake.will(Reply(text="one two three", usage=usage))
    answer, deltas, end = await collect(provider, request())
    assert [delta.delta for delta in deltas] == [{"content": "one "}, {"content": "two "}, {"content": "three"}]
    assert answer.message()["content"] == "one two three"
    assert end == End("stop", new_usage(10, 4, cached=6, reasoning=1))


async def test_reasoning_passes_through(fake, provider):
    fake.will(Reply(text="four", extra_delta={"reasoning_content": "two and two"}))
    answer, _, _ = await collect(provider, request())
    assert answer.message()["reasoning_content"] == "two and two"
    fake.will(Reply(text="four", extra_delta={"reasoning_content": "two and two"}))
    whole = await provider.complete(request(), "m")
    assert whole.message["reasoning_content"] == "two and two"


async def test_parallel_tool_calls(fake, provider):
    fake.will(Reply(text="let me see", tool_calls=CALLS))
    answer, deltas, end = await collect(provider, request())
    heads = [call for delta in deltas for call in delta.delta.get("tool_calls", []) if "id" in call]
    assert heads == [
        {"index": 0, "id": "call_one", "type": "function", "function": {"name": "add", "arguments": ""}},
        {"index": 1, "id": "call_two", "type": "function", "function": {"name": "now", "arguments": ""}},
    ]
    assert [call["function"] for call in answer.message()["tool_calls"]] == [
        {"name": "add", "arguments": '{"a": 1, "b": 2}'},
        {"name": "now", "arguments": "{}"},
    ]
    assert end.finish_reason == "tool_calls"


async def test_whole_tool_calls(fake, provider):
    fake.will(Reply(tool_calls=CALLS))
    answer = await provider.complete(request(), "m")
    assert answer.message["content"] is None
    assert [call["id"] for call in answer.message["tool_calls"]] == ["call_one", "call_two"]
    assert answer.finish_reason == "tool_calls"


async def test_calls_without_ids_and_with_one_index_come_apart(fake, provider):
    fake.will(Reply(tool_calls=CALLS, without_call_ids=True, finish_reason="stop"))
    answer, _, end = await collect(provider, request())
    calls = answer.message()["tool_calls"]
    assert [call["function"]["name"] for call in calls] == ["add", "now"]
    assert len({call["id"] for call in calls} - {""}) == 2
    assert end.finish_reason == "tool_calls"


async def test_missing_usage_is_said_to_be_missing(fake, provider):
    fake.will(Reply(text="hi", omit_usage=True), Reply(text="hi", omit_usage=True))
    assert (await provider.complete(request(), "m")).usage is None
    assert (await collect(provider, request()))[2].usage is None


async def test_deepseek_counts_cached_tokens_by_another_name(fake, provider):
    fake.will(Reply(text="hi", usage={"prompt_tokens": 9, "completion_tokens": 1, "prompt_cache_hit_tokens": 5}))
    assert (await provider.complete(request(), "m")).usage == new_usage(9, 1, cached=5)


FAILURES: list[tuple[Reply, type[ApiError]]] = [
    (Reply(status=400, body={"message": "temperature is too hot", "param": "temperature"}), InvalidRequest),
    (Reply(status=422), InvalidRequest),
    (Reply(status=400, body={"code": "context_length_exceeded", "message": "too long"}), ContextLengthExceeded),
    (Reply(status=400, body={"message": "This model's maximum context length is 8192"}), ContextLengthExceeded),
    (Reply(status=401, body={"message": "Incorrect API key provided: sk-fake"}), UpstreamError),
    (Reply(status=402), Unavailable),
    (Reply(status=404, body={"code": "model_not_found", "message": "no such model"}), UpstreamError),
    (Reply(status=408), LlmTimeout),
    (Reply(status=429), RateLimitExceeded),
    (Reply(status=429, body={"code": "insufficient_quota", "message": "pay"}), Unavailable),
    (Reply(status=500, body="<html>oops</html>"), UpstreamError),
    (Reply(status=503), Unavailable),
    (Reply(status=504), LlmTimeout),
]


@pytest.mark.parametrize(("reply", "error"), FAILURES, ids=lambda value: getattr(value, "status", None))
@pytest.mark.parametrize("streamed", [False, True])
async def test_every_failure_has_its_error(fake, provider, reply, error, streamed):
    fake.will(replace(reply))
    with pytest.raises(ApiError) as caught:
        await (collect(provider, request()) if streamed else provider.complete(request(), "m"))
    assert type(caught.value) is error
    assert "sk-fake" not in caught.value.message
    assert len(fake.requests) == 1


async def test_details_of_a_refusal_reach_the_caller(fake, provider):
    fake.will(Reply(status=400, body={"message": "temperature is too hot", "param": "temperature"}))
    with pytest.raises(InvalidRequest, match="temperature is too hot") as caught:
        await provider.complete(request(), "m")
    assert caught.value.param == "temperature"


@pytest.mark.parametrize(("sent", "told"), [("7", "7"), ("0.2", "1"), ("soon", "1"), (None, "1")])
async def test_retry_after_is_whole_seconds(fake, provider, sent, told):
    fake.will(Reply(status=429, headers={"retry-after": sent} if sent else {}))
    with pytest.raises(RateLimitExceeded) as caught:
        await provider.complete(request(), "m")
    assert caught.value.headers["retry-after"] == told


@pytest.mark.parametrize("streamed", [False, True])
async def test_silence_is_a_timeout(fake, impatient, streamed):
    fake.will(Reply(text="too late", delay_s=10))
    with pytest.raises(LlmTimeout):
        await (collect(impatient, request()) if streamed else impatient.complete(request(), "m"))


async def test_silence_in_the_middle_is_a_timeout(fake, impatient):
    fake.will(Reply(text="one two three", hang_after=1))
    with pytest.raises(LlmTimeout):
        await collect(impatient, request())


BROKEN = [
    Reply(text="one two three", close_after=1),
    Reply(text="one two three", malformed_after=1),
    Reply(text="one two three", error_after=1),
    Reply(garbage=True),
]


@pytest.mark.parametrize("reply", BROKEN, ids=["closed", "malformed", "error event", "garbage"])
async def test_a_broken_stream_is_an_upstream_error(fake, provider, reply):
    fake.will(replace(reply))
    with pytest.raises(UpstreamError):
        await collect(provider, request())


async def test_garbage_instead_of_an_answer(fake, provider):
    fake.will(Reply(garbage=True))
    with pytest.raises(UpstreamError):
        await provider.complete(request(), "m")


async def test_a_stream_without_done_but_with_a_finish_reason_is_whole(fake, provider):
    fake.will(Reply(text="hi", omit_done=True))
    answer, _, end = await collect(provider, request())
    assert answer.message()["content"] == "hi"
    assert end.finish_reason == "stop"


async def test_nobody_listens(fake, provider):
    await fake.stop()
    with pytest.raises(Unavailable):
        await provider.complete(request(), "m")


async def test_closing_the_stream_closes_the_upstream(fake, provider):
    fake.will(Reply(text="one two three", hang_after=1))
    async with aclosing(provider.stream(request(), "m")) as parts:
        assert await anext(parts) == Delta({"content": "one "})
    await fake.until_disconnected()


async def test_a_local_server_s_models_are_found(fake):
    import asyncio

    names = await asyncio.to_thread(list_models, fake.base_url)
    assert names == list(fake.models)
    local = LocalProvider(fake.base_url, HttpTransport(1.0), is_configured=True)
    assert await asyncio.to_thread(local.resolve, "*") == fake.models[0]


def test_no_local_server():
    nobody = "http://127.0.0.1:9/v1"
    assert list_models(nobody) == []
    assert LocalProvider(nobody, HttpTransport(1.0), is_configured=False).resolve("*") is None
    assert LocalProvider(nobody, HttpTransport(1.0), is_configured=True).resolve("*") == "default"


@pytest.mark.parametrize(
    ("configured", "url"),
    [
        ("", "http://127.0.0.1:11434/v1"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080/v1"),
        ("http://127.0.0.1:8080/", "http://127.0.0.1:8080/v1"),
        ("http://127.0.0.1:8080/api/v1", "http://127.0.0.1:8080/api/v1"),
    ],
)
def test_where_the_local_server_is(configured, url):
    assert local_base_url(configured) == url
