"""openai-python against our API with fake providers behind it: answers of each provider, embeddings, errors."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import openai
import pytest
import yaml

from shared.db.database import Database, Row, fetch_all
from shared.settings import Settings
from shared.wire.embeddings import decode_base64
from tests.fakes.anthropic_server import FakeAnthropic
from tests.fakes.anthropic_server import Reply as AnthropicReply
from tests.fakes.openai_server import FakeOpenAI, Reply
from tests.integration.api_server import Api, running_api

HELLO: list[Any] = [{"role": "user", "content": "hello"}]
TOOLS: list[Any] = [{"type": "function", "function": {"name": "now", "parameters": {"type": "object"}}}]


@pytest.fixture(scope="module")
async def openai_fake() -> AsyncIterator[FakeOpenAI]:
    async with FakeOpenAI() as fake:
        yield fake


@pytest.fixture(scope="module")
async def anthropic_fake() -> AsyncIterator[FakeAnthropic]:
    async with FakeAnthropic() as fake:
        yield fake


@pytest.fixture
def upstream(openai_fake: FakeOpenAI) -> FakeOpenAI:
    openai_fake.reset()
    return openai_fake


@pytest.fixture
def claude(anthropic_fake: FakeAnthropic) -> FakeAnthropic:
    anthropic_fake.reset()
    return anthropic_fake


@pytest.fixture(scope="session")
def models_file(settings: Settings, session_folder: Path) -> Path:
    """The models as they are, each route tried once and never avoided: what a failure becomes counts here."""
    document = yaml.safe_load(settings.models_file.read_text(encoding="utf-8"))
    for model in document["models"].values():
        for route in model["routes"]:
            route["attempts"] = 1
    document["circuit"]["min_calls"] = 1000
    path = session_folder / "models_tried_once.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
async def api(
    settings: Settings, models_file: Path, openai_fake: FakeOpenAI, anthropic_fake: FakeAnthropic
) -> AsyncIterator[Api]:
    ours = replace(
        settings,
        models_file=models_file,
        openai_api_key="sk-fake",
        openai_base_url=openai_fake.base_url,
        anthropic_api_key="sk-ant-fake",
        anthropic_base_url=anthropic_fake.base_url,
    )
    async with running_api(ours) as running:
        yield running


@pytest.fixture
async def client(api: Api, microdao: str) -> AsyncIterator[openai.AsyncOpenAI]:
    member = await api.for_member(microdao)
    async with openai.AsyncOpenAI(base_url=f"{api.url}/v1", api_key=member.key, max_retries=0) as made:
        yield made


async def ledger(database: Database, microdao: str) -> list[Row]:
    async with database.tenant(microdao) as connection:
        return await fetch_all(connection, "SELECT * FROM llm_ledger ORDER BY id")


async def read_into(seen: list[str], stream: Any) -> None:
    async for chunk in stream:
        seen.append(chunk.choices[0].delta.content or "")


async def test_claude_by_openai_s_client(client, claude, database, microdao):
    claude.will(
        AnthropicReply(
            text="let me see",
            thinking="the clock",
            tool_calls=[{"name": "now", "id": "toolu_1"}],
            usage={
                "input_tokens": 100,
                "cache_read_input_tokens": 1000,
                "cache_creation_input_tokens": 200,
                "output_tokens": 50,
            },
        ),
        AnthropicReply(text="noon"),
    )
    async with client.chat.completions.stream(
        model="claude-haiku", messages=HELLO, tools=TOOLS, stream_options={"include_usage": True}
    ) as stream:
        final = await stream.get_final_completion()
    message = final.choices[0].message
    assert message.content == "let me see"
    assert message.tool_calls[0].function.name == "now"
    assert final.choices[0].finish_reason == "tool_calls"
    assert (final.usage.prompt_tokens, final.usage.completion_tokens, final.usage.total_tokens) == (1300, 50, 1350)
    assert final.usage.prompt_tokens_details.cached_tokens == 1000
    followed = [*HELLO, message.to_dict(), {"role": "tool", "tool_call_id": "toolu_1", "content": "12:00"}]
    answer = await client.chat.completions.create(model="claude-haiku", messages=followed, tools=TOOLS)
    assert answer.choices[0].message.content == "noon"
    row = (await ledger(database, microdao))[0]
    # claude-haiku-4-5: 1 USD a million tokens in, 0.10 from the cache, 1.25 to the cache, 5 out
    assert row["cost_microusd"] == 100 + 100 + 250 + 250
    assert (row["provider"], row["cached_tokens"], row["cache_creation_tokens"]) == ("anthropic", 1000, 200)


async def test_what_a_route_cannot_honour_another_one_does(client, upstream, claude):
    """``smart`` begins with Claude, which has no ``seed``."""
    upstream.will(Reply(text="from the other one"))
    answer = await client.chat.completions.create(model="smart", messages=HELLO, seed=3)
    assert answer.choices[0].message.content == "from the other one"
    assert claude.requests == []
    with pytest.raises(openai.BadRequestError) as caught:
        await client.chat.completions.create(model="claude-haiku", messages=HELLO, seed=3)
    assert (caught.value.code, caught.value.param) == ("unsupported_parameter", "seed")


ERRORS: list[tuple[Reply, type[openai.APIStatusError], int, str, str | None]] = [
    (
        Reply(status=400, body={"message": "too hot", "param": "temperature"}),
        openai.BadRequestError,
        400,
        "invalid_request",
        "temperature",
    ),
    (
        Reply(status=400, body={"code": "context_length_exceeded", "message": "long", "param": "messages"}),
        openai.BadRequestError,
        400,
        "context_length_exceeded",
        "messages",
    ),
    (Reply(status=401), openai.InternalServerError, 502, "upstream_error", None),
    (Reply(status=404), openai.InternalServerError, 502, "upstream_error", None),
    (Reply(status=429), openai.RateLimitError, 429, "rate_limit_exceeded", None),
    (Reply(status=429, body={"code": "insufficient_quota"}), openai.InternalServerError, 503, "unavailable", None),
    (Reply(status=500), openai.InternalServerError, 502, "upstream_error", None),
    (Reply(status=503), openai.InternalServerError, 503, "unavailable", None),
    (Reply(status=504), openai.InternalServerError, 504, "llm_timeout", None),
    (Reply(garbage=True), openai.InternalServerError, 502, "upstream_error", None),
]


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(("reply", "error", "status", "code", "param"), ERRORS)
async def test_an_upstream_s_failure_has_its_exception(client, upstream, streamed, reply, error, status, code, param):
    upstream.will(reply)
    with pytest.raises(error) as caught:
        await client.chat.completions.create(model="gpt-4.1-mini", messages=HELLO, stream=streamed)
    assert (caught.value.status_code, caught.value.code, caught.value.param) == (status, code, param)
    assert caught.value.request_id


async def test_a_failure_in_the_middle_of_a_stream_is_raised(client, claude):
    claude.will(AnthropicReply(text="one two three", error_after=1))
    stream = await client.chat.completions.create(model="claude-haiku", messages=HELLO, stream=True)
    seen: list[str] = []
    with pytest.raises(openai.APIError) as caught:
        await read_into(seen, stream)
    assert "".join(seen) == "one "
    assert caught.value.code == "unavailable"


async def test_bad_requests_have_code_and_param(client):
    with pytest.raises(openai.BadRequestError) as caught:
        await client.chat.completions.create(model="gpt-4.1-mini", messages=[])
    assert (caught.value.code, caught.value.param) == ("invalid_request", "messages")
    with pytest.raises(openai.NotFoundError) as missing:
        await client.chat.completions.create(model="gpt-nope", messages=HELLO)
    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
    stranger = client.with_options(api_key="sk-wrong")
    with pytest.raises(openai.AuthenticationError) as refused:
        await stranger.models.list()
    assert refused.value.code == "invalid_api_key"


async def test_embeddings_in_both_encodings(client, upstream, database, microdao):
    """openai-python asks for base64 unless told otherwise, and decodes it."""
    found = await client.embeddings.create(model="text-embedding-3-small", input=["one", "three"], dimensions=2)
    assert [(one.index, one.embedding) for one in found.data] == [(0, [3.0, 0.0]), (1, [5.0, 1.0])]
    assert (found.model, found.object, found.usage.prompt_tokens) == ("text-embedding-3-small", "list", 8)
    plain = await client.embeddings.create(model="text-embedding-3-small", input="one", encoding_format="float")
    assert plain.data[0].embedding == [3.0, 0.0]
    assert upstream.requests[0].body == {
        "input": ["one", "three"],
        "model": "text-embedding-3-small",
        "dimensions": 2,
        "encoding_format": "float",
    }
    rows = await ledger(database, microdao)
    assert [(row["provider"], row["prompt_tokens"], row["usage_source"]) for row in rows] == [
        ("openai", 8, "measured"),
        ("openai", 3, "measured"),
    ]


async def test_base64_is_asked_for_in_so_many_words(client, upstream):
    raw = await client.embeddings.with_raw_response.create(
        model="text-embedding-3-small", input="one", encoding_format="base64"
    )
    text = raw.http_response.json()["data"][0]["embedding"]
    assert decode_base64(text) == [3.0, 0.0]


async def test_embeddings_of_token_ids(client, upstream):
    await client.embeddings.create(model="text-embedding-3-small", input=[[1, 2, 3], [4]])
    await client.embeddings.create(model="text-embedding-3-small", input=[1, 2, 3])
    assert [one.body["input"] for one in upstream.requests] == [[[1, 2, 3], [4]], [1, 2, 3]]
    with pytest.raises(openai.BadRequestError) as caught:
        await client.embeddings.create(model="multilingual-e5-small", input=[1, 2, 3])
    assert (caught.value.code, caught.value.param) == ("unsupported_parameter", "input")


async def test_embeddings_offline(client, database, microdao):
    found = await client.embeddings.create(model="multilingual-e5-small", input=["a cat", "a kitten", "tax law"])
    cat, kitten, law = [one.embedding for one in found.data]
    assert len(cat) == 384
    assert sum(a * a for a in cat) == pytest.approx(1, abs=1e-3)
    near, far = (sum(a * b for a, b in zip(cat, other, strict=True)) for other in (kitten, law))
    assert near > far
    [row] = await ledger(database, microdao)
    assert (row["provider"], row["cost_microusd"]) == ("offline", 0)
    with pytest.raises(openai.BadRequestError) as caught:
        await client.embeddings.create(model="multilingual-e5-small", input="a cat", dimensions=100)
    assert caught.value.param == "dimensions"


@pytest.mark.parametrize("wrong", ["", [], [""], ["a", 1], [[]], [-1], {"a": 1}, None, ["a"] * 2049])
async def test_a_bad_input_is_named(client, wrong):
    with pytest.raises(openai.BadRequestError) as caught:
        await client.embeddings.create(model="text-embedding-3-small", input=wrong)
    assert (caught.value.code, caught.value.param) == ("invalid_request", "input")


@pytest.mark.parametrize("model", ["no-such", "gpt-4.1-mini"])
async def test_a_model_that_embeds_nothing(client, model):
    with pytest.raises(openai.NotFoundError) as caught:
        await client.embeddings.create(model=model, input="hi")
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


@pytest.mark.parametrize(
    "raw",
    [
        "{}",
        '{"data": []}',
        '{"data": [{"index": 0, "embedding": []}]}',
        '{"data": [{"index": 0, "embedding": "?"}]}',
        '{"data": [{"index": 0, "embedding": [null]}]}',
    ],
)
async def test_garbage_instead_of_vectors(client, upstream, raw):
    upstream.will(Reply(raw=raw))
    with pytest.raises(openai.InternalServerError) as caught:
        await client.embeddings.create(model="text-embedding-3-small", input="hi")
    assert caught.value.code == "upstream_error"
