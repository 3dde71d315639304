"""An agent's memory parted by end user, over HTTP: what is kept for one is nobody else's, at every endpoint."""

import asyncio
import io
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import aiohttp
import orjson
import pytest
from yarl import URL

from shared.db.database import Database, fetch_all
from shared.settings import Settings
from tests.integration.api_server import Api, running_api
from tests.memories import AGENT, index_all

MEMORY = "/internal/agent-memory"
ITEMS = f"{MEMORY}/agents/{AGENT}/items"
USERS = f"{MEMORY}/agents/{AGENT}/users"
DOCUMENTS = f"{MEMORY}/documents"
BOB, OLENA, IHOR = "agent:bob", "olena", "ihor"
SECRET = "xylophone"
SPECIAL = [
    "a/b/c",
    "50% off?",
    "50%25",
    "o'lena; --",
    "Олена 👩‍🌾",
    "_",
    "%",
    "%lena",
    ".hidden",
    "a b+c&d=e#f",
    "a//b",
    "x/",
]


@pytest.fixture
async def api(settings: Settings, database: Database, microdao: str) -> AsyncIterator[Api]:
    async with database.tenant(microdao) as connection:
        await connection.execute("INSERT INTO agent VALUES (%s, %s, 'Bob', 'sofia')", (microdao, BOB))
    async with running_api(settings) as api:
        yield await api.for_member(microdao)


async def call(api: Api, method: str, path: str, body: Any = None, **query: Any) -> tuple[int, dict[str, Any]]:
    """``path`` is sent as it is: who calls has quoted it."""
    headers = {"Authorization": f"Bearer {api.key}", "content-type": "application/json"}
    data = None if body is None else io.BytesIO(body if isinstance(body, bytes) else orjson.dumps(body))
    text = "&".join(f"{name}={quote(str(value), safe='')}" for name, value in query.items() if value is not None)
    url = URL(f"{api.url}{path}{'?' + text if text else ''}", encoded=True)
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.request(method, url, data=data) as answer,
    ):
        return answer.status, await answer.json()


async def done(api: Api, method: str, path: str, body: Any = None, **query: Any) -> dict[str, Any]:
    """The answer of a call that must succeed."""
    status, answer = await call(api, method, path, body, **query)
    assert status in (200, 201), answer
    return answer


def about(agent: str, user: str | None, **fields: Any) -> dict[str, Any]:
    return {"agent_id": agent, **({"user_id": user} if user is not None else {}), **fields}


async def store(api: Api, text: str, user: str | None = None, agent: str = AGENT, **fields: Any) -> str:
    answer = await done(api, "POST", f"{MEMORY}/store", about(agent, user, content={"text": text}, **fields))
    return str(answer["id"])


async def document(api: Api, text: str, user: str | None = None, agent: str = AGENT) -> str:
    return str((await done(api, "POST", DOCUMENTS, about(agent, user, text=text)))["id"])


async def found(api: Api, query: str, user: str | None = None, agent: str = AGENT, **fields: Any) -> list[str]:
    """The ids of what a query finds."""
    answer = await done(api, "POST", f"{MEMORY}/query", about(agent, user, query=query, k=50, **fields))
    return sorted(one["id"] for one in answer["memories"])


async def listed(api: Api, user: str | None = None, agent: str = AGENT, **query: Any) -> list[dict[str, Any]]:
    page = await done(api, "GET", f"{MEMORY}/agents/{agent}/items", user_id=user, **query)
    return list(page["items"])


async def users(api: Api, agent: str = AGENT, **query: Any) -> dict[str, int]:
    page = await done(api, "GET", f"{MEMORY}/agents/{agent}/users", **query)
    return {one["user_id"]: one["items"] for one in page["users"]}


async def rows_of(database: Database, microdao: str, *tables: str) -> list[int]:
    """How many rows the tenant has in each."""
    async with database.tenant(microdao) as connection:
        return [len(await fetch_all(connection, f"SELECT 1 FROM {table}")) for table in tables]


async def test_what_is_kept_for_a_user_is_found_for_that_one_alone(api: Api, database: Database, microdao: str):
    hers = await store(api, f"The {SECRET} is Olena's.", OLENA)
    his = await store(api, f"The {SECRET} is Ihor's.", IHOR)
    nobodys = await store(api, f"The {SECRET} is in tune.")
    await index_all(api.services.memory, database, microdao)
    for mode in ("hybrid", "vector", "lexical"):
        query = f"whose is the {SECRET}?"
        assert await found(api, query, OLENA, mode=mode) == sorted([hers, nobodys])
        assert await found(api, query, IHOR, mode=mode) == sorted([his, nobodys])
        for user in (None, "nina", "%", "Olena", AGENT):
            assert await found(api, query, user, mode=mode) == [nobodys], (mode, user)
        for user in (None, OLENA):
            assert await found(api, query, user, BOB, mode=mode) == []
    assert await found(api, SECRET, OLENA, scopes=["user"]) == [hers]
    assert await found(api, SECRET, OLENA, scopes=["agent"]) == [nobodys]
    assert await found(api, SECRET, scopes=["user"]) == []
    answer = await done(
        api, "POST", f"{MEMORY}/query", about(AGENT, OLENA, query=SECRET, scopes=["user"], explain=True)
    )
    assert [(one["scope"], "lexical" in one["why"]) for one in answer["memories"]] == [
        ({"kind": "user", "name": OLENA}, True)
    ]


async def test_lists_and_single_items_are_of_the_user_and_of_nobody_in_particular(api: Api):
    hers, his, nobodys = [await store(api, f"{SECRET} of {user}", user) for user in (OLENA, IHOR, None)]
    kept_for = {user: {one["id"] for one in await listed(api, user)} for user in (OLENA, IHOR, None, "nina")}
    assert kept_for == {OLENA: {hers, nobodys}, IHOR: {his, nobodys}, None: {nobodys}, "nina": {nobodys}}
    (item,) = await listed(api, OLENA, scope="user")
    assert (item["scope"], item["agent_id"]) == ({"kind": "user", "name": OLENA}, AGENT)
    for user, agent in ((None, AGENT), (IHOR, AGENT), (OLENA, BOB), (None, BOB)):
        path = f"{MEMORY}/agents/{agent}/items/{hers}"
        assert (await call(api, "DELETE", path, user_id=user))[0] == 404, (user, agent)
    assert hers in {one["id"] for one in await listed(api, OLENA)}
    await done(api, "DELETE", f"{ITEMS}/{hers}", user_id=OLENA)
    assert {one["id"] for one in await listed(api, OLENA)} == {nobodys}
    await done(api, "DELETE", f"{ITEMS}/{nobodys}", user_id=OLENA)
    assert {one["id"] for one in await listed(api, IHOR)} == {his}


async def test_forgetting_by_filter_is_of_one_memory(api: Api):
    ids = {user: await store(api, f"{SECRET} of {user}", user) for user in (OLENA, IHOR, None)}
    tiers = ["short_term", "mid_term", "long_term"]
    for user, agent in ((OLENA, BOB), ("nina", AGENT), (None, BOB)):
        gone = await done(api, "POST", f"{MEMORY}/forget", about(agent, user, memory_types=tiers))
        assert gone == {"forgotten": 0}
    assert await done(api, "POST", f"{MEMORY}/forget", about(AGENT, OLENA, memory_types=tiers)) == {"forgotten": 1}
    assert await found(api, SECRET, OLENA) == [ids[None]]
    assert await done(api, "POST", f"{MEMORY}/forget", about(AGENT, None, memory_types=tiers)) == {"forgotten": 1}
    assert await found(api, SECRET, IHOR) == [ids[IHOR]]


async def test_neighbours_and_recent_messages_are_of_the_same_user(api: Api):
    """Of one session and one channel, which two users and the agent itself wrote into."""
    for number, user in enumerate((OLENA, IHOR, None, OLENA, IHOR, None)):
        moment = f"2026-05-01T12:00:0{number}Z"
        fields = {"session_id": "sess_1", "occurred_at": moment}
        await store(api, f"{SECRET} {user} {number}", user, **fields)
    asked = about(AGENT, OLENA, query=SECRET, scopes=["user"], context_turns=5, k=50)
    for one in (await done(api, "POST", f"{MEMORY}/query", asked))["memories"]:
        texts = [turn["text"] for turn in (*one["before"], *one["after"])]
        assert len(texts) == 1
        assert all(OLENA in text for text in texts)
    for user, told in ((OLENA, {OLENA, "None"}), (IHOR, {IHOR, "None"}), (None, {"None"}), ("nina", {"None"})):
        answer = await done(api, "POST", f"{MEMORY}/recent", about(AGENT, user, session_id="sess_1"))
        assert {message["text"].split()[1] for message in answer["messages"]} == told, user
    path = "/internal/channels/room/messages"
    sent = [{"id": "1", "text": f"{SECRET} in the room"}]
    for user in (OLENA, IHOR, None):
        for agent in (AGENT, BOB):
            await done(api, "POST", path, about(agent, user, messages=sent))
    for user, count in ((OLENA, 2), (IHOR, 2), (None, 1), ("nina", 1)):
        answer = await done(api, "POST", f"{MEMORY}/recent", about(AGENT, user, channel_id="room"))
        assert len(answer["messages"]) == count, user


async def test_documents_are_of_the_user(api: Api):
    text = f"The {SECRET} has bars of rosewood."
    hers, his, nobodys, elsewhere = [
        await document(api, text, user, agent)
        for user, agent in ((OLENA, AGENT), (IHOR, AGENT), (None, AGENT), (OLENA, BOB))
    ]
    assert len({hers, his, nobodys, elsewhere}) == 4
    assert await document(api, text, OLENA) == hers, "the same bytes are kept once"
    for user, ids in ((OLENA, {hers, nobodys}), (IHOR, {his, nobodys}), (None, {nobodys})):
        page = await done(api, "GET", DOCUMENTS, agent_id=AGENT, user_id=user)
        assert {one["id"] for one in page["documents"]} == ids, user
        for one in (hers, his, nobodys):
            status, _ = await call(api, "GET", f"{DOCUMENTS}/{one}", agent_id=AGENT, user_id=user)
            assert status == (200 if one in ids else 404), user
    view = await done(api, "GET", f"{DOCUMENTS}/{hers}", agent_id=AGENT, user_id=OLENA)
    assert view["scope"] == {"kind": "user", "name": OLENA}
    for user, agent in ((None, AGENT), (IHOR, AGENT), (OLENA, BOB)):
        assert (await call(api, "DELETE", f"{DOCUMENTS}/{hers}", agent_id=agent, user_id=user))[0] == 404
    await done(api, "DELETE", f"{DOCUMENTS}/{hers}", agent_id=AGENT, user_id=OLENA)
    assert await found(api, "rosewood", OLENA, scopes=["user"]) == []
    assert len(await found(api, "rosewood", IHOR, scopes=["user"])) == 1


async def test_a_long_text_becomes_a_document_of_the_user(api: Api):
    long = " ".join(f"The {SECRET} number {number} sounds." for number in range(200))
    stored = await store(api, long, OLENA, memory_type="long_term")
    assert stored.startswith("doc_")
    assert (await call(api, "GET", f"{DOCUMENTS}/{stored}", agent_id=AGENT))[0] == 404
    assert (await done(api, "GET", f"{DOCUMENTS}/{stored}", agent_id=AGENT, user_id=OLENA))["chunks"] > 1
    assert await found(api, SECRET) == []


async def test_sharing_an_agents_memory_shares_no_users(api: Api, microdao: str):
    admin = (await api.services.keys.create(microdao, ["admin"], "test")).secret
    hers, nobodys = await store(api, f"{SECRET} of Olena", OLENA), await store(api, f"{SECRET} of all")
    paper = await document(api, f"{SECRET} on paper", OLENA)
    member, api = api, Api(api.url, api.services, admin)
    grant = {"scope": {"kind": "agent", "name": AGENT}, "grantee": {"kind": "agent", "name": BOB}, "access": "write"}
    await done(api, "PUT", f"{MEMORY}/grants", grant)
    for user in (None, OLENA, IHOR):
        assert await found(member, SECRET, user, BOB) == [nobodys]
        assert {one["id"] for one in await listed(member, user, BOB)} == {nobodys}
        status, _ = await call(member, "DELETE", f"{MEMORY}/agents/{BOB}/items/{hers}", user_id=user)
        assert status == 404
        assert (await call(member, "GET", f"{DOCUMENTS}/{paper}", agent_id=BOB, user_id=user))[0] == 404
    for kind in ("user", "microdao"):
        bad = grant | {"scope": {"kind": kind, "name": OLENA}}
        assert (await call(api, "PUT", f"{MEMORY}/grants", bad))[0] == 400
    scopes = (await done(member, "GET", f"{MEMORY}/agents/{BOB}/scopes"))["scopes"]
    assert "user" not in {one["scope"]["kind"] for one in scopes}


async def test_users_are_listed_page_by_page_and_counted(api: Api):
    assert await users(api) == {}
    names = sorted(f"user-{number:02}" for number in range(7))
    for name in names:
        await store(api, f"{SECRET} of {name}", name)
    await store(api, "one more", names[0])
    await store(api, "gone", names[1], expires_at="2020-01-01T00:00:00Z")
    await store(api, f"{SECRET} of nobody")
    assert await users(api) == {name: 1 + (name == names[0]) for name in names}
    assert await users(api, BOB) == {}
    seen, after = [], None
    while True:
        page = await done(api, "GET", USERS, limit=3, after=after)
        seen += [one["user_id"] for one in page["users"]]
        assert all(one["last_stored_at"] for one in page["users"])
        after = page["next"]
        if after is None:
            break
    assert seen == names
    assert (await call(api, "GET", f"{MEMORY}/agents/agent:nobody/users"))[0] == 404
    figures = await done(api, "GET", f"{MEMORY}/agents/{AGENT}/stats")
    assert figures["items"]["mid_term"] == 9, "its own and its users'"
    report = await done(api, "GET", f"{MEMORY}/analytics", agent_id=AGENT)
    assert sum(day["items"] for day in report["growth"]) == 9
    assert (await done(api, "GET", f"{MEMORY}/agents/{BOB}/stats"))["items"]["mid_term"] == 0


async def test_a_user_is_forgotten_with_everything(api: Api, database: Database, microdao: str):
    tables = ("memory_item", "memory_posting", "memory_embedding", "memory_document", "memory_use", "memory_scope")
    his = await store(api, f"{SECRET} of Ihor", IHOR)
    await store(api, f"{SECRET} of Olena with Bob", OLENA, BOB)
    await index_all(api.services.memory, database, microdao)
    await found(api, SECRET, IHOR)
    before = await rows_of(database, microdao, *tables)
    await store(api, f"{SECRET} of Olena", OLENA)
    await document(api, f"{SECRET} on paper", OLENA)
    await index_all(api.services.memory, database, microdao)
    await found(api, SECRET, OLENA)
    during = await rows_of(database, microdao, *tables)
    assert all(more > less for more, less in zip(during, before, strict=True)), (during, before)
    assert await done(api, "DELETE", f"{USERS}/{OLENA}") == {"items": 2, "documents": 1}
    assert await rows_of(database, microdao, *tables) == before
    assert await users(api) == {IHOR: 1}
    assert await users(api, BOB) == {OLENA: 1}
    assert await found(api, SECRET, IHOR) == [his]
    assert await done(api, "DELETE", f"{USERS}/{OLENA}") == {"items": 0, "documents": 0}
    assert (await call(api, "DELETE", f"{MEMORY}/agents/agent:nobody/users/{OLENA}"))[0] == 404
    await store(api, "again", OLENA)
    assert await users(api) == {IHOR: 1, OLENA: 1}


async def test_ids_of_users_are_taken_as_they_are(api: Api):
    for name in SPECIAL:
        await store(api, f"{SECRET} of {name}", name)
    assert await users(api) == dict.fromkeys(SPECIAL, 1)
    for number, name in enumerate(SPECIAL):
        (item,) = await listed(api, name, scope="user")
        assert (item["scope"]["name"], item["text"]) == (name, f"{SECRET} of {name}")
        gone = await done(api, "DELETE", f"{USERS}/{quote(name, safe='')}")
        assert gone == {"items": 1, "documents": 0}, name
        assert await users(api) == dict.fromkeys(SPECIAL[number + 1 :], 1), f"{name} took others along"


BAD_USERS = [
    b'"\\u0000"', b'"a\\u0000b"', b'""', b'"' + b"x" * 201 + b'"', b'"\\ud800"', b"7", b'["olena"]', b'{"a": 1}',
]  # fmt: skip


@pytest.mark.parametrize("user", BAD_USERS, ids=range(len(BAD_USERS)))
async def test_what_is_no_users_id_is_refused_everywhere(api: Api, database: Database, microdao: str, user: bytes):
    for path, more in (
        (f"{MEMORY}/store", b'"content": {"text": "x"}'),
        (f"{MEMORY}/query", b'"query": "x"'),
        (f"{MEMORY}/recent", b'"session_id": "s"'),
        (f"{MEMORY}/forget", b'"memory_types": ["mid_term"]'),
        (DOCUMENTS, b'"text": "x"'),
        ("/internal/channels/room/messages", b'"messages": [{"text": "x"}]'),
    ):
        status, answer = await call(
            api, "POST", path, b'{"agent_id": "agent:sofia", "user_id": ' + user + b", " + more + b"}"
        )
        assert status == 400, (path, answer)
    assert await rows_of(database, microdao, "memory_item", "memory_document") == [0, 0]
    assert await users(api) == {}


@pytest.mark.parametrize("user", ["", "%00", "a%00b", "x" * 201])
async def test_what_is_no_users_id_is_refused_in_addresses(api: Api, user: str):
    item, paper = await store(api, SECRET), await document(api, SECRET)
    for method, path in (
        ("GET", f"{ITEMS}?user_id={user}"),
        ("DELETE", f"{ITEMS}/{item}?user_id={user}"),
        ("GET", f"{DOCUMENTS}?agent_id={AGENT}&user_id={user}"),
        ("GET", f"{DOCUMENTS}/{paper}?agent_id={AGENT}&user_id={user}"),
        ("DELETE", f"{DOCUMENTS}/{paper}?agent_id={AGENT}&user_id={user}"),
        ("DELETE", f"{USERS}/{user}"),
    ):
        assert (await call(api, method, path))[0] == 400, (method, path)
    assert len(await listed(api)) == 2


async def test_a_user_goes_with_no_other_scope(api: Api, database: Database, microdao: str):
    for fields in (
        {"user_id": OLENA, "scope": "agent"},
        {"user_id": OLENA, "scope": "team", "team_id": "team:x"},
        {"user_id": OLENA, "scope": "microdao"},
        {"user_id": OLENA, "owner_agent_id": BOB},
        {"user_id": OLENA, "team_id": "team:x"},
        {"scope": "user"},
        {"scope": "user", "owner_agent_id": BOB},
    ):
        for path, more in ((f"{MEMORY}/store", {"content": {"text": "x"}}), (DOCUMENTS, {"text": "x"})):
            status, answer = await call(api, "POST", path, {"agent_id": AGENT, **fields, **more})
            assert (status, answer["error"]["param"]) == (400, "user_id"), answer
    assert await rows_of(database, microdao, "memory_item") == [0]
    stored = await store(api, SECRET, OLENA, scope="user")
    assert await found(api, SECRET, OLENA) == [stored]


async def test_a_user_of_an_agent_that_does_not_exist_is_not_made(api: Api, database: Database, microdao: str):
    for path, more in ((f"{MEMORY}/store", {"content": {"text": "x"}}), (f"{MEMORY}/query", {"query": "x"})):
        assert (await call(api, "POST", path, about("agent:nobody", OLENA, **more)))[0] == 404
    assert await rows_of(database, microdao, "memory_scope") == [3]


async def test_asking_for_a_user_makes_none(api: Api, database: Database, microdao: str):
    await found(api, SECRET, OLENA)
    await listed(api, OLENA)
    await call(api, "POST", f"{MEMORY}/forget", about(AGENT, OLENA, memory_types=["mid_term"]))
    assert await users(api) == {}


async def test_two_first_memories_of_a_user_at_once_make_one_scope(api: Api, database: Database, microdao: str):
    for number in range(5):
        user = f"user-{number}"
        await asyncio.gather(*(store(api, f"{SECRET} {one}", user) for one in range(8)))
        assert (await users(api))[user] == 8
    assert await rows_of(database, microdao, "memory_scope") == [3 + 5]


async def test_storing_uses_up_no_numbers_of_scopes(api: Api, database: Database, microdao: str):
    """There are two thousand million of them, fewer than memories."""
    await store(api, "first", OLENA)
    for number in range(20):
        await store(api, f"{SECRET} {number}", OLENA)
    await store(api, "first", IHOR)
    async with database.tenant(microdao) as connection:
        rows = await fetch_all(connection, "SELECT scope_id FROM memory_scope WHERE kind = 'user' ORDER BY scope_id")
    assert rows[1]["scope_id"] - rows[0]["scope_id"] < 20


async def test_who_is_forgotten_while_more_is_stored_is_whole_or_gone(api: Api):
    """Neither an error of ours nor a memory in a scope that is gone."""
    for number in range(6):
        await store(api, f"{SECRET} {number}", OLENA)
        answers = await asyncio.gather(
            call(api, "DELETE", f"{USERS}/{OLENA}"),
            *(
                call(api, "POST", f"{MEMORY}/store", about(AGENT, OLENA, content={"text": f"{SECRET} {number} {one}"}))
                for one in range(6)
            ),
        )
        assert {status for status, _ in answers} <= {200, 201, 409}, answers
        count = len(await listed(api, OLENA, scope="user"))
        assert (await users(api)).get(OLENA, 0) == count
        assert (await done(api, "DELETE", f"{USERS}/{OLENA}"))["items"] == count


async def test_a_members_key_of_another_tenant_gets_nothing(api: Api, other_microdao: str):
    await store(api, f"{SECRET} of Olena", OLENA)
    stranger = await api.for_member(other_microdao)
    assert await found(stranger, SECRET, OLENA) == []
    assert await users(stranger) == {}
    assert await done(stranger, "DELETE", f"{USERS}/{OLENA}") == {"items": 0, "documents": 0}
    assert await users(api) == {OLENA: 1}
