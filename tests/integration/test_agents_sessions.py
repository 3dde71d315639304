"""Sessions that are pushed to their limits: long ones, odd ones, and ones whose process or turn is lost."""

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from localstack.process import free_port
from shared.agents.runtime import AgentRuntime
from shared.agents.sessions import MAX_HISTORY, Session
from shared.agents.turn import TextDelta
from shared.db.database import Database, Row, fetch_all
from shared.errors import ContextLengthExceeded, IllegalState
from shared.policy.principal import Principal
from shared.settings import ROOT, Settings
from shared.wire.chat import ChatMetadata, ChatRequest
from tests.fakes.openai_server import FakeOpenAI, Reply
from tests.integration.api_server import Api, running_agents

CHAT = "/v1/chat/completions"
SECRET = "the-purple-elephant"
HELLO = {"role": "user", "content": f"hello {SECRET}"}


@pytest.fixture
async def fake() -> AsyncIterator[FakeOpenAI]:
    async with FakeOpenAI() as server:
        yield server


@pytest.fixture
async def api(settings: Settings, fake: FakeOpenAI, microdao: str) -> AsyncIterator[Api]:
    async with running_agents(settings, fake.base_url, microdao) as running:
        yield running


@pytest.fixture
async def http(api: Api) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"authorization": f"Bearer {api.key}"}
    async with httpx.AsyncClient(base_url=api.url, headers=headers, timeout=30) as client:
        yield client


@pytest.fixture
async def principal(api: Api) -> Principal:
    return await api.services.keys.authenticate(api.key)


async def ask(http: httpx.AsyncClient, *messages: dict[str, Any], model: str = "sofia", **more: Any) -> httpx.Response:
    return await http.post(CHAT, json={"model": model, "messages": list(messages) or [HELLO], **more})


async def test_a_logical_model_goes_before_a_blueprint_of_its_name(http, api, microdao, database, fake):
    async with database.tenant(microdao) as connection:
        await connection.execute("UPDATE agent SET blueprint_code = 'gpt-4.1'")
        await connection.execute("UPDATE blueprint SET code = 'gpt-4.1' WHERE code = 'sofia'")
    plain = await ask(http, model="gpt-4.1")
    assert (plain.status_code, plain.json()["model"]) == (200, "gpt-4.1")
    by_agent = await ask(http, model="auto")
    assert by_agent.json()["model"].startswith("sess_")
    listed = [one["id"] for one in (await http.get("/v1/models")).json()["data"]]
    assert listed.count("gpt-4.1") == 1


@pytest.mark.parametrize(
    ("model", "metadata"),
    [("agent:sofia", {}), ("agent:sofia", {"agent_id": "agent:sofia"}), ("writer_agent", {"agent_id": "agent:sofia"})],
)
async def test_who_names_an_agent_as_a_model_is_told_how_to_ask_it(http, model, metadata):
    answer = await ask(http, model=model, metadata=metadata)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
    assert "'auto' with the id in metadata.agent_id" in answer.json()["error"]["message"]
    as_told = await ask(http, model="auto", metadata={"agent_id": "agent:sofia"})
    assert as_told.json()["model"].startswith("sess_")


async def open_session(api: Api, microdao: str, *messages: dict[str, Any]) -> Session:
    sessions = api.services.agents.sessions
    agent = await sessions.resolve_agent(microdao, "sofia", ChatMetadata())
    assert agent is not None
    return await sessions.open(agent, None, list(messages) or [HELLO])


async def rows(database: Database, microdao: str, table: str, order: str = "1") -> list[Row]:
    async with database.tenant(microdao) as connection:
        return await fetch_all(connection, f"SELECT * FROM {table} ORDER BY {order}")


async def fall_silent(database: Database, microdao: str, seconds: int) -> None:
    async with database.tenant(microdao) as connection:
        await connection.execute(
            "UPDATE session SET updated_at = updated_at - make_interval(secs => %s) WHERE state = 'RUNNING'", (seconds,)
        )


async def until(condition: Any, seconds: float = 15) -> Any:
    """What ``condition`` gives as soon as it is truthy."""
    async with asyncio.timeout(seconds):
        while not (value := await condition()):  # noqa: ASYNC110 - polled with a deadline
            await asyncio.sleep(0.02)
    return value


async def drain(turn: AsyncIterator[Any]) -> None:
    async for _ in turn:
        pass


async def test_a_full_session_says_so(http, api, database, microdao):
    session = await open_session(api, microdao, *[HELLO] * MAX_HISTORY)
    await api.services.agents.sessions.finish(
        session, state="COMPLETED", iterations=0, cost_microusd=0, reply=None, result=None
    )
    answer = await ask(http, HELLO, model=session.id)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["code"] == "context_length_exceeded"
    assert "new session" in answer.json()["error"]["message"]
    assert (await rows(database, microdao, "session"))[0]["state"] == "COMPLETED"


async def test_a_conversation_too_long_to_open(http, database, microdao):
    answer = await ask(http, *[HELLO] * (MAX_HISTORY + 1))
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "context_length_exceeded")
    assert await rows(database, microdao, "session") == []


async def test_a_session_that_grows_too_long_in_its_turn(api, fake, database, microdao, principal):
    fake.will(Reply(tool_calls=[{"name": "nothing", "arguments": {}}]))
    session = await open_session(api, microdao, *[HELLO] * MAX_HISTORY)
    request = ChatRequest.model_validate({"model": "sofia", "messages": [HELLO]})
    with pytest.raises(ContextLengthExceeded):
        await drain(api.services.agents.run(principal, session, request))
    assert (await rows(database, microdao, "session"))[0]["state"] == "FAILED"


async def test_what_cannot_be_sent_is_not_logged(http, fake, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG)
    fake.will(Reply(tool_calls=[{"name": f"{SECRET}{'x' * 70}", "arguments": {}}]))
    answer = await ask(http)
    assert answer.status_code == 400, answer.text
    assert SECRET not in answer.text
    assert SECRET not in caplog.text


@pytest.mark.parametrize("number", [1e30, 2.0**63, 1.5, -(2**63)])
async def test_messages_come_back_as_they_were(http, fake, number):
    message = HELLO | {"x": number}
    opened = await ask(http, message)
    assert opened.status_code == 200, opened.text
    again = await ask(http, {"role": "user", "content": "and now?"}, model=opened.json()["model"])
    assert again.status_code == 200, again.text
    assert fake.requests[1].body["messages"][1]["x"] == number


async def test_blanks_before_the_question(http, fake):
    answer = await ask(http, {"role": "user", "content": " " * 4000 + "hello"})
    assert answer.status_code == 200, answer.text


async def test_a_stopped_process_does_its_books(http, settings, fake, database, database_url, microdao, tmp_path):
    fake.will(Reply(text="one two three four", chunk_delay_s=0.05, hang_after=2))
    port = free_port()
    environment = {
        "PATH": os.environ["PATH"],
        "DATABASE_URL": database_url,
        "DAARION_SECRET_KEY": settings.secret_key,
        "DAARION_HOME": str(settings.home),
        "OPENAI_API_KEY": "sk-fake",
        "OPENAI_BASE_URL": fake.base_url,
        "LOCAL_LLM_BASE_URL": "none",
    }
    arguments = ["--port", str(port), "--timeout-graceful-shutdown", "1", "--log-level", "warning"]
    with (tmp_path / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "uvicorn", "functions.chat.app:app", *arguments),
            cwd=ROOT,
            env=environment,
            stdout=log,
            stderr=log,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        await until(lambda: _answers(http, f"{url}/healthz"))
        body = {"model": "sofia", "messages": [HELLO], "stream": True}
        async with http.stream("POST", url + CHAT, json=body) as answer:
            with contextlib.suppress(httpx.HTTPError):
                async for line in answer.aiter_lines():
                    if '"content":"one' in line:
                        process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(process.wait(), 15)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    log_text = (tmp_path / "log").read_text()
    assert [row["state"] for row in await rows(database, microdao, "session")] == ["CANCELLED"], log_text
    assert [row["outcome"] for row in await rows(database, microdao, "llm_ledger")] == ["cancelled"], log_text


async def _answers(http: httpx.AsyncClient, url: str) -> bool:
    try:
        return (await http.get(url)).status_code == 200
    except httpx.HTTPError:
        return False


async def test_a_lost_session_is_taken_over_and_its_turn_stops(api, database, microdao):
    sessions = api.services.agents.sessions
    lost = await open_session(api, microdao)
    with pytest.raises(IllegalState):
        await sessions.resume(microdao, lost.id, [HELLO])
    await fall_silent(database, microdao, 61)
    taken = await sessions.resume(microdao, lost.id, [HELLO])

    assert not await sessions.keep_alive(lost)
    with pytest.raises(IllegalState):
        await sessions.append(lost, [{"role": "assistant", "content": "too late"}])
    ending = {"state": "COMPLETED", "iterations": 1, "cost_microusd": 5, "result": "too late"}
    assert not await sessions.finish(lost, reply={"role": "assistant", "content": "too late"}, **ending)
    (row,) = await rows(database, microdao, "session")
    assert (row["state"], row["turn_id"], row["cost_microusd"]) == ("RUNNING", taken.turn_id, 0)
    assert "too late" not in json.dumps([one["message"] for one in await rows(database, microdao, "session_message")])

    assert await sessions.finish(taken, reply={"role": "assistant", "content": "in time"}, **ending)
    assert (await rows(database, microdao, "session"))[0]["state"] == "COMPLETED"


async def test_a_turn_that_lost_its_session_does_not_go_on(api, fake, database, microdao, principal):
    fake.will(Reply(text="one two three", chunk_delay_s=0.05))
    session = await open_session(api, microdao)
    request = ChatRequest.model_validate({"model": "sofia", "messages": [HELLO]})
    turn = api.services.agents.run(principal, session, request)
    assert isinstance(await anext(turn), TextDelta)
    await fall_silent(database, microdao, 61)
    await api.services.agents.sessions.resume(microdao, session.id, [HELLO])
    with pytest.raises(IllegalState):
        await drain(turn)
    assert (await rows(database, microdao, "session"))[0]["state"] == "RUNNING"


async def test_a_long_turn_shows_that_it_lives(api, fake, database, microdao, principal):
    services = api.services
    runtime = AgentRuntime(
        services.database, services.gateway, services.memory, services.toolbox, services.policy, heartbeat_s=0.05
    )
    fake.will(Reply(text="one two", hang_after=1))
    session = await open_session(api, microdao)
    request = ChatRequest.model_validate({"model": "sofia", "messages": [HELLO]})
    turn = runtime.run(principal, session, request)
    await anext(turn)
    await fall_silent(database, microdao, 90)
    await until(lambda: fresh(database, microdao))
    with pytest.raises(IllegalState):
        await services.agents.sessions.resume(microdao, session.id, [HELLO])
    await turn.aclose()
    await runtime.close()
    assert (await rows(database, microdao, "session"))[0]["state"] == "CANCELLED"


async def fresh(database: Database, microdao: str) -> list[Row]:
    async with database.tenant(microdao) as connection:
        return await fetch_all(connection, "SELECT id FROM session WHERE updated_at > now() - interval '10 s'")


async def test_the_sweep_fails_what_nobody_answers(api, database, microdao):
    silent = await open_session(api, microdao)
    await fall_silent(database, microdao, 121)
    alive = await open_session(api, microdao)
    assert await api.services.agents.sweep() >= 1
    states = {row["id"]: row["state"] for row in await rows(database, microdao, "session")}
    assert states == {silent.id: "FAILED", alive.id: "RUNNING"}
    with pytest.raises(IllegalState):
        await api.services.agents.sessions.append(silent, [HELLO])
    resumed = await api.services.agents.sessions.resume(microdao, silent.id, [HELLO])
    assert len(resumed.history) == 2
