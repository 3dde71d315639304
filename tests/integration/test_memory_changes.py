"""A memory changed in place: found by what it says now and never by what it said, embedded once, whatever goes on."""

import asyncio
import random
from datetime import timedelta
from typing import Any

import pytest

from shared.clock import utc_now
from shared.cloud.outbox import Outbox
from shared.db.database import Database, Row, fetch_all, fetch_one
from shared.errors import ApiError, Conflict, NotFound, Unauthorized, Unavailable
from shared.memory.channels import Message
from shared.memory.documents.documents import NewDocument
from shared.memory.embedding.embedders import Embedders
from shared.memory.embedding.spaces import Spaces
from shared.memory.memory import Memory
from shared.memory.model import Grantee, MemoryChange, ScopeRef
from tests.embeddings import BagOfWords, add_tenant, own_database
from tests.memories import AGENT, ask, embedded, index_all, kept, new, queued

TEA, COFFEE, COCOA = "Tea is served at five.", "Coffee stands in the kitchen.", "Cocoa keeps in a tin."
MICRODAO, OTHER = "microdao:changes", "agent:bob"


@pytest.fixture(scope="module")
async def database(postgres):
    """Of its own, for its model is another one."""
    async with own_database(postgres) as database:
        yield database


@pytest.fixture(scope="module")
async def outbox(database: Database):
    """Jobs stay in it: the tests deliver them by hand."""
    outbox = Outbox(database, {})
    yield outbox
    await outbox.close()


@pytest.fixture
async def microdao(database: Database, request: pytest.FixtureRequest) -> str:
    microdao = f"{MICRODAO}:{request.node.name}"
    await add_tenant(database, microdao, AGENT, OTHER)
    return microdao


@pytest.fixture
def model() -> BagOfWords:
    return BagOfWords("bag-of-words")


@pytest.fixture
def memory(database: Database, outbox: Outbox, model: BagOfWords) -> Memory:
    return Memory(database, outbox, Spaces(database, Embedders(model)))


async def change(memory: Memory, microdao: str, item_id: str, text: str | None = None, **fields: Any) -> Row:
    more = {"content": {"text": text}} if text is not None else {}
    place = {"microdao_id": microdao, "agent_id": AGENT, "item_id": item_id}
    return await memory.items.change(MemoryChange(**{**place, **more, **fields}))


async def found(memory: Memory, microdao: str, text: str, mode: str = "lexical") -> list[str]:
    """The ids of what is found by all of a text's words, or nearly all of its meaning."""
    memories = await memory.query(ask(microdao, text, mode=mode, k=20, explain=True))
    return [one.id for one in memories if mode == "lexical" or one.why["vector"] > 0.5]


async def texts_of(memory: Memory, microdao: str, *ids: str) -> list[str]:
    return [(await memory.items.get(microdao, AGENT, one))["text"] for one in ids]


async def terms_of(database: Database, microdao: str) -> set[str]:
    async with database.tenant(microdao) as connection:
        return {row["term"] for row in await fetch_all(connection, "SELECT term FROM memory_posting")}


async def test_another_content_is_found_at_once_and_the_former_never_again(
    memory: Memory, database: Database, microdao: str
):
    item = await memory.store(new(microdao, TEA, source="wiki", content={"text": TEA, "context": {"author": "Ann"}}))
    await index_all(memory, database, microdao)
    assert await found(memory, microdao, TEA, "vector") == [item.id]
    before = await memory.items.get(microdao, AGENT, item.id)

    changed = await change(memory, microdao, item.id, COFFEE)

    assert (changed["id"], changed["state"], changed["text"], changed["author"]) == (item.id, "pending", COFFEE, None)
    assert changed == await memory.items.get(microdao, AGENT, item.id)
    same = ("number", "created_at", "occurred_at", "importance", "expires_at", "agent_id", "scope_name", "source")
    assert [changed[name] for name in same] == [before[name] for name in same]
    assert await found(memory, microdao, COFFEE) == [item.id]
    assert await found(memory, microdao, f"Ann {TEA}") == await found(memory, microdao, TEA, "vector") == []
    assert await found(memory, microdao, COFFEE, "vector") == []
    (job,) = await queued(database, microdao)
    assert job.item_ids == (item.id,)
    await index_all(memory, database, microdao)
    assert await found(memory, microdao, COFFEE, "vector") == [item.id]
    assert await found(memory, microdao, TEA, "vector") == []
    assert await embedded(database, microdao) == [item.id]
    assert (await memory.items.get(microdao, AGENT, item.id))["state"] == "ready"


async def test_the_same_content_again_is_not_embedded_again(memory: Memory, database: Database, microdao: str):
    item = await memory.store(new(microdao, TEA))
    await index_all(memory, database, microdao)
    end = utc_now() + timedelta(days=1)
    changed = await change(memory, microdao, item.id, TEA, importance=0.9, sets_expiry=True, expires_at=end)
    assert (changed["state"], changed["importance"], changed["expires_at"]) == ("ready", pytest.approx(0.9), end)
    assert await queued(database, microdao) == []
    assert await embedded(database, microdao) == [item.id]
    lifted = await change(memory, microdao, item.id, sets_expiry=True)
    assert (lifted["expires_at"], lifted["importance"]) == (None, changed["importance"])
    assert (await change(memory, microdao, item.id, importance=0.1))["expires_at"] is None


async def test_what_failed_is_tried_again_with_another_content(
    memory: Memory, database: Database, microdao: str, model: BagOfWords
):
    model.refuses = "poison"
    item = await memory.store(new(microdao, "this is poison"))
    await memory.index(await queued(database, microdao))
    assert (await memory.items.get(microdao, AGENT, item.id))["state"] == "failed"
    changed = await change(memory, microdao, item.id, "this is medicine")
    assert (changed["state"], changed["failure"]) == ("pending", None)
    await index_all(memory, database, microdao)
    assert (await memory.items.get(microdao, AGENT, item.id))["state"] == "ready"


async def test_an_end_that_is_past_ends_it(memory: Memory, database: Database, microdao: str):
    item = await memory.store(new(microdao, TEA))
    past = utc_now() - timedelta(seconds=1)
    assert (await change(memory, microdao, item.id, sets_expiry=True, expires_at=past))["expires_at"] == past
    assert await found(memory, microdao, TEA) == []
    with pytest.raises(NotFound):
        await memory.items.get(microdao, AGENT, item.id)
    with pytest.raises(NotFound):
        await change(memory, microdao, item.id, sets_expiry=True)


class _Halting(BagOfWords):
    """A model that waits in the middle of its work until it is told to go on."""

    def __init__(self) -> None:
        super().__init__("bag-of-words")
        self.reached, self.go_on = asyncio.Event(), asyncio.Event()

    async def embed(self, texts, purpose, microdao_id):
        self.reached.set()
        await self.go_on.wait()
        return await super().embed(texts, purpose, microdao_id)


@pytest.mark.parametrize("how", ["embedded", "refused", "words"])
@pytest.mark.parametrize("is_indexed", [True, False])
async def test_an_indexer_that_was_overtaken_writes_nothing_of_the_former_content(
    memory: Memory, database: Database, outbox: Outbox, microdao: str, how: str, is_indexed: bool
):
    item = await memory.store(new(microdao, TEA))
    slow = _Halting()
    slow.refuses = "Tea" if how == "refused" else ""
    jobs = await queued(database, microdao)
    if how == "words":
        async with database.tenant(microdao) as connection:
            await connection.execute("UPDATE memory_item SET lexicon = NULL")
    rival = asyncio.create_task(Memory(database, outbox, Spaces(database, Embedders(slow))).index(jobs))
    await slow.reached.wait()
    await change(memory, microdao, item.id, COFFEE)
    if is_indexed:
        await index_all(memory, database, microdao)
    slow.go_on.set()
    await rival
    row = await memory.items.get(microdao, AGENT, item.id)
    assert (row["state"], row["failure"]) == ("ready" if is_indexed else "pending", None)
    assert await embedded(database, microdao) == [item.id] * is_indexed
    assert await found(memory, microdao, TEA, "vector") == await found(memory, microdao, TEA) == []
    await index_all(memory, database, microdao)
    assert await found(memory, microdao, COFFEE, "vector") == [item.id]
    assert await embedded(database, microdao) == [item.id]


async def test_changes_among_deliveries_in_any_order_embed_once(
    memory: Memory, database: Database, outbox: Outbox, microdao: str
):
    chance = random.Random(3)
    ids = [(await memory.store(new(microdao, f"fact {number}"))).id for number in range(8)]
    rival = Memory(database, outbox, Spaces(database, Embedders(BagOfWords("bag-of-words"))))

    async def meddle(number: int) -> None:
        await asyncio.sleep(chance.random() / 10)
        item_id = ids[number % len(ids)]
        await change(memory, microdao, item_id, f"{chance.choice('abc')} {number % len(ids)}", importance=0.6)
        deliveries = [job for job in await queued(database, microdao) for _ in range(3)]
        chance.shuffle(deliveries)
        await (memory if number % 2 else rival).index(deliveries)

    await asyncio.gather(*(meddle(number) for number in range(40)))
    await index_all(memory, database, microdao)
    assert await embedded(database, microdao) == sorted(ids)
    assert await queued(database, microdao) == []
    assert (await memory.stats(microdao, AGENT)).pending == 0
    for item_id, text in zip(ids, await texts_of(memory, microdao, *ids), strict=True):
        assert item_id in await found(memory, microdao, text, "vector")


async def test_the_last_of_changes_at_once_wins_whole(memory: Memory, database: Database, microdao: str):
    item = await memory.store(new(microdao, TEA))
    texts = [f"alpha{number} beta{number} gamma{number}" for number in range(12)]
    changes = [change(memory, microdao, item.id, text, importance=n / 20) for n, text in enumerate(texts)]
    answers = await asyncio.gather(*changes, return_exceptions=True)
    assert all(isinstance(one, dict | Unavailable) for one in answers), answers
    row = await memory.items.get(microdao, AGENT, item.id)
    last = texts.index(row["text"])
    assert row["importance"] == pytest.approx(last / 20)
    words = {term for term in await terms_of(database, microdao) if term[:4] in ("alph", "beta", "gamm")}
    assert words == set(texts[last].split())
    await index_all(memory, database, microdao)
    assert await embedded(database, microdao) == [item.id]


async def test_a_change_and_a_deletion_at_once_leave_nothing_half_written(
    memory: Memory, database: Database, microdao: str
):
    for number in range(12):
        item = await memory.store(new(microdao, f"{TEA} {number}"))
        acts = [change(memory, microdao, item.id, f"{COFFEE} {number}"), memory.forget(microdao, AGENT, item.id)]
        changed, gone = await asyncio.gather(*(acts if number % 2 else acts[::-1]), return_exceptions=True)
        assert all(one is None or isinstance(one, dict | NotFound) for one in (changed, gone)), (changed, gone)
    assert await kept(database, microdao) == set()
    assert await terms_of(database, microdao) == set()
    await index_all(memory, database, microdao)
    assert await embedded(database, microdao) == []


async def test_the_former_text_stored_again_is_another_memory_kept_once(
    memory: Memory, database: Database, microdao: str
):
    first = await memory.store(new(microdao, TEA))
    await change(memory, microdao, first.id, COFFEE)
    second = await memory.store(new(microdao, TEA))
    assert second.id != first.id
    again = await asyncio.gather(*(memory.store(new(microdao, TEA, importance=0.8)) for _ in range(4)))
    assert {one.id for one in again} == {second.id}
    await change(memory, microdao, first.id, COCOA)
    assert (await memory.store(new(microdao, TEA))).id == second.id, "whatever the first one says meanwhile"
    await change(memory, microdao, second.id, COCOA)
    third = await memory.store(new(microdao, TEA))
    assert len({first.id, second.id, third.id}) == 3
    assert await texts_of(memory, microdao, first.id, second.id, third.id) == [COCOA, COCOA, TEA]
    await index_all(memory, database, microdao)
    assert await embedded(database, microdao) == sorted((first.id, second.id, third.id))
    assert await found(memory, microdao, TEA) == [third.id]


async def test_what_is_stored_beside_a_changed_memory_that_says_the_same_is_kept(
    memory: Memory, database: Database, microdao: str
):
    first = await memory.store(new(microdao, TEA))
    await change(memory, microdao, first.id, COFFEE)
    second = await memory.store(new(microdao, COFFEE))
    assert (await memory.store(new(microdao, COFFEE))).id == second.id != first.id
    await index_all(memory, database, microdao)
    memories = await memory.query(ask(microdao, COFFEE))
    assert [(one.id, one.duplicate_of) for one in memories] == [
        (memories[0].id, None),
        (memories[1].id, memories[0].id),
    ]


async def test_many_of_the_same_text_that_were_changed_hold_nobody_up(memory: Memory, microdao: str):
    ids = []
    for number in range(70):
        ids.append((await memory.store(new(microdao, TEA))).id)
        await change(memory, microdao, ids[-1], f"{COFFEE} {number}")
    last = await memory.store(new(microdao, TEA))
    assert last.id not in ids
    assert len(set(ids)) == 70
    assert await memory.store(new(microdao, TEA)) == last


@pytest.mark.parametrize("named", [{"id": "m1"}, {"occurred_at": utc_now()}], ids=["by id", "by moment"])
async def test_a_message_delivered_again_neither_comes_back_nor_undoes_a_change(
    memory: Memory, database: Database, microdao: str, named: dict[str, Any]
):
    message = Message(text=TEA, author="Ann", **named)
    (item_id,) = await memory.channels.post(microdao, AGENT, "general", [message])
    await index_all(memory, database, microdao)
    end = utc_now() + timedelta(days=1)
    changed = await change(memory, microdao, item_id, COFFEE, importance=0.9, sets_expiry=True, expires_at=end)
    assert changed["source"] == "channel", "it stays part of the channel's history"
    assert await memory.channels.post(microdao, AGENT, "general", [message]) == [item_id]
    assert await memory.items.get(microdao, AGENT, item_id) == changed
    assert await kept(database, microdao) == {item_id}


@pytest.mark.parametrize(("first", "then"), [("wiki", "book"), ("wiki", None), (None, "book")])
async def test_a_source_that_the_content_names_goes_with_it(memory: Memory, microdao: str, first: str, then: str):
    item = await memory.store(new(microdao, TEA, content={"text": TEA, "source": first}))
    changed = await change(memory, microdao, item.id, content={"text": COFFEE, "source": then})
    assert changed["source"] == then


async def test_a_passage_keeps_its_document_and_its_text(memory: Memory, database: Database, microdao: str):
    document = NewDocument(microdao_id=microdao, agent_id=AGENT, data=TEA.encode(), media_type="text/plain")
    added = await memory.documents.add(document)
    (item_id,) = await kept(database, microdao)
    with pytest.raises(Conflict, match=added["id"]):
        await change(memory, microdao, item_id, COFFEE, importance=0.9)
    assert (await memory.items.get(microdao, AGENT, item_id))["importance"] == pytest.approx(0.5)
    end = utc_now() + timedelta(days=1)
    changed = await change(memory, microdao, item_id, importance=0.9, sets_expiry=True, expires_at=end)
    assert (changed["importance"], changed["expires_at"], changed["text"]) == (pytest.approx(0.9), end, TEA)
    await memory.documents.add(document)
    assert (await memory.items.get(microdao, AGENT, item_id))["expires_at"] is None, "adding it again renews it"


async def test_a_snapshot_brings_the_former_content_back_when_it_replaces(
    memory: Memory, database: Database, microdao: str
):
    item = await memory.store(new(microdao, TEA))
    snapshot = await memory.snapshots.save(microdao, AGENT, "before")
    await change(memory, microdao, item.id, COFFEE)
    merged = await memory.snapshots.restore(microdao, snapshot["id"], None, "merge")
    assert (merged.added, merged.kept) == (0, 1), "what is there stays as it is"
    assert await texts_of(memory, microdao, item.id) == [COFFEE]
    await memory.snapshots.restore(microdao, snapshot["id"], None, "replace")
    assert await kept(database, microdao) == {item.id}
    assert await texts_of(memory, microdao, item.id) == [TEA]
    await index_all(memory, database, microdao)
    assert await found(memory, microdao, TEA, "vector") == [item.id]
    assert await embedded(database, microdao) == [item.id]


async def test_only_who_may_write_changes(memory: Memory, database: Database, microdao: str):
    item = await memory.store(new(microdao, TEA))
    sharing, bob = memory.sharing, Grantee("agent", OTHER)

    async def try_it(**fields: Any) -> type[ApiError] | None:
        try:
            await change(memory, microdao, item.id, agent_id=OTHER, **fields)
        except ApiError as error:
            return type(error)
        return None

    asked: list[dict[str, Any]] = [{"text": COFFEE}, {"importance": 0.9}, {"sets_expiry": True}]
    assert [await try_it(**one) for one in asked] == [NotFound] * 3
    grant = await sharing.share(microdao, Grantee("agent", AGENT), bob, "read")
    assert [await try_it(**one) for one in asked] == [Unauthorized] * 3
    assert [await try_it(**one, by_admin=True) for one in asked] == [NotFound] * 3, "it is not the microDAO's"
    assert (await memory.items.get(microdao, OTHER, item.id))["text"] == TEA
    await sharing.share(microdao, Grantee("agent", AGENT), bob, "write")
    assert [await try_it(**one) for one in asked] == [None] * 3
    await sharing.revoke(microdao, grant["id"])
    assert [await try_it(**one) for one in asked] == [NotFound] * 3
    with pytest.raises(NotFound):
        await memory.items.get(microdao, OTHER, item.id)


async def test_what_is_everybodys_only_admins_change(memory: Memory, database: Database, microdao: str):
    item = await memory.store(new(microdao, TEA, scope=ScopeRef("microdao", microdao), by_admin=True))
    with pytest.raises(Unauthorized):
        await change(memory, microdao, item.id, COFFEE)
    assert (await memory.items.get(microdao, OTHER, item.id))["text"] == TEA
    changed = await change(memory, microdao, item.id, COFFEE, by_admin=True, importance=0.9)
    assert (changed["text"], changed["scope_kind"]) == (COFFEE, "microdao")
    await index_all(memory, database, microdao)
    memories = await memory.query(ask(microdao, COFFEE, agent_id=OTHER))
    assert [one.id for one in memories] == [item.id]
    with pytest.raises(NotFound):
        await change(memory, microdao, "mem_none", COFFEE, by_admin=True)


async def test_a_right_that_is_taken_away_while_it_changes_changes_nothing(
    memory: Memory, database: Database, microdao: str
):
    item = await memory.store(new(microdao, TEA))
    await memory.sharing.share(microdao, Grantee("agent", AGENT), Grantee("agent", OTHER), "write")
    async with database.system() as connection:
        await fetch_one(connection, "SELECT 1 FROM memory_item WHERE id = %s FOR UPDATE", (item.id,))
        changing = asyncio.create_task(change(memory, microdao, item.id, COFFEE, agent_id=OTHER))
        while not await database.run("SELECT 1 FROM pg_locks WHERE NOT granted"):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await memory.sharing.share(microdao, Grantee("agent", AGENT), Grantee("agent", OTHER), "read")
    with pytest.raises(Unauthorized):
        await changing
    assert await texts_of(memory, microdao, item.id) == [TEA]
    assert await found(memory, microdao, TEA) == [item.id]


async def test_a_text_of_one_word_said_ever_so_often_is_indexed_anew(memory: Memory, database: Database, microdao: str):
    item = await memory.store(new(microdao, "go " * 40_000))
    await change(memory, microdao, item.id, "went " * 40_000)
    async with database.tenant(microdao) as connection:
        await connection.execute("UPDATE memory_item SET lexicon = NULL")
    await index_all(memory, database, microdao)
    assert await found(memory, microdao, "went") == [item.id]
