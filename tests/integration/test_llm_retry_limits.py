"""What models.yaml says of routes and providers, as the gateway keeps it: circuits, places, caps, time, reloading."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from shared.cloud.outbox import Outbox
from shared.db.database import Database, fetch_all
from shared.errors import InvalidRequest, LlmTimeout, ModelNotFound, Overloaded, Unavailable, UpstreamError
from shared.llm.gateway import Caller, ClientHints, Gateway, open_gateway
from shared.settings import Settings
from shared.wire.chat import ChatRequest
from tests.fakes.openai_server import FakeOpenAI, Reply

TWO_ROUTES = """
      - {provider: openai, model: gpt-4.1-mini, priority: 1, attempts: 1}
      - {provider: deepseek, model: deepseek-chat, priority: 2, attempts: 1}
"""


def models(routes: str, head: str = "") -> str:
    return f"default: m\n{head}\nmodels:\n  m:\n    routes:{routes}"


def asked(**more: Any) -> ChatRequest:
    return ChatRequest.model_validate({"model": "m", "messages": [{"role": "user", "content": "hello"}], **more})


@pytest.fixture
async def openai() -> AsyncIterator[FakeOpenAI]:
    async with FakeOpenAI() as fake:
        yield fake


@pytest.fixture
async def deepseek() -> AsyncIterator[FakeOpenAI]:
    async with FakeOpenAI() as fake:
        yield fake


@pytest.fixture
async def opened(
    database: Database, openai: FakeOpenAI, deepseek: FakeOpenAI, tmp_path: Path
) -> AsyncIterator[Callable[..., Gateway]]:
    """Opens gateways over a models.yaml of the given text."""
    gateways: list[Gateway] = []

    def make(text: str, **settings: Any) -> Gateway:
        (tmp_path / "models.yaml").write_text(text)
        common = {
            "models_file": tmp_path / "models.yaml",
            "local_llm_base_url": "none",
            "openai_api_key": "sk-fake",
            "openai_base_url": openai.base_url,
            "deepseek_api_key": "sk-fake",
            "deepseek_base_url": deepseek.base_url,
        }
        gateways.append(open_gateway(Settings(**common, **settings), database, Outbox(database, {})))
        return gateways[-1]

    yield make
    for gateway in gateways:
        await gateway.close()


@pytest.fixture
def caller(microdao: str) -> Caller:
    return Caller(microdao_id=microdao)


def health(gateway: Gateway) -> dict[str, bool]:
    return {route.provider: route.healthy for model in gateway.models() for route in model.routes}


async def test_a_failing_route_is_avoided_probed_and_taken_back(opened, openai, deepseek, caller):
    circuit = "circuit: {window_s: 60, min_calls: 3, failure_rate: 0.5, cooldown_s: 0.3}"
    gateway = opened(models(TWO_ROUTES, circuit))
    openai.will(*(Reply(status=500) for _ in range(4)))
    for _ in range(3):
        await gateway.complete(asked(), caller)
    assert health(gateway) == {"openai": False, "deepseek": True}
    await gateway.complete(asked(), caller)
    assert (len(openai.requests), len(deepseek.requests)) == (3, 4), "no call to an open circuit"
    await asyncio.sleep(0.3)
    await gateway.complete(asked(), caller)
    assert (len(openai.requests), len(deepseek.requests)) == (4, 5), "the probe failed"
    await asyncio.sleep(0.3)
    answer = await gateway.complete(asked(), caller)
    assert answer["daarion"]["provider"] == "openai"
    assert health(gateway) == {"openai": True, "deepseek": True}


async def test_with_every_circuit_open_the_least_recently_failed_route_is_tried(opened, openai, deepseek, caller):
    gateway = opened(models(TWO_ROUTES, "circuit: {min_calls: 1, cooldown_s: 60}"))
    openai.will(Reply(status=500))
    deepseek.will(Reply(status=500))
    with pytest.raises(UpstreamError):
        await gateway.complete(asked(), caller)
    assert health(gateway) == {"openai": False, "deepseek": False}
    answer = await gateway.complete(asked(), caller)
    assert answer["daarion"]["provider"] == "openai"
    assert health(gateway) == {"openai": True, "deepseek": False}


async def test_the_caller_s_own_faults_open_no_circuit(opened, openai, caller):
    gateway = opened(models(TWO_ROUTES, "circuit: {min_calls: 1}"))
    openai.will(Reply(status=400))
    with pytest.raises(InvalidRequest):
        await gateway.complete(asked(), caller)
    assert health(gateway)["openai"]


async def test_a_provider_without_a_place_is_passed_over(opened, openai, deepseek, caller):
    gateway = opened(models(TWO_ROUTES, "providers: {openai: {max_concurrency: 1, max_queue: 0}}"))
    openai.will(Reply(text="slow", delay_s=0.5))
    slow = asyncio.create_task(gateway.complete(asked(), caller))
    await until(lambda: openai.requests)
    assert (await gateway.complete(asked(), caller))["daarion"]["provider"] == "deepseek"
    assert (await slow)["daarion"]["provider"] == "openai"


async def test_no_place_anywhere(opened, openai, caller, database, microdao):
    route = "\n      - {provider: openai, model: gpt-4.1-mini}"
    limits = "providers: {openai: {max_concurrency: 1, max_queue: 1, queue_timeout_s: 0.1}}"
    gateway = opened(models(route, limits))
    openai.will(Reply(text="slow", delay_s=1.0))
    slow = asyncio.create_task(gateway.complete(asked(), caller))
    await until(lambda: openai.requests)
    refused = await asyncio.gather(*(gateway.complete(asked(), caller) for _ in range(3)), return_exceptions=True)
    assert [type(error) for error in refused] == [Overloaded] * 3
    assert all(error.headers["retry-after"] == "1" for error in refused)
    await slow
    async with database.tenant(microdao) as connection:
        assert len(await fetch_all(connection, "SELECT id FROM llm_ledger")) == 1, "nothing was called, nothing is told"
        assert await fetch_all(connection, "SELECT id FROM llm_reservation") == []


async def test_a_queue_serves_all_in_the_end(opened, openai, caller):
    route = "\n      - {provider: openai, model: gpt-4.1-mini}"
    gateway = opened(models(route, "providers: {openai: {max_concurrency: 2}}"))
    answers = await asyncio.gather(*(gateway.complete(asked(), caller) for _ in range(12)))
    assert len(answers) == len(openai.requests) == 12


async def test_limits_of_a_route(opened, openai, caller):
    route = "\n      - {provider: openai, model: gpt-4.1-mini, timeout_s: 0.2, attempts: 3, max_tokens: 50}"
    gateway = opened(models(route))
    await gateway.complete(asked(), caller)
    await gateway.complete(asked(max_tokens=80), caller)
    await gateway.complete(asked(max_completion_tokens=20), caller)
    assert [one.body["max_completion_tokens"] for one in openai.requests] == [50, 50, 20]
    openai.reset()
    openai.will(*(Reply(text="late", delay_s=9) for _ in range(4)))
    with pytest.raises(LlmTimeout):
        await gateway.complete(asked(), caller)
    assert len(openai.requests) == 3


async def test_the_wait_for_the_first_token(opened, openai, caller):
    route = "\n      - {provider: openai, model: gpt-4.1-mini, first_token_timeout_s: 0.2, attempts: 2}"
    gateway = opened(models(route))
    openai.will(Reply(text="late", delay_s=9), Reply(text="one two three", chunk_delay_s=0.1))
    heard = [chunk async for chunk in gateway.stream(asked(), caller)]
    assert "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in heard[:-1]) == "one two three"
    assert len(openai.requests) == 2


@pytest.mark.parametrize("streamed", [False, True])
async def test_the_deadline_of_a_call(opened, openai, caller, streamed):
    gateway = opened(models(TWO_ROUTES), llm_deadline_s=0.3)
    openai.will(Reply(text="one two three", chunk_delay_s=0.2, delay_s=0.0 if streamed else 9.0))

    async def call() -> None:
        if streamed:
            async for _ in gateway.stream(asked(), caller):
                pass
        else:
            await gateway.complete(asked(), caller)

    with pytest.raises(LlmTimeout):
        await call()


async def test_a_client_that_asks_again_gets_one_attempt_a_route(opened, openai, deepseek, caller):
    gateway = opened(models(TWO_ROUTES.replace("attempts: 1", "attempts: 5")))
    openai.will(*(Reply(status=500) for _ in range(9)))
    deepseek.will(*(Reply(status=503) for _ in range(9)))
    with pytest.raises(Unavailable):
        await gateway.complete(asked(), caller, hints=ClientHints(is_retry=True))
    assert (len(openai.requests), len(deepseek.requests)) == (1, 1)


async def test_a_model_of_another_kind_is_refused(opened, caller):
    text = models(TWO_ROUTES) + "  e:\n    kind: embedding\n    routes: [{provider: openai, model: embed}]\n"
    gateway = opened(text)
    assert not gateway.knows("e")
    assert gateway.knows("e", "embedding")
    with pytest.raises(InvalidRequest, match="is for embedding"):
        await gateway.complete(asked(model="e"), caller)


async def test_a_changed_file_is_used_without_a_restart(opened, tmp_path: Path, caller):
    gateway = opened(models(TWO_ROUTES))
    path = tmp_path / "models.yaml"
    path.write_text(path.read_text().replace("  m:", "  n:").replace("default: m", "default: n"))
    os.utime(path, ns=(1, 1))
    async with asyncio.timeout(5):
        while not gateway.knows("n"):  # noqa: ASYNC110 - polled with a deadline
            await asyncio.sleep(0.05)
    with pytest.raises(ModelNotFound):
        await gateway.complete(asked(), caller)


async def until(look: Callable[[], Any]) -> None:
    async with asyncio.timeout(10):
        while not look():  # noqa: ASYNC110 - polled with a deadline
            await asyncio.sleep(0.01)
