"""Which memory is which once they can be changed: stored or delivered again, cut from a document, in a snapshot."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from shared.clock import utc_now
from shared.cloud.outbox import Outbox
from shared.db.database import Database
from shared.errors import Conflict
from shared.memory.channels import Message
from shared.memory.documents.documents import NewDocument
from shared.memory.embedding.embedders import Embedders
from shared.memory.embedding.spaces import Spaces
from shared.memory.memory import Memory
from tests.embeddings import BagOfWords, add_tenant, own_database
from tests.integration.test_memory_changes import COCOA, COFFEE, TEA, change, found, texts_of
from tests.memories import AGENT, ask, embedded, index_all, kept, new


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
    microdao = f"microdao:{request.node.name}"
    await add_tenant(database, microdao, AGENT)
    return microdao


@pytest.fixture
def memory(database: Database, outbox: Outbox) -> Memory:
    return Memory(database, outbox, Spaces(database, Embedders(BagOfWords("bag-of-words"))))


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
    replaced = await memory.snapshots.restore(microdao, snapshot["id"], None, "replace")
    assert (replaced.added, replaced.changed, replaced.removed) == (0, 1, 0)
    assert await kept(database, microdao) == {item.id}
    assert await texts_of(memory, microdao, item.id) == [TEA]
    await index_all(memory, database, microdao)
    assert await found(memory, microdao, TEA, "vector") == [item.id]
    assert await embedded(database, microdao) == [item.id]
