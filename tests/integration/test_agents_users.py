"""Whom an agent speaks with: recall, exchanges and memory tools are of the session's end user."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from shared.db.database import Database, Row, fetch_all
from shared.errors import NotFound
from shared.memory.channels import Message
from shared.memory.model import ScopeRef
from shared.policy.principal import agent_principal
from shared.settings import Settings
from shared.tools.model import ToolCallRequest
from tests.fakes.openai_server import FakeOpenAI, Reply
from tests.integration.api_server import Api, running_agents
from tests.integration.test_tools_chain import add
from tests.memories import AGENT, ask, new

BOB, OLENA, IHOR = "agent:bob", "olena", "ihor"
CHAT = "/v1/chat/completions"
SAID = "My locker opens with the word xylophone."
ASKED = "Which word opens my locker, xylophone?"


@pytest.fixture
async def fake() -> AsyncIterator[FakeOpenAI]:
    async with FakeOpenAI() as server:
        yield server


@pytest.fixture
async def api(settings: Settings, fake: FakeOpenAI, microdao: str, database: Database) -> AsyncIterator[Api]:
    async with database.tenant(microdao) as connection:
        await connection.execute("INSERT INTO agent VALUES (%s, %s, 'Bob', 'sofia')", (microdao, BOB))
    async with running_agents(settings, fake.base_url, microdao) as running:
        await running.services.toolbox.seed(microdao, AGENT)
        await running.services.toolbox.seed(microdao, BOB)
        async with database.tenant(microdao) as connection:
            await connection.execute(
                'UPDATE blueprint_version SET definition = definition || \'{"tools": {"strategy": "all"}}\''
            )
        yield running


@pytest.fixture
async def http(api: Api) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"authorization": f"Bearer {api.key}"}
    async with httpx.AsyncClient(base_url=api.url, headers=headers, timeout=60) as client:
        yield client


async def say(http: httpx.AsyncClient, text: str, model: str = "sofia", **more: Any) -> httpx.Response:
    return await http.post(CHAT, json={"model": model, "messages": [{"role": "user", "content": text}], **more})


async def session(http: httpx.AsyncClient, text: str, **more: Any) -> str:
    """The session that a turn opened or went on with."""
    answer = await say(http, text, **more)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["model"])


def prompt(fake: FakeOpenAI) -> str:
    return str(fake.requests[-1].body["messages"][0]["content"])


async def kept(database: Database, microdao: str) -> list[tuple[str, str, str]]:
    """Each memory: whose it is, and its text."""
    async with database.tenant(microdao) as connection:
        rows = await fetch_all(
            connection,
            "SELECT s.kind, s.name, i.text FROM memory_item i JOIN memory_scope s USING (scope_id) ORDER BY i.number",
        )
    return [(row["kind"], row["name"], row["text"]) for row in rows]


async def rows(database: Database, microdao: str, table: str) -> list[Row]:
    async with database.tenant(microdao) as connection:
        return await fetch_all(connection, f"SELECT * FROM {table} ORDER BY id")


async def test_what_one_user_says_is_recalled_for_that_one_alone(http, fake, database, microdao):
    await session(http, SAID, user=OLENA)
    assert [(kind, name) for kind, name, _ in await kept(database, microdao)] == [("user", OLENA)]
    for user, is_told in ((OLENA, True), (IHOR, False), (None, False), ("%", False)):
        await session(http, ASKED, **({"user": user} if user else {}))
        assert (SAID in prompt(fake)) == is_told, user
    places = [(kind, name) for kind, name, _ in await kept(database, microdao)]
    assert places[1:] == [("user", OLENA), ("user", IHOR), ("agent", AGENT), ("user", "%")]


async def test_what_nobody_in_particular_said_is_recalled_for_everybody(http, fake):
    await session(http, SAID)
    for more in ({"user": OLENA}, {"user": IHOR}, {}):
        await session(http, ASKED, **more)
        assert SAID in prompt(fake)


async def test_what_is_said_in_a_channel_for_a_user_is_shown_to_that_one(http, fake, api, microdao):
    for user in (OLENA, IHOR):
        scope = ScopeRef("user", user)
        await api.services.memory.channels.post(microdao, AGENT, "room", [Message(text=f"for {user}")], scope)
    await session(http, "hm?", user=OLENA, metadata={"channel_id": "room"})
    assert "for olena" in prompt(fake)
    assert "for ihor" not in prompt(fake)
    await session(http, "hm?", metadata={"channel_id": "room"})
    assert "for " not in prompt(fake).partition("Said lately")[2]


async def test_the_newer_name_goes_before_the_older(http, database, microdao):
    """Whose older one may be a key of caches that several users share."""
    await session(http, SAID, safety_identifier=OLENA, user="everybody")
    await session(http, SAID, safety_identifier=None, user=IHOR)
    await session(http, SAID, metadata={"user_id": "nina"}, safety_identifier=OLENA)
    assert [name for _, name, _ in await kept(database, microdao)] == [OLENA, IHOR, "nina"]


async def test_a_session_keeps_its_user_and_is_no_other_users(http, fake, api, database, microdao):
    first = await session(http, SAID, user=OLENA)
    assert (await http.get(f"/agents/{first}/state")).json()["user_id"] == OLENA
    unknown = await say(http, "hello?", model="sess_unknown", user=IHOR)
    before = await kept(database, microdao)
    for model, more in ((first, {}), ("sofia", {"metadata": {"session_id": first}})):
        refused = await say(http, "hello?", model=model, user=IHOR, **more)
        told = {**refused.json()["error"], "message": refused.json()["error"]["message"].replace(first, "sess_unknown")}
        assert (refused.status_code, told) == (404, unknown.json()["error"])
    assert await kept(database, microdao) == before
    messages = (await http.get(f"/agents/{first}/state")).json()["messages"]
    assert "hello?" not in str(messages)
    for more in ({}, {"user": OLENA}, {"safety_identifier": OLENA}):
        assert await session(http, f"And again {sorted(more)}?", model=first, **more) == first
    assert {name for _, name, _ in await kept(database, microdao)} == {OLENA}


async def test_the_sessions_of_a_user_are_listed(http):
    of_olena = [await session(http, SAID, user=OLENA) for _ in range(3)]
    await session(http, SAID, user=IHOR)
    await session(http, SAID)
    page = (await http.get("/agents", params={"user_id": OLENA, "limit": 2})).json()
    rest = (await http.get("/agents", params={"user_id": OLENA, "before": page["next"]})).json()
    assert [one["session_id"] for one in page["agents"] + rest["agents"]] == of_olena[::-1]
    assert {one["user_id"] for one in page["agents"]} == {OLENA}
    assert (page["total"], (await http.get("/agents")).json()["total"]) == (3, 5)


async def test_another_tenants_session_is_not_there(http, api, other_microdao):
    kept = await session(http, SAID, user=OLENA)
    with pytest.raises(NotFound):
        await api.services.agents.sessions.delete(other_microdao, kept)
    assert await api.services.agents.sessions.list(other_microdao, OLENA, None, 9) == ([], 0)
    assert (await http.get(f"/agents/{kept}/state")).status_code == 200


async def test_memory_and_sessions_hold_nothing_of_a_user_who_is_forgotten(http, api, database, microdao):
    await session(http, SAID, user=OLENA)
    kept = await session(http, "hello", user=IHOR)
    for one in (await http.get("/agents", params={"user_id": OLENA})).json()["agents"]:
        assert (await http.delete(f"/agents/{one['session_id']}")).json() == {"ok": True}
        assert (await http.delete(f"/agents/{one['session_id']}")).status_code == 404
        assert (await http.get(f"/agents/{one['session_id']}/state")).status_code == 404
        assert (await say(http, "still there?", one["session_id"])).status_code == 404
    await api.services.memory.users.forget(microdao, AGENT, OLENA)
    assert [row["id"] for row in await rows(database, microdao, "session")] == [kept]
    for table in ("session_message", "memory_item", "memory_posting"):
        async with database.tenant(microdao) as connection:
            found = await fetch_all(connection, f"SELECT t::text AS row FROM {table} t")
        assert not [row for row in found if "xylophone" in row["row"]], table


async def test_a_turn_loses_a_session_that_is_deleted(http, fake, database, microdao):
    fake.will(Reply(text="too late", delay_s=1.0))
    turn = asyncio.create_task(say(http, SAID, user=OLENA))
    async with asyncio.timeout(10):
        while not fake.requests:  # noqa: ASYNC110 - the model is asked when the session is there
            await asyncio.sleep(0.01)
    (row,) = await rows(database, microdao, "session")
    await http.delete(f"/agents/{row['id']}")
    answer = await turn
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "illegal_state")
    assert await rows(database, microdao, "session") == await kept(database, microdao) == []


async def test_a_session_of_nobody_in_particular_stays_nobodys(http, database, microdao):
    first = await session(http, SAID)
    assert (await say(http, "hello?", model=first, user=OLENA)).status_code == 404
    assert await session(http, "hello?", model=first) == first
    assert {(kind, name) for kind, name, _ in await kept(database, microdao)} == {("agent", AGENT)}


async def test_a_name_that_would_not_be_heard_is_refused(http, database, microdao):
    answer = await say(http, SAID, user_id=OLENA)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "user_id")
    answer = await say(http, SAID, metadata={"user_id": 7})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "metadata.user_id")
    assert await kept(database, microdao) == []


@pytest.mark.parametrize("name", ["user", "safety_identifier"])
async def test_what_is_no_users_id_is_refused_by_agents(http, database, microdao, name):
    for value in ("", "x" * 201, 7, ["olena"], {"id": "olena"}, False):
        answer = await say(http, SAID, **{name: value})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, name), value
    for text in (b'"a\\u0000b"', b'"\\ud800"'):
        body = b'{"model": "sofia", "messages": [{"role": "user", "content": "hi"}], "%s": %s}' % (name.encode(), text)
        assert (await http.post(CHAT, content=body, headers={"content-type": "application/json"})).status_code == 400
    assert await kept(database, microdao) == []
    assert await rows(database, microdao, "session") == []


async def test_a_plain_model_is_still_sent_who_asks(http, fake):
    await say(http, "hi", model="gpt-4.1-mini", user=7, safety_identifier="")
    body = fake.requests[-1].body
    assert (body["user"], body["safety_identifier"]) == (7, "")
    await say(http, "hi", user=OLENA, safety_identifier=IHOR)
    assert {"user", "safety_identifier"}.isdisjoint(fake.requests[-1].body), "as ever: what agents send is their own"


def call(name: str, **args: Any) -> Reply:
    return Reply(tool_calls=[{"name": name, "arguments": args}])


async def used(http: httpx.AsyncClient, fake: FakeOpenAI, tool: str, user: str | None, **args: Any) -> Any:
    """What a tool that the agent calls in a turn with this user answers."""
    fake.will(call(tool, **args), Reply(text="done"))
    await session(http, "please do", **({"user": user} if user else {}))
    return json.loads(fake.requests[-1].body["messages"][-1]["content"])


async def test_memory_tools_act_for_the_sessions_user(http, fake, database, microdao):
    for user in (OLENA, None):
        await used(http, fake, "memory_store", user, text=f"The xylophone belongs to {user}.")
        await used(http, fake, "document_create", user, title="Notes", text=f"A xylophone manual for {user}.")
    places = {
        text.rpartition(" ")[2]: (kind, name) for kind, name, text in await kept(database, microdao) if "xylo" in text
    }
    assert places == {"olena.": ("user", OLENA), "None.": ("agent", AGENT)}
    for user, told in ((OLENA, ["None.", "olena."]), (IHOR, ["None."]), (None, ["None."])):
        memories = (await used(http, fake, "memory_search", user, query="xylophone belongs", k=20))["memories"]
        assert sorted(one["text"].rpartition(" ")[2] for one in memories if "belongs" in one["text"]) == told, user
        results = (await used(http, fake, "search_docs", user, query="xylophone manual"))["results"]
        assert sorted(one["snippet"].split()[-1] for one in results if "manual" in one["snippet"]) == told, user


async def test_a_summary_of_a_channel_is_for_the_sessions_user(http, fake, api, microdao):
    text = "The xylophone is sold for three hundred euros."
    await api.services.memory.channels.post(microdao, AGENT, "room", [Message(text=text)], ScopeRef("user", OLENA))
    for user, count in ((OLENA, 1), (IHOR, 0), (None, 0)):
        fake.will(call("summarize_channel", channel="room"), *([Reply(text="sold")] if count else []))
        fake.will(Reply(text="done"))
        await session(http, "please do", **({"user": user} if user else {}))
        assert json.loads(fake.requests[-1].body["messages"][-1]["content"])["messages"] == count, user


async def test_a_queued_tool_acts_for_the_user_in_its_row(api, database, microdao):
    """Nothing but the execution's id is in its message."""
    memory, toolbox = api.services.memory, api.services.toolbox
    for user in (OLENA, None):
        request = ToolCallRequest(microdao, AGENT, "memory.store", {"text": f"xylophone {user}"}, "k", user_id=user)
        outcome = await toolbox.enqueue(agent_principal(AGENT, microdao), request)
        async with database.tenant(microdao) as connection:
            (job,) = await fetch_all(
                connection, "SELECT body FROM outbox WHERE body ->> 'execution_id' = %s", (outcome.execution_id,)
            )
        assert OLENA not in json.dumps(job["body"])
        assert (await toolbox.run_queued(microdao, outcome.execution_id, None)).status == "succeeded"
    assert await kept(database, microdao) == [("user", OLENA, "xylophone olena"), ("agent", AGENT, "xylophone None")]
    assert len(await memory.query(ask(microdao, "xylophone", user_id=OLENA))) == 2
    assert len(await memory.query(ask(microdao, "xylophone"))) == 1


async def test_a_tool_that_is_called_acts_for_the_user_who_is_named(http, database, microdao):
    for user in (OLENA, None):
        named = {} if user is None else {"user_id": user}
        body = {"tool_name": "memory.store", "agent_id": AGENT, "args": {"text": f"xylophone {user}"}, **named}
        answer = await http.post("/internal/tools/call", json=body)
        assert answer.json()["status"] == "succeeded", answer.text
    assert await kept(database, microdao) == [("user", OLENA, "xylophone olena"), ("agent", AGENT, "xylophone None")]
    answer = await http.post("/internal/tools/call", json=body | {"user_id": ""})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "user_id")


async def test_a_key_answers_no_other_user_with_the_first_ones_result(api, microdao):
    await api.services.memory.store(new(microdao, "xylophone", scope=ScopeRef("user", OLENA)))
    statuses = []
    for user in (OLENA, OLENA, IHOR, None):
        request = ToolCallRequest(
            microdao, AGENT, "memory.search", {"query": "xylophone"}, "k", idempotency_key="same", user_id=user
        )
        try:
            outcome = await api.services.toolbox.execute(agent_principal(AGENT, microdao), request)
            statuses.append(len(outcome.result["memories"]))
        except Exception as error:
            statuses.append(type(error).__name__)
    assert statuses == [1, 1, "IdempotencyConflict", "IdempotencyConflict"]


async def test_chains_and_agents_that_are_asked_act_for_the_user_too(http, fake, api, database, microdao):
    text = {"type": "object", "required": ["input"], "properties": {"input": {"type": "string"}}}
    steps = [{"id": "one", "tool": "memory.store", "args": {"text": "{{args.input}}"}}]
    await add(database, microdao, "note", "chain", {"steps": steps}, text)
    await add(database, microdao, "ask_bob", "agent", {"agent_id": BOB}, text)
    for user in (OLENA, None):
        await used(http, fake, "note", user, input=f"A xylophone for {user}.")
        fake.will(call("ask_bob", input=f"A drum for {user}."), Reply(text="said Bob"), Reply(text="done"))
        await session(http, "please do", **({"user": user} if user else {}))
    places = [
        (*place, text.split()[1]) for *place, text in await kept(database, microdao) if "xylo" in text or "drum" in text
    ]
    assert places == [
        ("user", OLENA, "xylophone"),
        ("user", OLENA, "drum"),
        ("agent", AGENT, "xylophone"),
        ("agent", BOB, "drum"),
    ]
    with_bob = await api.services.memory.query(ask(microdao, "drum", agent_id=BOB, user_id=OLENA))
    assert [one.scope for one in with_bob if "olena" in one.text] == [ScopeRef("user", OLENA)]
    with_sofia = await api.services.memory.query(ask(microdao, "A drum for olena", user_id=OLENA, scopes=("user",)))
    assert not [one for one in with_sofia if one.text.startswith("A drum")], "Bob's user is another than Sofia's"


async def test_two_users_at_once_each_get_their_own(http, fake, database, microdao):
    await asyncio.gather(*(session(http, f"{user}'s word is {user * 2}.", user=user) for user in (OLENA, IHOR) * 4))
    for kind, name, text in await kept(database, microdao):
        assert kind == "user"
        assert text.startswith(f"{name}'s word")
