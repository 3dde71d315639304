"""Anthropic's provider against a server that speaks its format: failures, faults, and what is refused before a call."""

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
    TooLarge,
    Unavailable,
    UnsupportedParameter,
    UpstreamError,
)
from shared.llm.providers.anthropic import API_VERSION, DIALECT
from shared.llm.providers.anthropic_versions import version
from shared.llm.providers.base import Delta, End, Endpoint, Quirks
from shared.llm.providers.http import HttpTransport
from shared.llm.providers.remote import RemoteProvider
from shared.wire.assemble import AnswerAssembler
from shared.wire.chat import ChatRequest, chunk, new_usage
from shared.wire.embeddings import EmbeddingRequest
from tests.fakes.anthropic_server import FakeAnthropic, Reply

MODEL = "claude-haiku-4-5"
WEATHER = [{"type": "function", "function": {"name": "weather"}}]
TIMEOUT_S = 5.0
SHORT_S = 0.2


def request(**more: Any) -> ChatRequest:
    body = {"model": "claude-haiku", "messages": [{"role": "user", "content": "say hello"}]}
    return ChatRequest.model_validate(body | more)


@pytest.fixture
async def fake() -> AsyncIterator[FakeAnthropic]:
    async with FakeAnthropic() as server:
        yield server


@pytest.fixture
async def provider(fake: FakeAnthropic) -> AsyncIterator[RemoteProvider]:
    made = remote(fake, TIMEOUT_S)
    yield made
    await made.transport.close()


@pytest.fixture
async def impatient(fake: FakeAnthropic) -> AsyncIterator[RemoteProvider]:
    made = remote(fake, SHORT_S)
    yield made
    await made.transport.close()


def remote(fake: FakeAnthropic, timeout_s: float) -> RemoteProvider:
    endpoint = Endpoint(
        provider="anthropic", base_url=fake.base_url, api_key="sk-ant-fake", key_variable="ANTHROPIC_API_KEY"
    )
    return RemoteProvider(endpoint=endpoint, dialect=DIALECT, quirks=Quirks(), transport=HttpTransport(timeout_s))


def said(part: dict[str, Any]) -> dict[str, Any]:
    """A request's messages: one of a user, with this part."""
    return {"messages": [{"role": "user", "content": [part]}]}


def image(url: Any) -> dict[str, Any]:
    return said({"type": "image_url", "image_url": url})


async def collect(provider: RemoteProvider, asked: ChatRequest) -> tuple[AnswerAssembler, list[Delta], End]:
    answer, deltas = AnswerAssembler(), []
    async with aclosing(provider.stream(asked, MODEL)) as parts:
        async for part in parts:
            if isinstance(part, End):
                return answer, deltas, part
            deltas.append(part)
            answer.feed(chunk("id", 1, "claude-haiku", part.delta))
    raise AssertionError("the stream has no end")


async def test_the_call_s_address_and_headers(fake, provider):
    await provider.complete(request(), MODEL)
    sent = fake.requests[0]
    assert sent.path == "/v1/messages"
    assert sent.headers["x-api-key"] == "sk-ant-fake"
    assert sent.headers["anthropic-version"] == API_VERSION


def test_a_base_url_that_ends_in_v1_is_the_same():
    endpoint = Endpoint(provider="anthropic", base_url="https://api.anthropic.com/v1/", api_key="k")
    assert DIALECT.to_upstream(request(), MODEL, endpoint, Quirks()).url == "https://api.anthropic.com/v1/messages"


async def test_a_streamed_answer_is_the_whole_answer(fake, provider):
    reply = Reply(
        text="let me see",
        thinking="two tools",
        redacted="ZGF0YQ==",
        tool_calls=[
            {"name": "add", "arguments": {"a": 1, "b": 2}, "id": "toolu_1"},
            {"name": "now", "id": "toolu_2"},
        ],
        usage={"input_tokens": 10, "cache_read_input_tokens": 5, "output_tokens": 7},
    )
    fake.will(replace(reply), replace(reply))
    whole = await provider.complete(request(), MODEL)
    streamed, _, end = await collect(provider, request())
    message = streamed.message()
    for made in (message, whole.message):
        for call in made["tool_calls"]:
            call["function"]["arguments"] = call["function"]["arguments"].replace(" ", "")
    assert message == {"role": "assistant", **whole.message}
    assert end == End("tool_calls", new_usage(15, 7, cached=5))
    assert (whole.finish_reason, whole.usage) == (end.finish_reason, end.usage)


async def test_a_turn_goes_round(fake, provider):
    """What came out of one answer goes into the next request as Anthropic wants it: the fake refuses anything else."""
    fake.will(Reply(text="wait", thinking="hm", tool_calls=[{"name": "now"}, {"name": "now"}]), Reply(text="noon"))
    first = request(tools=[{"type": "function", "function": {"name": "now"}}])
    answer, _, _ = await collect(provider, first)
    message = answer.message()
    results = [{"role": "tool", "tool_call_id": call["id"], "content": ""} for call in message["tool_calls"]]
    asked = first.model_dump(exclude_unset=True)
    asked["messages"] += [message, *results]
    final = await provider.complete(ChatRequest.model_validate(asked), MODEL)
    assert final.message["content"] == "noon"
    [thinking, text, *calls] = fake.requests[1].body["messages"][1]["content"]
    assert thinking == {"type": "thinking", "thinking": "hm", "signature": "c2lnbmF0dXJl"}
    assert text == {"type": "text", "text": "wait"}
    assert [call["id"] for call in calls] == ["toolu_fake_0", "toolu_fake_1"]


FAILURES: list[tuple[Reply, type[ApiError]]] = [
    (Reply(status=400, body={"message": "temperature: range: 0..1"}), InvalidRequest),
    (Reply(status=400, body={"message": "prompt is too long: 210000 tokens > 200000 maximum"}), ContextLengthExceeded),
    (
        Reply(status=400, body={"message": "input length and `max_tokens` exceed context limit: 9 + 9 > 10"}),
        ContextLengthExceeded,
    ),
    (Reply(status=400, body={"message": "Your credit balance is too low to access the Anthropic API."}), Unavailable),
    (Reply(status=401, body={"message": "invalid x-api-key"}), UpstreamError),
    (Reply(status=402), Unavailable),
    (Reply(status=403), UpstreamError),
    (Reply(status=404, body={"message": "model: claude-nope"}), UpstreamError),
    (Reply(status=413), TooLarge),
    (Reply(status=429), RateLimitExceeded),
    (Reply(status=500), UpstreamError),
    (Reply(status=500, body="<html>oops</html>"), UpstreamError),
    (Reply(status=504), LlmTimeout),
    (Reply(status=529), Unavailable),
]


@pytest.mark.parametrize(("reply", "error"), FAILURES, ids=lambda value: getattr(value, "status", None))
@pytest.mark.parametrize("streamed", [False, True])
async def test_every_failure_has_its_error(fake, provider, reply, error, streamed):
    fake.will(replace(reply))
    with pytest.raises(ApiError) as caught:
        await (collect(provider, request()) if streamed else provider.complete(request(), MODEL))
    assert type(caught.value) is error
    assert "sk-ant-fake" not in caught.value.message
    assert len(fake.requests) == 1


async def test_a_refused_key_names_its_variable(fake, provider):
    fake.will(Reply(status=401))
    with pytest.raises(UpstreamError, match="ANTHROPIC_API_KEY"):
        await provider.complete(request(), MODEL)


async def test_the_field_at_fault_is_the_parameter(fake, provider):
    fake.will(Reply(status=400, body={"message": "max_tokens: 9 > 8, which is the maximum"}))
    with pytest.raises(InvalidRequest, match="which is the maximum") as caught:
        await provider.complete(request(), MODEL)
    assert caught.value.param == "max_tokens"


async def test_retry_after_is_passed_on(fake, provider):
    fake.will(Reply(status=429, headers={"retry-after": "7"}))
    with pytest.raises(RateLimitExceeded) as caught:
        await provider.complete(request(), MODEL)
    assert caught.value.headers["retry-after"] == "7"


BROKEN: list[tuple[Reply, type[ApiError]]] = [
    (Reply(text="one two three", close_after=1), UpstreamError),
    (Reply(text="one two three", malformed_after=1), UpstreamError),
    (Reply(text="one two three", error_after=1), Unavailable),
    (Reply(garbage=True), UpstreamError),
    (Reply(raw='event: message_start\ndata: {"type":"message_start"}\n\n'), UpstreamError),
    (Reply(raw='data: {"type":"content_block_delta","index":4,"delta":{}}\n\n'), UpstreamError),
    (Reply(raw=""), UpstreamError),
]


@pytest.mark.parametrize(("reply", "error"), BROKEN)
async def test_a_broken_stream(fake, provider, reply, error):
    fake.will(replace(reply))
    with pytest.raises(ApiError) as caught:
        await collect(provider, request())
    assert type(caught.value) is error


@pytest.mark.parametrize("raw", ["[]", "{}", '{"type":"message","content":[{}]}', '{"type":"message","content":[1]}'])
async def test_garbage_instead_of_an_answer(fake, provider, raw):
    fake.will(Reply(raw=raw))
    with pytest.raises(UpstreamError):
        await provider.complete(request(), MODEL)


async def test_a_stream_that_lacks_only_its_last_event_is_whole(fake, provider):
    fake.will(Reply(text="hi", omit_done=True))
    answer, _, end = await collect(provider, request())
    assert (answer.message()["content"], end.finish_reason) == ("hi", "stop")


async def test_missing_usage_is_said_to_be_missing(fake, provider):
    fake.will(Reply(text="hi", omit_usage=True), Reply(text="hi", omit_usage=True))
    assert (await provider.complete(request(), MODEL)).usage is None
    assert (await collect(provider, request()))[2].usage is None


async def test_the_last_report_of_usage_wins_field_by_field(fake, provider):
    first = {"input_tokens": 10, "cache_read_input_tokens": 4, "output_tokens": 3}
    fake.will(Reply(text="hi", usage=first, delta_usage={"input_tokens": 12, "cache_read_input_tokens": None}))
    assert (await collect(provider, request()))[2].usage == new_usage(16, 3, cached=4)


@pytest.mark.parametrize("streamed", [False, True])
async def test_silence_is_a_timeout(fake, impatient, streamed):
    fake.will(Reply(text="too late", delay_s=10))
    with pytest.raises(LlmTimeout):
        await (collect(impatient, request()) if streamed else impatient.complete(request(), MODEL))


async def test_closing_the_stream_closes_the_upstream_and_leaves_the_prompt_s_count(fake, provider):
    fake.will(Reply(text="one two", hang_after=1, usage={"input_tokens": 9, "output_tokens": 2}))
    async with aclosing(provider.stream(request(), MODEL)) as parts:
        assert await anext(parts) == Delta({"content": "one "}, usage=new_usage(9, 1))
    await fake.until_disconnected()


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"seed": 3}, MODEL, "seed"),
    ({"frequency_penalty": 0.5}, MODEL, "frequency_penalty"),
    ({"logprobs": True}, MODEL, "logprobs"),
    ({"logit_bias": {"50256": -100}}, MODEL, "logit_bias"),
    ({"functions": [{"name": "old"}]}, MODEL, "functions"),
    ({"web_search_options": {}}, MODEL, "web_search_options"),
    ({"chat_template_kwargs": {}}, MODEL, "chat_template_kwargs"),
    ({"service_tier": "flex"}, MODEL, "service_tier"),
    ({"stop": ["\n"]}, MODEL, "stop"),
    ({"temperature": 0.2}, "claude-sonnet-5-5", "temperature"),
    ({"top_p": 0.5}, "claude-opus-4-7", "top_p"),
    ({"tool_choice": {"type": "allowed_tools"}, "tools": WEATHER}, MODEL, "tool_choice"),
    ({"messages": [{"role": "function", "content": "x"}]}, MODEL, "messages.0"),
    (said({"type": "input_audio", "input_audio": {}}), MODEL, "messages.0.content.0"),
    (said({"type": "file", "file": {"file_id": "file-1"}}), MODEL, "messages.0.content.0.file"),
    (image({"url": "data:image/tiff;base64,AA=="}), MODEL, "messages.0.content.0.image_url.url"),
]


@pytest.mark.parametrize(("more", "model", "param"), REFUSED, ids=lambda value: value if isinstance(value, str) else "")
def test_what_would_be_lost_is_refused_by_name(more, model, param):
    with pytest.raises(UnsupportedParameter) as caught:
        translate(request(**more), model)
    assert (caught.value.param, caught.value.code, caught.value.status) == (param, "unsupported_parameter", 400)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"stop": 5}, "stop"),
    ({"stop": [5]}, "stop"),
    ({"top_p": "high"}, "top_p"),
    ({"reasoning_effort": "enormous"}, "reasoning_effort"),
    ({"reasoning_effort": 5}, "reasoning_effort"),
    ({"thinking": "yes"}, "thinking"),
    ({"response_format": "json"}, "response_format.type"),
    ({"response_format": {"type": "json_schema", "json_schema": 3}}, "response_format"),
    ({"tools": WEATHER, "parallel_tool_calls": "no"}, "parallel_tool_calls"),
    ({"tools": WEATHER, "tool_choice": {"type": "function"}}, "tool_choice.function.name"),
    ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.tool_call_id"),
    (image(3), "messages.0.content.0.image_url"),
    (image("http://example.org/a"), "messages.0.content.0.image_url.url"),
    (image("data:image/png;base64,?"), "messages.0.content.0.image_url.url"),
]


@pytest.mark.parametrize(("more", "param"), WRONG)
def test_a_value_of_the_wrong_kind_is_the_caller_s_fault(more, param):
    with pytest.raises(InvalidRequest) as caught:
        translate(request(**more), MODEL)
    assert (caught.value.param, type(caught.value)) == (param, InvalidRequest)


def translate(asked: ChatRequest, model: str = MODEL) -> dict[str, Any]:
    endpoint = Endpoint(provider="anthropic", base_url="http://127.0.0.1:9", api_key="k")
    return dict(DIALECT.to_upstream(asked, model, endpoint, Quirks()).body)


@pytest.mark.parametrize(
    ("more", "model", "sent"),
    [
        ({"reasoning_effort": "low"}, MODEL, {"type": "enabled", "budget_tokens": 1024}),
        ({"reasoning_effort": "medium", "max_tokens": 1100}, MODEL, None),
        ({"reasoning_effort": "low", "tools": WEATHER, "tool_choice": "required"}, MODEL, None),
        ({"reasoning_effort": "none"}, "claude-sonnet-5", {"type": "disabled"}),
        ({"reasoning_effort": "high"}, "claude-opus-4-6", {"type": "adaptive"}),
        ({"reasoning_effort": "high"}, "claude-sonnet-5", {"type": "adaptive", "display": "summarized"}),
        ({"thinking": {"type": "disabled"}, "reasoning_effort": "high"}, MODEL, {"type": "disabled"}),
    ],
)
def test_thinking(more, model, sent):
    assert translate(request(**more), model).get("thinking") == sent


def test_thinking_waits_for_a_turn_of_its_own():
    """A history of calls without the thinking that led to them cannot go on with thinking."""
    history = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "tool_calls": [{"id": "call_1", "function": {"name": "weather", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
    ]
    assert "thinking" not in translate(request(messages=history, tools=WEATHER, reasoning_effort="high"))


@pytest.mark.parametrize(
    ("choice", "parallel", "sent"),
    [
        (None, None, None),
        ("auto", True, {"type": "auto"}),
        (None, False, {"type": "auto", "disable_parallel_tool_use": True}),
        ("none", False, {"type": "none"}),
        (
            {"type": "function", "function": {"name": "weather"}},
            False,
            {"type": "tool", "name": "weather", "disable_parallel_tool_use": True},
        ),
    ],
)
def test_tool_choice(choice, parallel, sent):
    body = translate(request(tools=WEATHER, tool_choice=choice, parallel_tool_calls=parallel))
    assert body.get("tool_choice") == sent


def test_a_prefill_ends_without_blanks_and_a_lone_system_prompt_has_a_turn():
    messages = [{"role": "user", "content": "Sun?"}, {"role": "assistant", "content": "It is (  "}]
    assert translate(request(messages=messages))["messages"][-1]["content"][-1]["text"] == "It is ("
    alone = translate(request(messages=[{"role": "system", "content": "Speak."}]))
    assert alone["messages"][0]["role"] == "user"


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("claude-sonnet-4-5-20250929", (4, 5)),
        ("claude-opus-4-20250514", (4, 0)),
        ("claude-3-5-haiku-latest", (3, 5)),
        ("claude-sonnet-5", (5, 0)),
        ("us.anthropic.claude-opus-4-8-v1:0", (4, 8)),
        ("glm-4.6", (0, 0)),
    ],
)
def test_versions(name, found):
    assert version(name) == found


async def test_there_are_no_embeddings(provider):
    with pytest.raises(UnsupportedParameter):
        await provider.embed(EmbeddingRequest(input="hi", model="m"), "m")
