"""The end users that an agent knows: listed, counted, named by any text, made once, and forgotten whole."""

import asyncio
from collections.abc import AsyncIterator
from urllib.parse import quote

import pytest

from shared.db.database import Database, fetch_all
from shared.settings import Settings
from tests.integration.api_server import Api, running_api
from tests.integration.user_memory import (
    BOB,
    DOCUMENTS,
    IHOR,
    ITEMS,
    MEMORY,
    OLENA,
    SECRET,
    USERS,
    about,
    call,
    document,
    done,
    found,
    listed,
    rows_of,
    store,
    users,
)
from tests.memories import AGENT, index_all

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


async def test_an_id_that_ends_a_line_is_forgotten_and_not_the_one_without(api: Api):
    ids = ["a\nb", f"{OLENA}\n", "\n", OLENA]
    for name in ids:
        await store(api, SECRET, name)
    for number, name in enumerate(ids):
        assert await done(api, "DELETE", f"{USERS}/{quote(name, safe='')}") == {"items": 1, "documents": 0}
        assert (await users(api)).keys() == set(ids[number + 1 :]), name


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
