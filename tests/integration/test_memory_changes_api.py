"""One memory over HTTP: looked at, changed; what is wrong is refused and changes nothing."""

import io
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import aiohttp
import orjson
import pytest

from shared.db.database import Database, fetch_all
from shared.settings import Settings
from tests.integration.api_server import Api, running_api
from tests.integration.test_memory_api import MEMORY, ask, call, done, store
from tests.memories import AGENT, index_all

TEA, COFFEE = "Tea is served at five.", "Coffee stands in the kitchen."
ITEMS = f"{MEMORY}/agents/{AGENT}/items"


@pytest.fixture
async def api(settings: Settings, microdao: str) -> AsyncIterator[Api]:
    async with running_api(settings) as api:
        yield await api.for_member(microdao)


async def send(api: Api, path: str, data: bytes, content_type: str = "application/json") -> tuple[int, dict[str, Any]]:
    """A PATCH with this body, whatever it is."""
    headers = {"Authorization": f"Bearer {api.key}", "content-type": content_type}
    async with (
        aiohttp.ClientSession(api.url) as session,
        session.patch(path, data=io.BytesIO(data), headers=headers) as answer,
    ):
        return answer.status, await answer.json()


async def rows_of(database: Database, microdao: str, item_id: str) -> list[dict[str, Any]]:
    """All of an item and what finds it, and the jobs of its tenant."""
    async with database.tenant(microdao) as connection:
        parts = [
            await fetch_all(connection, query, (item_id,))
            for query in (
                "SELECT * FROM memory_item WHERE id = %s",
                "SELECT p.* FROM memory_posting p JOIN memory_item i ON i.number = p.item WHERE i.id = %s ORDER BY 2",
                "SELECT e.* FROM memory_embedding e JOIN memory_item i ON i.number = e.item WHERE i.id = %s",
                "SELECT id FROM outbox WHERE %s <> '' ORDER BY 1",
            )
        ]
    return [row for part in parts for row in part]


async def test_an_item_is_looked_at_and_changed(api: Api, database: Database, microdao: str):
    item_id = await store(api, TEA, session_id="s1")
    await index_all(api.services.memory, database, microdao)
    (listed,) = (await done(api, "GET", ITEMS))["items"]
    assert await done(api, "GET", f"{ITEMS}/{item_id}") == listed

    content = {"text": COFFEE, "title": "Drinks", "source": "wiki", "context": {"author": "Ann", "floor": 2}}
    body = {"content": content, "importance": 0.75, "expires_at": "2999-01-01T02:00:00+02:00"}
    changed = await done(api, "PATCH", f"{ITEMS}/{item_id}", body)

    says = {"content": content, "text": f"Ann: Drinks\n{COFFEE}", "author": "Ann", "source": "wiki", "state": "pending"}
    assert changed == {**listed, **says, "importance": 0.75, "expires_at": "2999-01-01T00:00:00Z"}
    assert await done(api, "GET", f"{ITEMS}/{item_id}") == changed
    (by_words,) = await ask(api, "coffee")
    assert (by_words["id"], by_words["content"]) == (item_id, content)
    assert [one["id"] for one in await ask(api, "Ann", filters={"metadata": {"floor": 2}})] == [item_id]
    assert await ask(api, "tea served five", mode="lexical") == []
    assert await ask(api, TEA, mode="vector") == []
    await index_all(api.services.memory, database, microdao)
    assert (await ask(api, "something hot to drink", mode="vector"))[0]["id"] == item_id

    exchange = {"user_message": "Is there tea?", "agent_reply": "Until six."}
    await done(api, "PATCH", f"{ITEMS}/{item_id}", {"content": exchange, "expires_at": None})
    now = await done(api, "GET", f"{ITEMS}/{item_id}")
    assert (now["content"], now["text"]) == (exchange, "Is there tea?\nUntil six.")
    assert (now["importance"], now["expires_at"], now["author"], now["source"]) == (0.75, None, None, None)
    assert (await done(api, "PATCH", f"{ITEMS}/{item_id}", {"importance": 1}))["importance"] == 1


async def test_what_is_not_there_is_not_found(api: Api, microdao: str):
    item_id = await store(api, TEA)
    for path in (f"{ITEMS}/mem_none", f"{MEMORY}/agents/agent:none/items/{item_id}", f"{ITEMS}/{'m' * 3000}"):
        for method, body in (("GET", None), ("PATCH", {"importance": 0.1})):
            status, answer = await call(api, method, path, body)
            assert (status, answer["error"]["code"]) == (404, "not_found"), answer
    assert (await call(api, "GET", f"{ITEMS}/{item_id}%00"))[0] == 400
    await done(api, "DELETE", f"{ITEMS}/{item_id}")
    assert (await call(api, "PATCH", f"{ITEMS}/{item_id}", {"importance": 0.1}))[0] == 404


async def test_what_is_everybodys_takes_the_right_to_share(api: Api, microdao: str):
    admin = replace(api, key=(await api.services.keys.create(microdao, ["admin"], "test")).secret)
    item_id = await store(admin, TEA, scope="microdao")
    path, body = f"{ITEMS}/{item_id}", {"content": {"text": COFFEE}}
    assert (await done(api, "GET", path))["scope"] == {"kind": "microdao", "name": microdao}
    assert (await call(api, "PATCH", path, body))[0] == 403
    assert (await call(api, "PATCH", path, body, scope="microdao"))[0] == 403
    assert (await call(admin, "PATCH", path, body))[0] == 403
    assert (await done(admin, "PATCH", path, body, scope="microdao"))["text"] == COFFEE
    own = await store(admin, TEA)
    assert (await call(admin, "PATCH", f"{ITEMS}/{own}", body, scope="microdao"))[0] == 404
    assert (await call(admin, "PATCH", f"{ITEMS}/{own}", body, scope="team"))[0] == 400


async def test_a_passage_or_summary_says_what_to_do_instead(api: Api, microdao: str):
    added = await done(api, "POST", f"{MEMORY}/documents", {"agent_id": AGENT, "text": TEA})
    (chunk,) = (await done(api, "GET", ITEMS))["items"]
    status, answer = await call(api, "PATCH", f"{ITEMS}/{chunk['id']}", {"content": {"text": COFFEE}})
    assert (status, answer["error"]["code"], answer["error"]["param"]) == (409, "conflict", "content")
    assert added["id"] in answer["error"]["message"]
    assert (await done(api, "PATCH", f"{ITEMS}/{chunk['id']}", {"importance": 0.9}))["importance"] == 0.9


def _text(**fields: Any) -> bytes:
    return orjson.dumps({"content": {"text": COFFEE, **fields}})


BAD: dict[str, tuple[bytes, int]] = {
    "nothing": (b"", 400),
    "no field": (b"{}", 400),
    "a list": (b"[]", 400),
    "no JSON": (b"{", 400),
    "an unknown field": (b'{"importance": 0.1, "tier": "long_term"}', 400),
    "an unknown field of content": (_text(colour="red"), 400),
    "content null": (b'{"content": null, "importance": 0.1}', 400),
    "content a text": (b'{"content": "tea"}', 400),
    "empty content": (b'{"content": {}}', 400),
    "blank content": (b'{"content": {"text": " \\n"}}', 400),
    "NUL": (b'{"content": {"text": "a\\u0000b"}}', 400),
    "half a character": (b'{"content": {"text": "a\\ud800b"}}', 400),
    "half a character in the context": (b'{"content": {"text": "a", "context": {"k\\udfff": 1}}}', 400),
    "a text too long": (_text(title="x" * 1001), 400),
    "a context too large": (_text(context={"x": "x" * 100_000}), 413),
    "ten megabytes": (_text(text="x" * 10_000_001), 413),
    "importance null": (b'{"importance": null}', 400),
    "importance below": (b'{"importance": -0.01}', 400),
    "importance above": (b'{"importance": 1.01}', 400),
    "importance no number": (b'{"importance": NaN}', 400),
    "importance endless": (b'{"importance": 1e999}', 400),
    "a moment without a zone": (b'{"expires_at": "2999-01-01T00:00:00"}', 400),
    "a moment beyond": (b'{"expires_at": "9999-12-31T23:59:59-14:00"}', 400),
    "no moment": (b'{"expires_at": "tomorrow"}', 400),
}


@pytest.mark.parametrize("what", BAD)
async def test_bad_input_is_refused_and_changes_nothing(api: Api, database: Database, microdao: str, what: str):
    body, expected = BAD[what]
    item_id = await store(api, TEA)
    before = await rows_of(database, microdao, item_id)
    status, answer = await send(api, f"{ITEMS}/{item_id}", body)
    assert (status, answer["error"]["type"]) == (expected, "invalid_request_error"), answer
    assert await rows_of(database, microdao, item_id) == before


async def test_a_body_of_another_type_is_refused(api: Api):
    item_id = await store(api, TEA)
    assert (await send(api, f"{ITEMS}/{item_id}", b"importance=1", "application/x-www-form-urlencoded"))[0] == 415
    assert (await send(api, f"{ITEMS}/{item_id}", b'{"importance": 1}', "application/merge-patch+json"))[0] == 200


async def test_the_longest_text_with_very_many_words_is_changed(api: Api, database: Database, microdao: str):
    item_id = await store(api, TEA)
    words = " ".join(f"word{number}" for number in range(90_000))
    changed = await done(api, "PATCH", f"{ITEMS}/{item_id}", {"content": {"text": words}})
    assert changed["text"] == words
    assert [one["id"] for one in await ask(api, "word89999", mode="lexical")] == [item_id]
    await done(api, "PATCH", f"{ITEMS}/{item_id}", {"content": {"text": TEA}})
    assert await ask(api, "word89999", mode="lexical") == []
