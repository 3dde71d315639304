"""A memory changed in place: found by what it says now and never by what it said, embedded once, whatever goes on."""

import asyncio
import random
import signal
import sys
from datetime import timedelta
from typing import Any

import pytest

from shared.clock import utc_now
from shared.cloud.outbox import Outbox
from shared.db.database import Database, Row, fetch_all
from shared.errors import NotFound, Unavailable
from shared.memory.embedding.embedders import Embedders
from shared.memory.embedding.spaces import Spaces
from shared.memory.memory import Memory
from shared.memory.model import MemoryChange
from tests.embeddings import BagOfWords, add_tenant, own_database
from tests.memories import AGENT, ask, embedded, index_all, kept, new, queued
from tests.races import until_somebody_waits

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


@pytest.mark.parametrize(("first", "then"), [("wiki", "book"), ("wiki", None), (None, "book")])
async def test_a_source_that_the_content_names_goes_with_it(memory: Memory, microdao: str, first: str, then: str):
    item = await memory.store(new(microdao, TEA, content={"text": TEA, "source": first}))
    changed = await change(memory, microdao, item.id, content={"text": COFFEE, "source": then})
    assert changed["source"] == then


async def test_a_text_of_one_word_said_ever_so_often_is_indexed_anew(memory: Memory, database: Database, microdao: str):
    item = await memory.store(new(microdao, "go " * 40_000))
    await change(memory, microdao, item.id, "went " * 40_000)
    async with database.tenant(microdao) as connection:
        await connection.execute("UPDATE memory_item SET lexicon = NULL")
    await index_all(memory, database, microdao)
    assert await found(memory, microdao, "went") == [item.id]


_CHANGE_IN_A_PROCESS = """
import asyncio, sys
from shared.cloud.outbox import Outbox
from shared.db.database import Database
from shared.memory.embedding.embedders import Embedders
from shared.memory.embedding.spaces import Spaces
from shared.memory.memory import Memory
from tests.embeddings import BagOfWords
from tests.integration.test_memory_changes import COFFEE, change

async def main():
    url, microdao, item_id = sys.argv[1:]
    database = Database(url)
    spaces = Spaces(database, Embedders(BagOfWords("bag-of-words")))
    await change(Memory(database, Outbox(database, {}), spaces), microdao, item_id, COFFEE, importance=0.9)

asyncio.run(main())
"""


async def test_a_process_killed_in_the_middle_of_a_change_changes_nothing(
    memory: Memory, database: Database, microdao: str
):
    """A vector is locked, so the other process waits with half its work done; there it is killed."""
    item = await memory.store(new(microdao, TEA))
    await index_all(memory, database, microdao)
    before = await memory.items.get(microdao, AGENT, item.id)
    command = [sys.executable, "-c", _CHANGE_IN_A_PROCESS, database._pool.conninfo, microdao, item.id]
    async with database.system() as connection:
        await fetch_all(connection, "SELECT 1 FROM memory_embedding FOR UPDATE")
        process = await asyncio.create_subprocess_exec(*command)
        try:
            await until_somebody_waits(database)
        finally:
            process.kill()
        assert await process.wait() == -signal.SIGKILL
    assert await memory.items.get(microdao, AGENT, item.id) == before
    assert await found(memory, microdao, TEA) == await found(memory, microdao, TEA, "vector") == [item.id]
    assert await found(memory, microdao, COFFEE) == []
    assert await queued(database, microdao) == []
    await change(memory, microdao, item.id, COFFEE)
    await index_all(memory, database, microdao)
    assert await embedded(database, microdao) == [item.id]
