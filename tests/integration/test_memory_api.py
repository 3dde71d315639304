"""Memory over HTTP: items, documents, channels; what is wrong is refused and leaves nothing."""

import asyncio
import base64
import io
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import aiohttp
import orjson
import pytest

from shared.db.database import Database, fetch_one
from shared.settings import Settings
from tests.integration.api_server import Api, running_api
from tests.memories import AGENT, index_all
from tests.unit.pdf_files import pdf

MEMORY = "/internal/agent-memory"


@pytest.fixture
async def api(settings: Settings, microdao: str) -> AsyncIterator[Api]:
    async with running_api(settings) as api:
        yield await api.for_member(microdao)


async def call(api: Api, method: str, path: str, body: Any = None, **query: Any) -> tuple[int, dict[str, Any]]:
    headers = {"Authorization": f"Bearer {api.key}", "content-type": "application/json"}
    data = None if body is None else io.BytesIO(orjson.dumps(body))
    async with (
        aiohttp.ClientSession(api.url, headers=headers) as session,
        session.request(method, path, data=data, params=query) as answer,
    ):
        return answer.status, await answer.json()


async def done(api: Api, method: str, path: str, body: Any = None, **query: Any) -> dict[str, Any]:
    """The answer of a call that must succeed."""
    status, answer = await call(api, method, path, body, **query)
    assert status in (200, 201), answer
    return answer


async def store(api: Api, text: str, **fields: Any) -> str:
    return str(
        (await done(api, "POST", f"{MEMORY}/store", {"agent_id": AGENT, "content": {"text": text}, **fields}))["id"]
    )


async def ask(api: Api, query: str, **fields: Any) -> list[dict[str, Any]]:
    answer = await done(api, "POST", f"{MEMORY}/query", {"agent_id": AGENT, "query": query, **fields})
    return list(answer["memories"])


async def rows_of(database: Database, microdao: str, *tables: str) -> int:
    """How many rows the tenant has in these tables together."""
    counts = " + ".join(f"(SELECT count(*) FROM {table})" for table in tables)
    async with database.tenant(microdao) as connection:
        row = await fetch_one(connection, f"SELECT {counts} AS rows")
    assert row is not None
    return int(row["rows"])


async def test_an_item_is_listed_found_and_forgotten(api: Api, database: Database, microdao: str):
    item_id = await store(api, "The greenhouse key hangs behind the door.", importance=0.9)
    await index_all(api.services.memory, database, microdao)
    (found,) = await ask(api, "where is the key?", explain=True)
    assert found["id"] == item_id
    assert found["scope"] == {"kind": "agent", "name": AGENT}
    assert {"vector", "lexical"} <= set(found["why"])
    (listed,) = (await done(api, "GET", f"{MEMORY}/agents/{AGENT}/items"))["items"]
    assert (listed["id"], listed["state"], listed["importance"]) == (item_id, "ready", pytest.approx(0.9))
    await done(api, "DELETE", f"{MEMORY}/agents/{AGENT}/items/{item_id}")
    assert await ask(api, "where is the key?") == []
    assert (await call(api, "DELETE", f"{MEMORY}/agents/{AGENT}/items/{item_id}"))[0] == 404
    assert await rows_of(database, microdao, "memory_posting", "memory_embedding", "memory_use") == 0


async def test_items_come_in_pages(api: Api):
    ids = [await store(api, f"note {number}", occurred_at=f"2026-01-0{number}T10:00:00Z") for number in range(1, 6)]
    seen: list[str] = []
    after: dict[str, str] = {}
    while True:
        page = await done(api, "GET", f"{MEMORY}/agents/{AGENT}/items", limit="2", **after)
        seen += [item["id"] for item in page["items"]]
        if page["next"] is None:
            break
        after = {"after": page["next"]}
    assert seen == ids[::-1]
    assert (await call(api, "GET", f"{MEMORY}/agents/{AGENT}/items", after="garbage"))[0] == 400


async def test_an_agent_that_does_not_exist_has_no_list(api: Api):
    assert (await call(api, "GET", f"{MEMORY}/agents/agent:none/items"))[0] == 404


async def test_an_operator_must_name_a_microdao(api: Api, microdao: str):
    operator = replace(api, key=(await api.services.keys.create(microdao, ["operator"], "test")).secret)
    path = f"{MEMORY}/teams/team:any/members/{AGENT}"
    assert (await call(operator, "PUT", path, microdao_id=""))[0] == 404


async def test_forgetting_by_filter_takes_only_what_matches(api: Api):
    kept = await store(api, "keep me", session_id="s1")
    await store(api, "drop me", session_id="s2")
    await store(api, "drop me too", session_id="s2")
    assert (await call(api, "POST", f"{MEMORY}/forget", {"agent_id": AGENT}))[0] == 400
    answer = await done(api, "POST", f"{MEMORY}/forget", {"agent_id": AGENT, "filters": {"session_id": "s2"}})
    assert answer == {"forgotten": 2}
    assert [one["id"] for one in await ask(api, "keep")] == [kept]


async def test_metadata_and_neighbours(api: Api, database: Database, microdao: str):
    for number, text in enumerate(["Shall we meet?", "Yes, at the harbour.", "Fine, see you."]):
        content = {"text": text, "context": {"author": ["Ann", "Bob"][number % 2], "project": "sea"}}
        moment = f"2026-03-01T10:0{number}:00Z"
        await store(api, "", content=content, session_id="s", occurred_at=moment)
    await store(api, "The harbour is closed.")
    await index_all(api.services.memory, database, microdao)
    (found, *_) = await ask(
        api, "Where did Bob want to meet?", context_turns=1, filters={"metadata": {"project": "sea", "author": "Bob"}}
    )
    assert found["text"] == "Bob: Yes, at the harbour."
    assert [turn["text"] for turn in found["before"] + found["after"]] == ["Ann: Shall we meet?", "Ann: Fine, see you."]


async def test_repetitions_give_way(api: Api, database: Database, microdao: str):
    twins = [await store(api, "Water is paid on the fifth of each month.", session_id=name) for name in ("a", "b")]
    other = await store(api, "The water meter stands in the cellar.")
    await index_all(api.services.memory, database, microdao)
    found = await ask(api, "When is water paid?", k=3)
    assert [one["id"] for one in found[:2]] in ([[twins[0], other], [twins[1], other]])
    assert found[2]["duplicate_of"] == found[0]["id"]
    assert {one["id"] for one in found} == {*twins, other}


async def test_channel_messages_are_short_term_memory(api: Api, database: Database, microdao: str):
    path = "/internal/channels/general/messages"
    messages = [{"id": f"m{number}", "author": "Olena", "text": f"Message number {number}"} for number in range(40)]
    posted = await done(api, "POST", path, {"agent_id": AGENT, "messages": messages})
    edited = [{**message, "text": "edited"} for message in messages[:3]]
    again = await done(api, "POST", path, {"agent_id": AGENT, "messages": edited})
    assert again["ids"] == posted["ids"][:3]
    recent = await done(
        api, "POST", f"{MEMORY}/recent", {"agent_id": AGENT, "channel_id": "general", "max_tokens": 30, "limit": 50}
    )
    texts = [message["text"] for message in recent["messages"]]
    assert texts == [f"Olena: Message number {number}" for number in range(40 - len(texts), 40)]
    assert 0 < recent["tokens"] <= 30
    assert (await done(api, "GET", f"{MEMORY}/agents/{AGENT}/stats"))["items"]["short_term"] == 40
    await index_all(api.services.memory, database, microdao)
    assert (await done(api, "GET", f"{MEMORY}/agents/{AGENT}/stats"))["pending"] == 0
    assert (await ask(api, "number 17", memory_types=["short_term"]))[0]["text"] == "Olena: Message number 17"
    assert (await call(api, "POST", f"{MEMORY}/recent", {"agent_id": AGENT}))[0] == 400


GUIDE = "# Irrigation\n\nThe pump runs at dawn.\n\n## Repairs\n\nCall the plumber Taras before opening the valve.\n"


@pytest.mark.parametrize(
    ("content_type", "data"),
    [
        ("text/markdown", GUIDE.encode()),
        (
            "text/html",
            b"<title>Irrigation</title><h2>Repairs</h2><p>Call the plumber Taras before opening the valve.</p>",
        ),
        ("application/pdf", pdf([[(18, "Irrigation"), (11, "Call the plumber Taras before opening the valve.")]])),
    ],
)
async def test_a_document_is_found_and_forgotten_whole(
    api: Api, database: Database, microdao: str, content_type: str, data: bytes
):
    body = {
        "agent_id": AGENT,
        "content_base64": base64.b64encode(data).decode(),
        "content_type": content_type,
        "source": "guide",
        "metadata": {"room": "garden"},
    }
    document = await done(api, "POST", f"{MEMORY}/documents", body)
    assert document["pending"] == document["chunks"] >= 1
    assert (await done(api, "POST", f"{MEMORY}/documents", body))["id"] == document["id"]
    await index_all(api.services.memory, database, microdao)
    (found, *_) = await ask(api, "Whom do I call before I open the valve?", memory_types=["long_term"])
    assert (found["document_id"], found["source"]) == (document["id"], "guide")
    assert found["content"]["context"]["room"] == "garden"
    assert [one["id"] for one in (await done(api, "GET", f"{MEMORY}/documents", agent_id=AGENT))["documents"]] == [
        document["id"]
    ]
    assert (await done(api, "GET", f"{MEMORY}/documents/{document['id']}", agent_id=AGENT))["pending"] == 0
    await done(api, "DELETE", f"{MEMORY}/documents/{document['id']}", agent_id=AGENT)
    assert await ask(api, "Whom do I call before I open the valve?") == []
    assert (await call(api, "GET", f"{MEMORY}/documents/{document['id']}", agent_id=AGENT))[0] == 404


@pytest.mark.parametrize("how", ["expired", "forgotten"])
async def test_a_document_added_again_is_whole_again(api: Api, database: Database, microdao: str, how: str):
    text = "\n\n".join(f"# Part {number}\n\n" + "The mill grinds rye and wheat. " * 40 for number in range(6))
    body = {"agent_id": AGENT, "text": text, "content_type": "text/markdown"}
    document = await done(api, "POST", f"{MEMORY}/documents", body)
    await index_all(api.services.memory, database, microdao)
    async with database.tenant(microdao) as connection:
        if how == "expired":
            await connection.execute("UPDATE memory_item SET expires_at = now() - interval '1 day'")
        else:
            await connection.execute("DELETE FROM memory_item WHERE position < 3")
    await done(api, "POST", f"{MEMORY}/documents", body)
    await index_all(api.services.memory, database, microdao)
    found = await ask(api, "Who grinds rye?", memory_types=["long_term"], k=100)
    assert len(found) == document["chunks"] >= 4


@pytest.mark.parametrize("how", ["forgotten one by one", "forgotten by filter", "expired"])
async def test_the_title_of_a_document_goes_with_its_last_chunk(api: Api, database: Database, microdao: str, how: str):
    body = {"agent_id": AGENT, "text": "# The secret mill\n\nIt grinds rye.", "content_type": "text/markdown"}
    document = await done(api, "POST", f"{MEMORY}/documents", body)
    (chunk,) = (await done(api, "GET", f"{MEMORY}/agents/{AGENT}/items"))["items"]
    if how == "expired":
        async with database.tenant(microdao) as connection:
            await connection.execute("UPDATE memory_item SET expires_at = now() - interval '1 second'")
    elif how == "forgotten by filter":
        await done(api, "POST", f"{MEMORY}/forget", {"agent_id": AGENT, "filters": {"document_id": document["id"]}})
    else:
        await done(api, "DELETE", f"{MEMORY}/agents/{AGENT}/items/{chunk['id']}")
    assert (await done(api, "GET", f"{MEMORY}/documents", agent_id=AGENT))["documents"] == []
    assert (await call(api, "GET", f"{MEMORY}/documents/{document['id']}", agent_id=AGENT))[0] == 404
    assert await rows_of(database, microdao, "memory_document") == (how == "expired")


async def test_what_each_chunk_keeps_is_bounded_in_all_of_them_together(api: Api, database: Database, microdao: str):
    body = {"agent_id": AGENT, "text": "The mill grinds rye. " * 40_000, "metadata": {"note": "x" * 90_000}}
    status, answer = await call(api, "POST", f"{MEMORY}/documents", body)
    assert (status, answer["error"]["param"]) == (413, "metadata"), answer
    assert await rows_of(database, microdao, "memory_document", "memory_item") == 0
    short = body | {"text": "The mill grinds rye."}
    assert (await done(api, "POST", f"{MEMORY}/documents", short))["chunks"] == 1


async def test_an_answer_with_the_longest_texts_is_bounded_and_no_page_passes_one_over(
    api: Api, database: Database, microdao: str
):
    long = "The mill grinds rye. " * 45_000
    for number in range(11):
        await store(api, f"{number} {long}", session_id="s1", occurred_at=f"2026-01-01T00:00:{number:02}Z")
    await store(api, "The last word.", session_id="s1", occurred_at="2026-01-01T00:01:00Z")
    seen, after = [], {}
    while True:
        page = await done(api, "GET", f"{MEMORY}/agents/{AGENT}/items", **after)
        seen.append([one["text"].split()[0] for one in page["items"]])
        if page["next"] is None:
            break
        after = {"after": page["next"]}
    assert seen == [["The", *(str(number) for number in range(10, 1, -1))], ["1", "0"]]
    found = await ask(api, "Who grinds rye?", k=100, context_turns=5, mode="lexical")
    assert len(found) == 9
    assert await rows_of(database, microdao, "memory_use") == 9  # what was left out was no hit
    assert {len(turn["text"]) for one in found for turn in one["before"] + one["after"]} == {10_000, 14}
    body = {"agent_id": AGENT, "session_id": "s1", "max_tokens": 200_000, "limit": 500}
    assert [one["text"] for one in (await done(api, "POST", f"{MEMORY}/recent", body))["messages"]] == [
        "The last word."
    ]


async def test_a_document_may_have_expired_before_it_came(api: Api):
    body = {"agent_id": AGENT, "text": "Old news.", "expires_at": "2020-01-01T00:00:00Z"}
    document = await done(api, "POST", f"{MEMORY}/documents", body)
    assert (await call(api, "GET", f"{MEMORY}/documents/{document['id']}", agent_id=AGENT))[0] == 404


@pytest.mark.parametrize("place", [{"session_id": "s1"}, {"channel_id": "c1"}])
async def test_a_long_text_of_a_session_or_channel_stays_in_it(api: Api, place: dict[str, str]):
    item_id = await store(api, "The mill grinds rye and wheat. " * 60, memory_type="long_term", **place)
    assert [one["id"] for one in await ask(api, "Who grinds rye?", filters=place)] == [item_id]


async def test_a_long_text_beside_an_exchange_keeps_the_exchange(api: Api):
    content = {"text": "The mill grinds rye. " * 80, "user_message": "Who owns it?", "agent_reply": "Olena does."}
    body = {"agent_id": AGENT, "memory_type": "long_term", "content": content}
    stored = await done(api, "POST", f"{MEMORY}/store", body)
    (found,) = await ask(api, "Olena owns", mode="lexical")
    assert (found["id"], found["content"]) == (stored["id"], content)


async def test_a_long_text_of_long_term_memory_is_cut(api: Api):
    text = "\n\n".join(f"Paragraph {number}. " + "The mill grinds rye and wheat. " * 12 for number in range(12))
    document_id = await store(api, text, memory_type="long_term")
    assert (await done(api, "GET", f"{MEMORY}/documents/{document_id}", agent_id=AGENT))["chunks"] > 3


BAD: list[tuple[str, dict[str, Any], int]] = [
    ("store", {"content": {"text": "x"}, "memory_type": "forever"}, 400),
    ("store", {"content": {"text": "  "}}, 400),
    ("store", {"content": {"text": "x"}, "scope": "team"}, 400),
    ("store", {"content": {"text": "x"}, "scope": "team", "team_id": "team:none"}, 404),
    ("store", {"content": {"text": "x" * 1_000_001}}, 400),
    ("store", {"content": {"text": "x"}, "agent_id": "agent:none"}, 404),
    ("query", {"query": "x", "k": 0}, 400),
    ("query", {"query": "x", "k": 101}, 400),
    ("query", {"query": "x", "min_score": 1.01}, 400),
    ("query", {"query": "x", "min_score": -0.01}, 400),
    ("query", {"query": " "}, 400),
    ("query", {"query": "x", "memory_types": ["forever"]}, 400),
    ("query", {"query": "x", "mode": "magic"}, 400),
    ("query", {"query": "x", "filters": {"colour": "red"}}, 400),
    ("query", {"query": "x", "agent_id": "agent:none"}, 404),
    ("documents", {"text": " "}, 400),
    ("documents", {"text": "x", "content_base64": "eA=="}, 400),
    ("documents", {"content_base64": "not base64!"}, 400),
    ("documents", {"content_base64": "d÷dc"}, 400),
    ("documents", {"content_base64": base64.b64encode(b"\xff\xfe\xfa").decode()}, 400),
    ("documents", {"content_base64": base64.b64encode(b"a\0b").decode()}, 400),
    (
        "documents",
        {"content_base64": base64.b64encode(b"%PDF-1.7 broken").decode(), "content_type": "application/pdf"},
        400,
    ),
    ("documents", {"text": "x", "content_type": "image/png"}, 415),
]


@pytest.mark.parametrize(
    ("path", "body", "expected"), BAD, ids=[f"{path}-{number}" for number, (path, _, _) in enumerate(BAD)]
)
async def test_bad_input_is_refused_and_leaves_nothing(
    api: Api, database: Database, microdao: str, path: str, body: dict[str, Any], expected: int
):
    status, answer = await call(api, "POST", f"{MEMORY}/{path}", {"agent_id": AGENT, **body})
    assert (status, set(answer["error"])) == (expected, {"message", "type", "param", "code"}), answer
    assert await rows_of(database, microdao, "memory_item", "memory_posting", "memory_document", "outbox") == 0


async def test_the_same_words_said_twice_are_two_messages(api: Api):
    body = {"agent_id": AGENT, "messages": [{"text": "ok"}, {"text": "ok"}]}
    ids = [one for _ in range(2) for one in (await done(api, "POST", "/internal/channels/c/messages", body))["ids"]]
    assert len(set(ids)) == 4


async def test_a_channel_id_has_a_length(api: Api):
    body = {"agent_id": AGENT, "messages": [{"text": "hello"}]}
    assert (await call(api, "POST", f"/internal/channels/{'c' * 201}/messages", body))[0] == 400


async def test_many_words_hold_nobody_up(api: Api):
    words = " ".join(f"word{number}" for number in range(90_000))
    storing = asyncio.create_task(store(api, words))
    waits = []
    while not storing.done():
        began = time.monotonic()
        assert (await call(api, "GET", "/healthz"))[0] == 200
        waits.append(time.monotonic() - began)
    await storing
    assert len(waits) > 3, "others were answered meanwhile"


async def test_ten_megabytes_of_text_are_too_large(api: Api):
    status, answer = await call(
        api, "POST", f"{MEMORY}/store", {"agent_id": AGENT, "content": {"text": "x" * 10_000_000}}
    )
    assert (status, answer["error"]["code"]) == (413, "too_large")
