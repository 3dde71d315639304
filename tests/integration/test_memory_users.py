"""An agent's memory parted by end user, over HTTP: what is kept for one is nobody else's, at every endpoint."""

from collections.abc import AsyncIterator

import pytest

from shared.db.database import Database
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
    store,
    users,
)
from tests.memories import AGENT, index_all


@pytest.fixture
async def api(settings: Settings, database: Database, microdao: str) -> AsyncIterator[Api]:
    async with database.tenant(microdao) as connection:
        await connection.execute("INSERT INTO agent VALUES (%s, %s, 'Bob', 'sofia')", (microdao, BOB))
    async with running_api(settings) as api:
        yield await api.for_member(microdao)


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
        for method, body in (("GET", None), ("PATCH", {"importance": 0.9}), ("DELETE", None)):
            assert (await call(api, method, path, body, user_id=user))[0] == 404, (method, user, agent)
    assert await done(api, "GET", f"{ITEMS}/{hers}", user_id=OLENA) == item
    changed = await done(api, "PATCH", f"{ITEMS}/{hers}", {"content": {"text": "a viola"}}, user_id=OLENA)
    assert (changed["id"], changed["text"], changed["scope"]) == (hers, "a viola", item["scope"])
    assert await found(api, "viola", OLENA, scopes=["user"], mode="lexical") == [hers]
    assert await found(api, "viola", IHOR, mode="lexical") == []
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


async def test_a_members_key_of_another_tenant_gets_nothing(api: Api, other_microdao: str):
    await store(api, f"{SECRET} of Olena", OLENA)
    stranger = await api.for_member(other_microdao)
    assert await found(stranger, SECRET, OLENA) == []
    assert await users(stranger) == {}
    assert await done(stranger, "DELETE", f"{USERS}/{OLENA}") == {"items": 0, "documents": 0}
    assert await users(api) == {OLENA: 1}
