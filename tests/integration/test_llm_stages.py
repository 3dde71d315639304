"""What stands around a call: an experiment's variant, sanitising both ways, kept answers; in order, and accounted."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest

from shared.cloud.outbox import Outbox
from shared.db.database import Database, Row, fetch_all
from shared.errors import InvalidRequest
from shared.llm.experiments.experiments import Experiment, Experiments, Variant
from shared.llm.gateway import Caller, CallReport, Gateway, open_gateway
from shared.llm.safety.policy import SanitizePolicy
from shared.settings import Settings
from shared.wire.assemble import AnswerAssembler
from shared.wire.chat import ChatRequest
from tests.fakes.openai_server import FakeOpenAI, Reply

SECRET = "sk-proj-" + "Ab3" * 16
CHECKED = SanitizePolicy(mode="redact", answers=True)
KEPT = {"cache": True}


def asked(text: str = "hello", **more: Any) -> ChatRequest:
    return ChatRequest.model_validate(
        {"model": "gpt-4.1-mini", "messages": [{"role": "user", "content": text}], **more}
    )


@pytest.fixture
async def openai() -> AsyncIterator[FakeOpenAI]:
    async with FakeOpenAI() as fake:
        yield fake


@pytest.fixture
def experiments(database: Database) -> Experiments:
    return Experiments(database)


@pytest.fixture
async def gateway(database: Database, openai: FakeOpenAI, experiments: Experiments) -> AsyncIterator[Gateway]:
    settings = Settings(local_llm_base_url="none", openai_api_key="sk-fake", openai_base_url=openai.base_url)
    opened = open_gateway(settings, database, Outbox(database, {}), experiments=experiments)
    yield opened
    await opened.close()


@pytest.fixture
def caller(microdao: str) -> Caller:
    return Caller(microdao_id=microdao, agent_id="agent:sofia", session_id="sess_1")


async def rows(database: Database, microdao: str, table: str = "llm_ledger") -> list[Row]:
    async with database.tenant(microdao) as connection:
        return await fetch_all(connection, f"SELECT * FROM {table}")


async def heard(
    gateway: Gateway, request: ChatRequest, caller: Caller, **more: Any
) -> tuple[AnswerAssembler, list[Any]]:
    answer, chunks = AnswerAssembler(), []
    async with aclosing(gateway.stream(request, caller, **more)) as stream:
        async for chunk in stream:
            answer.feed(chunk)
            chunks.append(chunk)
    return answer, chunks


async def test_a_secret_does_not_reach_the_provider(gateway, openai, caller):
    await gateway.complete(asked(f"my key is {SECRET}"), caller)
    assert SECRET not in str(openai.requests[0].body)
    assert "[redacted:" in openai.requests[0].body["messages"][0]["content"]


async def test_a_refused_request_is_not_called_nor_accounted(gateway, openai, database, microdao, caller):
    strict = replace(caller, sanitize=SanitizePolicy(mode="refuse"))
    with pytest.raises(InvalidRequest):
        await gateway.complete(asked(f"my key is {SECRET}"), strict)
    assert openai.requests == []
    assert await rows(database, microdao) == []


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_secret_in_an_answer_does_not_reach_the_caller(gateway, openai, database, microdao, caller, streamed):
    openai.will(Reply(text=f"it is {SECRET} as you know"))
    checked = replace(caller, sanitize=CHECKED)
    if streamed:
        answer, chunks = await heard(gateway, asked(stream=True), checked)
        text = answer.message()["content"]
        assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
        assert chunks[-2]["choices"][0]["finish_reason"] == "stop"
    else:
        text = (await gateway.complete(asked(), checked))["choices"][0]["message"]["content"]
    assert SECRET not in text
    assert text.startswith("it is [redacted:")
    assert text.endswith(" as you know")
    [row] = await rows(database, microdao)
    assert row["outcome"] == "succeeded"


async def test_a_refused_answer_is_paid_for(gateway, openai, database, microdao, caller):
    openai.will(Reply(text=f"it is {SECRET} as you know"))
    with pytest.raises(InvalidRequest):
        await gateway.complete(asked(), replace(caller, sanitize=replace(CHECKED, mode="refuse")))
    [row] = await rows(database, microdao)
    assert (row["outcome"], row["error_code"], row["usage_source"]) == ("failed", "invalid_request", "measured")
    assert row["cost_microusd"] > 0


@pytest.mark.parametrize("first_streamed", [False, True])
@pytest.mark.parametrize("then_streamed", [False, True])
async def test_a_kept_answer(gateway, openai, database, microdao, caller, first_streamed, then_streamed):
    openai.will(Reply(text="one two three"))
    texts, reports = [], []
    for streamed in (first_streamed, then_streamed):
        reports.append(CallReport())
        request = asked(metadata=KEPT, stream=streamed)
        if streamed:
            answer, chunks = await heard(gateway, request, caller, report=reports[-1])
            texts.append(answer.message()["content"])
            account = chunks[-1]["daarion"]
        else:
            made = await gateway.complete(request, caller, report=reports[-1])
            texts.append(made["choices"][0]["message"]["content"])
            account = made["daarion"]
    assert texts == ["one two three", "one two three"]
    assert account == {"cached": True, "cost_microusd": 0}
    assert len(openai.requests) == 1
    assert "x-daarion-cache" not in reports[0].headers
    assert reports[1].headers["x-daarion-cache"] == "hit"
    told = {row["outcome"]: row for row in await rows(database, microdao)}
    assert set(told) == {"succeeded", "cached"}
    assert (told["cached"]["cost_microusd"], told["cached"]["prompt_tokens"]) == (0, 0)
    assert len(await rows(database, microdao, "usage_event")) == 2


async def test_what_was_taken_out_stays_out_of_what_is_kept(gateway, openai, caller):
    openai.will(Reply(text=f"it is {SECRET} as you know"))
    checked = replace(caller, sanitize=CHECKED)
    first, _ = await heard(gateway, asked(metadata=KEPT, stream=True), checked)
    again = await gateway.complete(asked(metadata=KEPT), checked)
    assert again["choices"][0]["message"]["content"] == first.message()["content"]
    assert SECRET not in str(again)


async def test_a_variant_is_called_and_told(gateway, openai, experiments, database, microdao, caller):
    only = Variant(name="big", weight=1, model="gpt-4.1", instructions="Be brief.")
    experiment = Experiment(name="size", model="gpt-4.1-mini", blueprint=None, variants=(only,), active=True)
    await experiments.create(microdao, experiment)
    made = await gateway.complete(asked(), caller)
    assert made["model"] == "gpt-4.1-mini", "what was asked for"
    assert openai.requests[0].body["model"] == "gpt-4.1"
    assert openai.requests[0].body["messages"][0] == {"role": "system", "content": "Be brief."}
    [row] = await rows(database, microdao)
    assert (row["model"], row["variant"]) == ("gpt-4.1", "size/big")
    [event] = await rows(database, microdao, "usage_event")
    assert event["variant"] == "size/big"
    [result] = await experiments.results(microdao, "size")
    assert (result["variant"], result["requests"]) == ("big", 1)
