"""The gateway with Postgres and a real upstream: fallback before the first content, and one ledger row an attempt."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from shared.cloud.outbox import Outbox
from shared.db.database import Database, Row, fetch_all
from shared.errors import InvalidRequest, ModelNotFound, RateLimitExceeded, Unavailable, UpstreamError
from shared.llm.gateway import Caller, Gateway, open_gateway
from shared.settings import Settings
from shared.wire.assemble import AnswerAssembler
from shared.wire.chat import ChatRequest
from tests.fakes.openai_server import FakeOpenAI, Reply

NOBODY = "none"  # no search for a local server
USAGE = {"prompt_tokens": 1000, "completion_tokens": 500, "prompt_tokens_details": {"cached_tokens": 200}}
COST = 1140  # at gpt-4.1-mini's published prices


def request(**more: Any) -> ChatRequest:
    body = {"model": "gpt-4.1-mini", "messages": [{"role": "user", "content": "say hello"}]}
    return ChatRequest.model_validate(body | more)


@pytest.fixture
async def openai() -> AsyncIterator[FakeOpenAI]:
    async with FakeOpenAI() as fake:
        yield fake


@pytest.fixture
async def deepseek() -> AsyncIterator[FakeOpenAI]:
    async with FakeOpenAI() as fake:
        yield fake


@pytest.fixture
async def opened(database: Database) -> AsyncIterator[Callable[..., Gateway]]:
    """Opens gateways with the given settings and closes them at the end."""
    gateways: list[Gateway] = []

    def make(**settings: Any) -> Gateway:
        settings = {"local_llm_base_url": NOBODY, **settings}
        gateways.append(open_gateway(Settings(**settings), database, Outbox(database, {})))
        return gateways[-1]

    yield make
    for gateway in gateways:
        await gateway.close()


@pytest.fixture
def gateway(opened: Callable[..., Gateway], openai: FakeOpenAI, deepseek: FakeOpenAI) -> Gateway:
    return opened(
        openai_api_key="sk-fake",
        openai_base_url=openai.base_url,
        deepseek_api_key="sk-fake",
        deepseek_base_url=deepseek.base_url,
    )


@pytest.fixture
def caller(microdao: str) -> Caller:
    return Caller(microdao_id=microdao, agent_id="agent:sofia", key_id="key_1", session_id="sess_1", flow_id="flow_1")


async def ledger(database: Database, microdao: str) -> list[Row]:
    async with database.tenant(microdao) as connection:
        return await fetch_all(connection, "SELECT * FROM llm_ledger ORDER BY attempt")


async def events(database: Database, microdao: str) -> list[Row]:
    async with database.tenant(microdao) as connection:
        return await fetch_all(connection, "SELECT * FROM usage_event ORDER BY id")


async def jobs(database: Database, microdao: str) -> list[Row]:
    async with database.tenant(microdao) as connection:
        return await fetch_all(connection, "SELECT * FROM outbox WHERE queue = 'usage'")


async def collect(gateway: Gateway, asked: ChatRequest, caller: Caller) -> tuple[AnswerAssembler, list[dict[str, Any]]]:
    answer, chunks = AnswerAssembler(), []
    async with aclosing(gateway.stream(asked, caller)) as stream:
        async for chunk in stream:
            answer.feed(chunk)
            chunks.append(chunk)
    return answer, chunks


async def test_a_whole_answer_is_accounted_once(gateway, openai, database, microdao, caller):
    openai.will(Reply(text="hello", usage=USAGE))
    made = await gateway.complete(request(), caller)
    assert made["model"] == "gpt-4.1-mini"
    assert made["choices"][0]["message"] == {"role": "assistant", "refusal": None, "content": "hello"}
    assert made["daarion"] == {"cost_microusd": COST, "provider": "openai", "provider_model": "gpt-4.1-mini"}
    [row] = await ledger(database, microdao)
    assert (row["outcome"], row["usage_source"], row["attempt"], row["cost_microusd"]) == (
        "succeeded",
        "measured",
        1,
        COST,
    )
    assert (row["prompt_tokens"], row["completion_tokens"], row["cached_tokens"]) == (1000, 500, 200)
    assert (row["input_usd_per_mtok"], row["cached_input_usd_per_mtok"]) == (Decimal("0.4"), Decimal("0.1"))
    assert (row["agent_id"], row["key_id"], row["session_id"], row["flow_id"]) == (
        "agent:sofia",
        "key_1",
        "sess_1",
        "flow_1",
    )
    [event] = await events(database, microdao)
    assert (event["subject"], event["cost_microusd"], event["failed"]) == ("gpt-4.1-mini", COST, False)
    [job] = await jobs(database, microdao)
    assert job["body"]["event_id"] == event["id"]


async def test_a_stream_ends_with_its_usage(gateway, openai, database, microdao, caller):
    openai.will(Reply(text="one two", usage=USAGE))
    answer, chunks = await collect(gateway, request(stream=True), caller)
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": "", "refusal": None}
    assert chunks[-2]["choices"][0]["finish_reason"] == "stop"
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["daarion"]["cost_microusd"] == COST
    assert len({(chunk["id"], chunk["model"], chunk["created"]) for chunk in chunks}) == 1
    assert answer.message()["content"] == "one two"
    [row] = await ledger(database, microdao)
    assert (row["outcome"], row["usage_source"], row["cost_microusd"]) == ("succeeded", "measured", COST)


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_failure_before_content_goes_to_the_next_route(
    gateway, openai, deepseek, database, microdao, caller, streamed
):
    openai.will(Reply(status=500), Reply(status=500))
    deepseek.will(Reply(text="from the second"))
    asked = request(model="cheap", stream=streamed)
    if streamed:
        answer, _ = await collect(gateway, asked, caller)
        content = answer.message()["content"]
    else:
        content = (await gateway.complete(asked, caller))["choices"][0]["message"]["content"]
    assert content == "from the second"
    rows = await ledger(database, microdao)
    told = [(row["provider"], row["outcome"], row["usage_source"], row["error_code"]) for row in rows]
    failed = ("openai", "failed", "none", "upstream_error")
    assert told == [failed, failed, ("deepseek", "succeeded", "measured", None)]
    assert [event["failed"] for event in await events(database, microdao)] == [False]


async def test_a_failure_after_content_is_the_caller_s(gateway, openai, deepseek, database, microdao, caller):
    openai.will(Reply(text="one two three", close_after=2))
    heard: list[str] = []

    async def listen() -> None:
        async for chunk in gateway.stream(request(model="cheap"), caller):
            heard.append(chunk["choices"][0]["delta"].get("content"))

    with pytest.raises(UpstreamError):
        await listen()
    assert heard == ["", "one ", "two "]
    assert deepseek.requests == []
    [row] = await ledger(database, microdao)
    assert (row["outcome"], row["usage_source"], row["error_code"]) == ("failed", "estimated", "upstream_error")
    assert row["completion_tokens"] > 0
    assert [event["failed"] for event in await events(database, microdao)] == [True]


async def test_the_caller_s_own_fault_is_not_tried_elsewhere(gateway, openai, deepseek, database, microdao, caller):
    openai.will(Reply(status=400))
    with pytest.raises(InvalidRequest):
        await gateway.complete(request(model="cheap"), caller)
    assert deepseek.requests == []
    assert len(await events(database, microdao)) == 1


async def test_the_last_failure_is_raised(gateway, openai, deepseek, database, microdao, caller):
    openai.will(Reply(status=500), Reply(status=500))
    deepseek.will(Reply(status=429), Reply(status=429))
    with pytest.raises(RateLimitExceeded):
        await gateway.complete(request(model="cheap"), caller)
    assert [row["outcome"] for row in await ledger(database, microdao)] == ["failed"] * 4
    assert [event["failed"] for event in await events(database, microdao)] == [True]


async def test_closing_waits_for_streams_that_are_cut_off(settings, openai, database, microdao, caller):
    """At the end of a process the server cancels what still streams, and closes gateway and database at once."""
    own = Database(settings.database_url)
    configured = Settings(openai_api_key="sk-fake", openai_base_url=openai.base_url, local_llm_base_url=NOBODY)
    gateway = open_gateway(configured, own, Outbox(own, {}))
    openai.will(Reply(text="one two three four", hang_after=2))
    heard = asyncio.Event()

    async def listen() -> None:
        async with aclosing(gateway.stream(request(), caller)) as chunks:
            await anext(chunks)
            heard.set()
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0.1)  # what else is to be done on the way to the stream

    listening = asyncio.create_task(listen())
    await heard.wait()
    listening.cancel()
    await gateway.close()
    await own.close()
    await asyncio.wait({listening})
    [row] = await ledger(database, microdao)
    assert (row["outcome"], row["usage_source"]) == ("cancelled", "estimated")


async def test_a_closed_stream_is_accounted_once(gateway, openai, database, microdao, caller):
    openai.will(Reply(text="one two three four", hang_after=2))
    stream = gateway.stream(request(), caller)
    heard = [await anext(stream) for _ in range(3)]
    await stream.aclose()
    assert heard[-1]["choices"][0]["delta"] == {"content": "two "}
    await openai.until_disconnected()
    [row] = await ledger(database, microdao)
    assert (row["outcome"], row["usage_source"]) == ("cancelled", "estimated")
    assert row["completion_tokens"] > 0
    assert row["cost_microusd"] > 0
    assert len(await events(database, microdao)) == 1


async def test_a_cancelled_task_is_accounted_once(gateway, openai, database, microdao, caller):
    openai.will(Reply(text="one two three four", hang_after=2))
    started = asyncio.Event()

    async def listen() -> None:
        async with aclosing(gateway.stream(request(), caller)) as stream:
            async for _ in stream:
                started.set()

    task = asyncio.create_task(listen())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await openai.until_disconnected()
    await gateway.close()
    assert [row["outcome"] for row in await ledger(database, microdao)] == ["cancelled"]


async def test_a_missing_usage_is_estimated(gateway, openai, database, microdao, caller):
    openai.will(Reply(text="hello there", omit_usage=True))
    answer, _ = await collect(gateway, request(), caller)
    assert answer.usage["completion_tokens"] > 0
    [row] = await ledger(database, microdao)
    assert row["usage_source"] == "estimated"
    assert row["completion_tokens"] == answer.usage["completion_tokens"]


async def test_an_unknown_price_is_refused_before_the_call(opened, openai, tmp_path: Path, database, microdao, caller):
    models = tmp_path / "models.yaml"
    models.write_text("default: new\nmodels:\n  new:\n    routes: [{provider: openai, model: gpt-99}]\n")
    gateway = opened(openai_api_key="sk-fake", openai_base_url=openai.base_url, models_file=models)
    with pytest.raises(Unavailable, match=r"price of openai/gpt-99"):
        await gateway.complete(request(model="new"), caller)
    assert openai.requests == []
    assert await ledger(database, microdao) == []


async def test_what_is_offered_without_any_provider(opened, caller):
    gateway = opened()
    assert {model.id for model in gateway.models()} == {"local", "cheap", "smart", "offline", "multilingual-e5-small"}
    assert gateway.default_model() == "offline"
    assert gateway.knows("smart")
    assert gateway.knows("default")
    assert not gateway.knows("gpt-4.1")
    for name in ("gpt-4.1", "claude-sonnet", "nonsense"):
        with pytest.raises(ModelNotFound, match=name):
            await gateway.complete(request(model=name), caller)
    for name in ("smart", "local", "default"):
        made = await gateway.complete(request(model=name), caller)
        assert made["model"] == name
        assert made["daarion"] == {"cost_microusd": 0, "provider": "offline", "provider_model": "offline"}


async def test_offline_never_stands_in_for_a_real_provider(gateway):
    routes = {model.id: [route.provider for route in model.routes] for model in gateway.models()}
    assert routes["cheap"] == ["openai", "deepseek"]
    assert routes["offline"] == ["offline"]
    assert "claude-sonnet" not in routes
    assert gateway.default_model() == "cheap"


async def test_the_offline_model_streams_and_is_accounted(opened, database, microdao, caller):
    answer, chunks = await collect(opened(), request(model="offline", stream=True), caller)
    assert "hello" in answer.message()["content"]
    assert chunks[-1]["choices"] == []
    [row] = await ledger(database, microdao)
    assert (row["provider"], row["cost_microusd"], row["usage_source"]) == ("offline", 0, "measured")


async def test_a_configured_local_server_is_used(opened, openai, caller):
    openai.will(Reply(text="from here"))
    gateway = opened(local_llm_base_url=openai.base_url)
    made = await asyncio.to_thread(gateway.default_model)
    assert made == "cheap"
    answer = await gateway.complete(request(model="local"), caller)
    assert answer["daarion"] == {"cost_microusd": 0, "provider": "local", "provider_model": openai.models[0]}
