"""Every way a provider can fail, over HTTP: what the client gets, how often the provider was asked, what was recorded.

Each case runs whole and streamed. The text that a client sees is never doubled.
"""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import aiohttp
import openai
import orjson
import pytest

from shared.clock import utc_now
from shared.db.database import Database, Row, fetch_all
from shared.settings import ROOT
from tests.fakes import anthropic_server as anthropic
from tests.fakes.anthropic_server import FakeAnthropic
from tests.fakes.openai_server import FakeOpenAI, Reply
from tests.integration.api_server import Api, running_api

MODELS = """\
default: one
circuit: {min_calls: 1000}
models:
  one:
    routes: [{provider: openai, model: gpt-4.1-mini}]
  two:
    routes:
      - {provider: openai, model: gpt-4.1-mini, priority: 1}
      - {provider: deepseek, model: deepseek-chat, priority: 2}
  claude:
    routes: [{provider: anthropic, model: claude-haiku-4-5}]
  moved:
    routes: [{provider: openai, model: gpt-4.1, attempts: 1}]
    fallbacks: [other]
  other:
    routes: [{provider: deepseek, model: deepseek-chat}]
"""
TEXT = "one two three"
GOOD = Reply(text=TEXT)
TIMEOUT_S = 0.4
"""The patience with the fake provider; its answers come in a few milliseconds."""


@dataclass
class Seen:
    """What a client got."""

    status: int
    headers: dict[str, str]
    code: str | None = None
    text: str = ""
    is_complete: bool = False
    events: list[dict[str, Any]] = field(default_factory=list)
    pings: int = 0


@dataclass(frozen=True)
class Case:
    """``replies`` are the provider's, in order; ``requests`` is how often it must have been asked."""

    name: str
    replies: tuple[Reply, ...]
    status: int
    code: str | None
    requests: int
    headers: dict[str, str] = field(default_factory=dict)


def failing(name: str, reply: Reply, status: int, code: str, requests: int = 2, **headers: str) -> Case:
    named = {key.replace("_", "-"): value for key, value in headers.items()}
    return Case(name, tuple(replace(reply) for _ in range(requests)), status, code, requests, named)


def recovering(name: str, reply: Reply) -> Case:
    return Case(name, (reply, GOOD), 200, None, 2)


def in_the_past() -> str:
    return format_datetime(utc_now() - timedelta(seconds=5), usegmt=True)


BEFORE_CONTENT = [
    failing("slow first byte", Reply(text=TEXT, delay_s=10), 504, "llm_timeout", x_should_retry="false"),
    failing("close before the first byte", Reply(drop=True), 502, "upstream_error", x_should_retry="false"),
    failing("garbage", Reply(garbage=True), 502, "upstream_error", x_should_retry="false"),
    failing("wrong content type", Reply(raw="<html>hi</html>", content_type="text/html"), 502, "upstream_error"),
    failing("empty body", Reply(raw=""), 502, "upstream_error"),
    failing("no choices", Reply(raw='{"choices": []}'), 502, "upstream_error"),
    failing("500", Reply(status=500), 502, "upstream_error", x_should_retry="false"),
    failing("503", Reply(status=503), 503, "unavailable", x_should_retry="false"),
    failing("504", Reply(status=504), 504, "llm_timeout", x_should_retry="false"),
    failing("429", Reply(status=429), 429, "rate_limit_exceeded", retry_after="1"),
    failing(
        "429, long", Reply(status=429, headers={"retry-after": "60"}), 429, "rate_limit_exceeded", 1, retry_after="60"
    ),
    failing("503, long", Reply(status=503, headers={"retry-after": "60"}), 503, "unavailable", 1, retry_after="60"),
    failing("401", Reply(status=401), 502, "upstream_error", 1, x_should_retry="false"),
    failing("404", Reply(status=404), 502, "upstream_error", 1, x_should_retry="false"),
    failing("empty account", Reply(status=402), 503, "unavailable", 1, x_should_retry="false"),
    failing("the caller's own fault", Reply(status=400), 400, "invalid_request", 1),
    failing("too long", Reply(status=400, body={"code": "context_length_exceeded"}), 400, "context_length_exceeded", 1),
    recovering("recovers from 500", Reply(status=500)),
    recovering("recovers from garbage", Reply(garbage=True)),
    recovering("recovers from a dropped connection", Reply(drop=True)),
    recovering("recovers from silence", Reply(text=TEXT, delay_s=10)),
    recovering("waits as told in seconds", Reply(status=429, headers={"retry-after": "0.2"})),
    recovering("waits as told in milliseconds", Reply(status=429, headers={"retry-after-ms": "200"})),
    recovering("waits as told by a date", Reply(status=503, headers={"retry-after": in_the_past()})),
]

IN_STREAM_BEFORE_CONTENT = [
    failing("close", Reply(text=TEXT, close_after=0), 502, "upstream_error"),
    failing("malformed", Reply(text=TEXT, malformed_after=0), 502, "upstream_error"),
    failing("error event", Reply(text=TEXT, error_after=0), 502, "upstream_error"),
    failing("silence", Reply(text=TEXT, hang_after=0), 504, "llm_timeout"),
    failing("no event at all", Reply(raw=": nothing\n\n"), 502, "upstream_error"),
    recovering("recovers from close", Reply(text=TEXT, close_after=0)),
    recovering("recovers from malformed", Reply(text=TEXT, malformed_after=0)),
    recovering("recovers from an error event", Reply(text=TEXT, error_after=0)),
    recovering("recovers from silence", Reply(text=TEXT, hang_after=0)),
]

AFTER_CONTENT = [
    ("close", Reply(text=TEXT, close_after=2), "upstream_error"),
    ("malformed", Reply(text=TEXT, malformed_after=2), "upstream_error"),
    ("error event", Reply(text=TEXT, error_after=2), "upstream_error"),
    ("silence", Reply(text=TEXT, hang_after=2), "llm_timeout"),
]


@pytest.fixture(scope="module")
async def openai_server() -> AsyncIterator[FakeOpenAI]:
    async with FakeOpenAI() as fake:
        yield fake


@pytest.fixture(scope="module")
async def deepseek_server() -> AsyncIterator[FakeOpenAI]:
    async with FakeOpenAI() as fake:
        yield fake


@pytest.fixture(scope="module")
async def anthropic_server() -> AsyncIterator[FakeAnthropic]:
    async with FakeAnthropic() as fake:
        yield fake


@pytest.fixture
def anthropic_fake(anthropic_server: FakeAnthropic) -> FakeAnthropic:
    anthropic_server.reset()
    anthropic_server.hang_up()
    return anthropic_server


@pytest.fixture
def openai_fake(openai_server: FakeOpenAI) -> FakeOpenAI:
    openai_server.reset()
    openai_server.hang_up()
    return openai_server


@pytest.fixture
def deepseek_fake(deepseek_server: FakeOpenAI) -> FakeOpenAI:
    deepseek_server.reset()
    deepseek_server.hang_up()
    return deepseek_server


Opened = Callable[..., AbstractAsyncContextManager[Api]]


@pytest.fixture(scope="module")
def opened(settings, session_folder: Path, openai_server, deepseek_server, anthropic_server) -> Opened:
    """Opens an API over the fake providers, with settings of its own."""
    models = session_folder / "fault_models.yaml"
    models.write_text(MODELS)
    common = {
        "models_file": models,
        "llm_timeout_s": TIMEOUT_S,
        "openai_api_key": "sk-fake",
        "openai_base_url": openai_server.base_url,
        "deepseek_api_key": "sk-fake",
        "deepseek_base_url": deepseek_server.base_url,
        "anthropic_api_key": "sk-fake",
        "anthropic_base_url": anthropic_server.base_url,
    }
    return lambda **more: running_api(replace(settings, **{**common, **more}))


@pytest.fixture(scope="module")
async def shared_api(opened: Opened) -> AsyncIterator[Api]:
    async with opened() as running:
        yield running


@pytest.fixture
async def api(shared_api: Api, microdao: str, openai_fake: FakeOpenAI, deepseek_fake: FakeOpenAI) -> Api:
    return await shared_api.for_member(microdao)


async def ask(api: Api, *, streamed: bool, model: str = "one", headers: dict[str, str] | None = None) -> Seen:
    body = {"model": model, "messages": [{"role": "user", "content": "go"}], "stream": streamed}
    sent = {"authorization": f"Bearer {api.key}", **(headers or {})}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{api.url}/v1/chat/completions", json=body, headers=sent) as response,
    ):
        raw = await response.read()
        seen = Seen(response.status, {name.lower(): value for name, value in response.headers.items()})
        if response.content_type == "text/event-stream":
            read_stream(seen, raw)
        else:
            read_whole(seen, orjson.loads(raw))
        return seen


def read_whole(seen: Seen, document: dict[str, Any]) -> None:
    if error := document.get("error"):
        assert set(error) == {"message", "type", "param", "code"}
        seen.code = error["code"]
    else:
        seen.text, seen.is_complete = document["choices"][0]["message"]["content"], True


def read_stream(seen: Seen, raw: bytes) -> None:
    for line in raw.decode().split("\n\n")[:-1]:
        if line.startswith(": ping"):
            seen.pings += 1
        elif line == "data: [DONE]":
            assert seen.code is None, "no terminator after an error"
            seen.is_complete = True
        else:
            assert not seen.is_complete
            assert seen.code is None, "nothing comes after an error"
            event = orjson.loads(line.removeprefix("data: "))
            seen.events.append(event)
            seen.code = event.get("error", {}).get("code")
            seen.text += "".join(choice["delta"].get("content") or "" for choice in event.get("choices", []))


async def ledger(database: Database, microdao: str) -> list[Row]:
    async with database.tenant(microdao) as connection:
        return await fetch_all(connection, "SELECT * FROM llm_ledger ORDER BY attempt")


async def events(database: Database, microdao: str) -> list[Row]:
    async with database.tenant(microdao) as connection:
        return await fetch_all(connection, "SELECT * FROM usage_event")


async def held(database: Database, microdao: str) -> list[Row]:
    async with database.tenant(microdao) as connection:
        return await fetch_all(connection, "SELECT * FROM llm_reservation")


async def check(case: Case, seen: Seen, fake: FakeOpenAI, database: Database, microdao: str) -> None:
    assert (seen.status, seen.code) == (case.status, case.code)
    assert seen.text == (TEXT if case.status == 200 else "")
    assert seen.is_complete == (case.status == 200)
    assert len(fake.requests) == case.requests
    assert seen.headers["x-daarion-attempts"] == str(case.requests)
    assert seen.headers["x-request-id"].startswith("req_")
    for name, value in case.headers.items():
        assert seen.headers[name] == value
    rows = await ledger(database, microdao)
    assert len(rows) == case.requests
    assert [row["outcome"] for row in rows[:-1]] == ["failed"] * (len(rows) - 1)
    assert rows[-1]["outcome"] == ("succeeded" if case.status == 200 else "failed")
    assert len(await events(database, microdao)) == 1
    assert await held(database, microdao) == []


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("case", BEFORE_CONTENT, ids=lambda case: case.name)
async def test_before_content(api, openai_fake, database, microdao, case, streamed):
    openai_fake.will(*case.replies)
    await check(case, await ask(api, streamed=streamed), openai_fake, database, microdao)


@pytest.mark.parametrize("case", IN_STREAM_BEFORE_CONTENT, ids=lambda case: case.name)
async def test_in_a_stream_before_content(api, openai_fake, database, microdao, case):
    openai_fake.will(*case.replies)
    await check(case, await ask(api, streamed=True), openai_fake, database, microdao)


@pytest.mark.parametrize(("name", "reply", "code"), AFTER_CONTENT, ids=[name for name, _, _ in AFTER_CONTENT])
async def test_after_content(api, openai_fake, deepseek_fake, database, microdao, name, reply, code):
    """One error event, then the end; no other attempt, though another route is there."""
    openai_fake.will(reply)
    seen = await ask(api, streamed=True, model="two")
    assert (seen.status, seen.code, seen.text, seen.is_complete) == (200, code, "one two ", False)
    assert (len(openai_fake.requests), len(deepseek_fake.requests)) == (1, 0)
    [row] = await ledger(database, microdao)
    assert (row["outcome"], row["usage_source"]) == ("failed", "estimated")
    assert row["completion_tokens"] > 0


@pytest.mark.parametrize(
    ("reply", "streamed", "status", "code", "requests"),
    [
        (anthropic.Reply(status=500), False, 502, "upstream_error", 2),
        (anthropic.Reply(status=529), False, 503, "unavailable", 2),
        (anthropic.Reply(status=401), True, 502, "upstream_error", 1),
        (anthropic.Reply(garbage=True), False, 502, "upstream_error", 2),
        (anthropic.Reply(text=TEXT, error_after=0), True, 503, "unavailable", 2),
        (anthropic.Reply(text=TEXT, close_after=0), True, 502, "upstream_error", 2),
        (anthropic.Reply(text=TEXT, error_after=2), True, 200, "unavailable", 1),
        (anthropic.Reply(text=TEXT, close_after=2), True, 200, "upstream_error", 1),
        (anthropic.Reply(text=TEXT, hang_after=2), True, 200, "llm_timeout", 1),
    ],
)
async def test_another_dialect(api, anthropic_fake, database, microdao, reply, streamed, status, code, requests):
    anthropic_fake.will(*(replace(reply) for _ in range(requests)))
    seen = await ask(api, streamed=streamed, model="claude")
    assert (seen.status, seen.code, len(anthropic_fake.requests)) == (status, code, requests)
    assert seen.text == ("one two " if status == 200 else "")
    assert len(await ledger(database, microdao)) == requests


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(
    ("model", "reply", "first", "second"),
    [
        ("two", Reply(status=500), 2, 1),
        ("two", Reply(drop=True), 2, 1),
        ("two", Reply(status=401), 1, 1),
        ("two", Reply(status=429, headers={"retry-after": "60"}), 1, 1),
        ("moved", Reply(status=503), 1, 1),
    ],
    ids=["500", "dropped", "401", "long wait", "another logical model"],
)
async def test_another_route(
    api, openai_fake, deepseek_fake, database, microdao, streamed, model, reply, first, second
):
    openai_fake.will(reply, replace(reply))
    deepseek_fake.will(GOOD)
    seen = await ask(api, streamed=streamed, model=model)
    assert (seen.status, seen.text, seen.is_complete) == (200, TEXT, True)
    assert (len(openai_fake.requests), len(deepseek_fake.requests)) == (first, second)
    assert seen.headers["x-daarion-provider"] == "deepseek"
    assert seen.headers["x-daarion-model"] == "deepseek-chat"
    assert seen.headers["x-daarion-attempts"] == str(first + second)
    assert ("x-daarion-cost-usd" in seen.headers) != streamed
    rows = await ledger(database, microdao)
    assert [row["provider"] for row in rows] == ["openai"] * first + ["deepseek"] * second
    assert {row["model"] for row in rows} == {model}


async def test_the_caller_s_own_fault_is_not_tried_elsewhere(api, openai_fake, deepseek_fake):
    openai_fake.will(Reply(status=400))
    assert (await ask(api, streamed=False, model="two")).status == 400
    assert (len(openai_fake.requests), len(deepseek_fake.requests)) == (1, 0)


@pytest.mark.parametrize(("last", "status", "code"), [(500, 502, "upstream_error"), (503, 503, "unavailable")])
async def test_all_routes_down(api, openai_fake, deepseek_fake, database, microdao, last, status, code):
    openai_fake.will(Reply(status=500), Reply(status=500))
    deepseek_fake.will(Reply(status=last), Reply(status=last))
    seen = await ask(api, streamed=True, model="two")
    assert (seen.status, seen.code, seen.headers["x-should-retry"]) == (status, code, "false")
    assert seen.headers["x-daarion-attempts"] == "4"
    assert len(await ledger(database, microdao)) == 4


async def test_a_kept_connection_that_was_closed_costs_no_attempt(api, openai_fake, database, microdao):
    openai_fake.will(GOOD, Reply(drop=True), GOOD)
    assert (await ask(api, streamed=False)).status == 200
    seen = await ask(api, streamed=False)
    assert (seen.status, seen.headers["x-daarion-attempts"]) == (200, "1")
    assert len(openai_fake.requests) == 3
    assert [row["outcome"] for row in await ledger(database, microdao)] == ["succeeded", "succeeded"]


async def test_the_client_s_patience_bounds_the_call(opened, microdao, openai_fake):
    openai_fake.will(GOOD, Reply(text=TEXT, delay_s=10), GOOD)
    async with opened(llm_timeout_s=9.0) as shared:
        api = await shared.for_member(microdao)
        assert (await ask(api, streamed=False)).status == 200
        seen = await ask(api, streamed=False, headers={"x-stainless-read-timeout": "0.5"})
    assert (seen.status, seen.code) == (504, "llm_timeout")
    assert len(openai_fake.requests) == 2


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("reason", ["length", "content_filter"])
async def test_why_an_answer_ended_passes_through(api, openai_fake, streamed, reason):
    openai_fake.will(Reply(text=TEXT, finish_reason=reason))
    async with client(api) as asking:
        messages = [{"role": "user", "content": "go"}]
        if streamed:
            stream = await asking.chat.completions.create(model="one", messages=messages, stream=True)
            told = [chunk.choices[0].finish_reason async for chunk in stream if chunk.choices]
        else:
            told = [(await asking.chat.completions.create(model="one", messages=messages)).choices[0].finish_reason]
    assert told[-1] == reason


def client(api: Api) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{api.url}/v1", api_key=api.key, max_retries=2)


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(
    ("status", "error", "requests"),
    [
        (500, openai.InternalServerError, 2),  # ours alone: x-should-retry says so
        (401, openai.InternalServerError, 1),
        (429, openai.RateLimitError, 4),  # ours, and one for each of the client's two
        (400, openai.BadRequestError, 1),
    ],
)
async def test_openai_s_client_does_not_multiply_our_attempts(api, openai_fake, streamed, status, error, requests):
    wait = {"retry-after-ms": "10"} if status == 429 else {}
    openai_fake.will(*(Reply(status=status, headers=wait) for _ in range(9)))
    async with client(api) as asking:
        with pytest.raises(error):
            await asking.chat.completions.create(
                model="one", messages=[{"role": "user", "content": "go"}], stream=streamed
            )
    assert len(openai_fake.requests) == requests


async def test_a_stream_that_is_long_in_coming_is_opened_with_a_comment(opened, microdao, openai_fake):
    openai_fake.will(Reply(text=TEXT, delay_s=0.6), Reply(status=500, delay_s=0.6), Reply(status=500))
    async with opened(stream_hold_s=0.1, stream_ping_s=0.1, llm_timeout_s=9.0) as shared:
        api = await shared.for_member(microdao)
        slow = await ask(api, streamed=True)
        failed = await ask(api, streamed=True)
    assert (slow.status, slow.text, slow.is_complete) == (200, TEXT, True)
    assert slow.pings >= 2
    assert "x-daarion-provider" not in slow.headers, "nobody could know it at the start"
    assert (failed.status, failed.code, failed.text) == (200, "upstream_error", "")
    assert failed.pings >= 1


async def test_without_pings_a_stream_is_not_opened_early(opened, microdao, openai_fake):
    openai_fake.will(Reply(text=TEXT, delay_s=0.3))
    async with opened(stream_hold_s=0.05, stream_ping_s=0.0, llm_timeout_s=9.0) as shared:
        seen = await ask(await shared.for_member(microdao), streamed=True)
    assert (seen.pings, seen.text, seen.headers["x-daarion-provider"]) == (0, TEXT, "openai")


async def test_a_client_that_goes_away_is_accounted_once(api, openai_fake, database, microdao):
    openai_fake.will(Reply(text=TEXT, hang_after=1))
    body = {"model": "one", "messages": [{"role": "user", "content": "go"}], "stream": True}
    headers = {"authorization": f"Bearer {api.key}"}
    async with aiohttp.ClientSession() as session:
        response = await session.post(f"{api.url}/v1/chat/completions", json=body, headers=headers)
        await response.content.readuntil(b"one ")
        response.close()
    await openai_fake.until_disconnected()
    [row] = await eventually(lambda: ledger(database, microdao))
    assert (row["outcome"], row["usage_source"]) == ("cancelled", "estimated")
    assert row["completion_tokens"] > 0
    assert await held(database, microdao) == []


async def eventually(look: Any) -> Any:
    async with asyncio.timeout(10):
        while not (found := await look()):  # noqa: ASYNC110 - polled with a deadline
            await asyncio.sleep(0.02)
        return found


@asynccontextmanager
async def provider_process() -> AsyncIterator[tuple[str, asyncio.subprocess.Process]]:
    """A provider that can be killed."""
    command = (sys.executable, "-m", "tests.fakes.openai_server")
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    try:
        yield (await process.stdout.readline()).decode().strip(), process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def tell(url: str, reply: Reply) -> None:
    fields = {name: value for name, value in vars(reply).items() if value != getattr(Reply(), name)}
    async with aiohttp.ClientSession() as session:
        await session.post(f"{url.removesuffix('/v1')}/control", json={"replies": [fields]})


@pytest.mark.parametrize("has_begun", [False, True], ids=["before content", "after content"])
async def test_a_provider_killed_in_the_middle_of_a_call(opened, microdao, deepseek_fake, database, has_begun):
    deepseek_fake.will(GOOD)
    async with provider_process() as (url, process), opened(openai_base_url=url, llm_timeout_s=9.0) as shared:
        api = await shared.for_member(microdao)
        await tell(url, Reply(text=TEXT, hang_after=1 if has_begun else 0))
        asking = asyncio.create_task(ask(api, streamed=True, model="two"))
        await eventually(lambda: requests_of(url))
        await asyncio.sleep(0.1 if has_begun else 0)
        os.kill(process.pid, signal.SIGKILL)
        seen = await asking
    if has_begun:
        assert (seen.status, seen.code, seen.text) == (200, "upstream_error", "one ")
    else:
        assert (seen.status, seen.code, seen.text) == (200, None, TEXT)
        outcomes = [(row["provider"], row["outcome"]) for row in await ledger(database, microdao)]
        assert outcomes == [("openai", "failed"), ("openai", "failed"), ("deepseek", "succeeded")]


async def requests_of(url: str) -> list[Any]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{url.removesuffix('/v1')}/control") as response,
    ):
        return list((await response.json())["requests"])
