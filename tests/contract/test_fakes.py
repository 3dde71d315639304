"""The fake providers are faithful: the vendors' own client libraries take them for the real thing."""

from collections.abc import AsyncIterator
from typing import Any

import anthropic
import openai
import pytest

from tests.fakes.anthropic_server import FakeAnthropic
from tests.fakes.anthropic_server import Reply as AnthropicReply
from tests.fakes.openai_server import FakeOpenAI
from tests.fakes.openai_server import Reply as OpenAIReply

MODEL = "claude-haiku-4-5"
HELLO: list[Any] = [{"role": "user", "content": "hello"}]
TOOLS: list[Any] = [{"name": "add", "input_schema": {"type": "object"}}]


@pytest.fixture
async def fake() -> AsyncIterator[FakeAnthropic]:
    async with FakeAnthropic() as server:
        yield server


@pytest.fixture
async def client(fake: FakeAnthropic) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(base_url=fake.base_url, api_key="sk-ant-fake", max_retries=0) as made:
        yield made


REPLY = AnthropicReply(
    text="let me see",
    thinking="add them",
    redacted="ZGF0YQ==",
    tool_calls=[{"name": "add", "arguments": {"a": 1}, "id": "toolu_1"}, {"name": "add", "id": "toolu_2"}],
    usage={"input_tokens": 10, "cache_read_input_tokens": 5, "cache_creation_input_tokens": 3, "output_tokens": 7},
)


async def test_anthropic_s_client_reads_a_whole_message(fake, client):
    fake.will(REPLY)
    message = await client.messages.create(model=MODEL, max_tokens=10, messages=HELLO, tools=TOOLS)
    assert [block.type for block in message.content] == [
        "thinking",
        "redacted_thinking",
        "text",
        "tool_use",
        "tool_use",
    ]
    assert message.stop_reason == "tool_use"
    assert (message.usage.input_tokens, message.usage.output_tokens) == (10, 7)


async def test_anthropic_s_client_reads_a_stream(fake, client):
    fake.will(REPLY, REPLY)
    whole = await client.messages.create(model=MODEL, max_tokens=10, messages=HELLO, tools=TOOLS)
    async with client.messages.stream(model=MODEL, max_tokens=10, messages=HELLO, tools=TOOLS) as stream:
        streamed = await stream.get_final_message()
    assert [block.to_dict() for block in streamed.content] == [block.to_dict() for block in whole.content]
    assert (streamed.stop_reason, streamed.usage.output_tokens) == ("tool_use", 7)
    assert streamed.usage.cache_creation_input_tokens == 3


ANTHROPIC_ERRORS: list[tuple[int, type[anthropic.APIStatusError], str]] = [
    (400, anthropic.BadRequestError, "invalid_request_error"),
    (401, anthropic.AuthenticationError, "authentication_error"),
    (403, anthropic.PermissionDeniedError, "permission_error"),
    (404, anthropic.NotFoundError, "not_found_error"),
    (413, anthropic.APIStatusError, "request_too_large"),
    (429, anthropic.RateLimitError, "rate_limit_error"),
    (500, anthropic.InternalServerError, "api_error"),
    (504, anthropic.APIStatusError, "timeout_error"),
    (529, anthropic.InternalServerError, "overloaded_error"),
]


@pytest.mark.parametrize(("status", "error", "kind"), ANTHROPIC_ERRORS)
async def test_anthropic_s_client_knows_every_error(fake, client, status, error, kind):
    fake.will(AnthropicReply(status=status))
    with pytest.raises(error) as caught:
        await client.messages.create(model=MODEL, max_tokens=10, messages=HELLO)
    assert (caught.value.status_code, caught.value.type) == (status, kind)


async def test_anthropic_s_client_knows_an_error_in_a_stream(fake, client):
    fake.will(AnthropicReply(text="one two", error_after=1))
    stream = await client.messages.create(model=MODEL, max_tokens=10, messages=HELLO, stream=True)
    with pytest.raises(anthropic.APIStatusError) as caught:
        [event async for event in stream]
    assert caught.value.type == "overloaded_error"


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [{"role": "assistant", "content": "hi"}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": ""}]}]},
        {"messages": [{"role": "user", "content": "hi"}, {"role": "system", "content": "x"}]},
        {"messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "none"}]}]},
        {"extra_body": {"seed": 3}},
        {"extra_body": {"temperature": 1.5}},
    ],
)
async def test_the_fake_refuses_what_anthropic_refuses(client, body):
    with pytest.raises(anthropic.BadRequestError):
        await client.messages.create(**{"model": MODEL, "max_tokens": 10, "messages": HELLO, **body})


@pytest.fixture
async def fake_openai() -> AsyncIterator[FakeOpenAI]:
    async with FakeOpenAI() as server:
        yield server


async def test_openai_s_client_reads_the_other_fake(fake_openai):
    reply = OpenAIReply(text="let me see", tool_calls=[{"name": "add", "arguments": {"a": 1}, "id": "call_1"}])
    fake_openai.will(reply, reply, OpenAIReply(status=429))
    async with openai.AsyncOpenAI(base_url=fake_openai.base_url, api_key="sk-fake", max_retries=0) as client:
        whole = await client.chat.completions.create(model="m", messages=HELLO)
        async with client.chat.completions.stream(model="m", messages=HELLO) as stream:
            streamed = await stream.get_final_completion()
        assert whole.choices[0].message.content == streamed.choices[0].message.content == "let me see"
        assert streamed.choices[0].message.tool_calls[0].function.arguments == '{"a": 1}'
        with pytest.raises(openai.RateLimitError):
            await client.chat.completions.create(model="m", messages=HELLO)
        found = await client.embeddings.create(model="e", input=["a", "bb"], encoding_format="float")
        assert [one.embedding for one in found.data] == [[1.0, 0.0], [2.0, 1.0]]
