"""Memories changed while another model (or lexicon) takes over: each has the vector of what it says, in both spaces."""

import asyncio
from collections.abc import AsyncIterator

import orjson
import pytest

from localstack.postgres import EmbeddedPostgres
from shared.cloud.outbox import Outbox
from shared.db.database import Database, Row, fetch_all
from shared.memory.embedding.embedders import Embedders
from shared.memory.embedding.spaces import Spaces
from shared.memory.indexing import reindexing
from shared.memory.memory import Memory
from tests.embeddings import BagOfWords, add_tenant, own_database
from tests.integration.test_memory_changes import change
from tests.memories import AGENT, index_all, new, queued

TENANT = "microdao:changed"


@pytest.fixture
async def database(postgres: EmbeddedPostgres) -> AsyncIterator[Database]:
    async with own_database(postgres) as database:
        await add_tenant(database, TENANT, AGENT)
        yield database


@pytest.fixture
async def outbox(database: Database) -> AsyncIterator[Outbox]:
    outbox = Outbox(database, {})
    yield outbox
    await outbox.close()


@pytest.fixture
def models() -> tuple[BagOfWords, BagOfWords]:
    return BagOfWords("old-model", 64), BagOfWords("other-model", 128)


@pytest.fixture
def memory(database: Database, outbox: Outbox, models: tuple[BagOfWords, BagOfWords]) -> Memory:
    return Memory(database, outbox, Spaces(database, Embedders(*models)))


@pytest.fixture(autouse=True)
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reindexing, "_FIRST_WAIT_S", 0.0)


async def vectors(database: Database) -> list[Row]:
    """Each item with its state and its vectors in the active space."""
    async with database.system() as connection:
        return await fetch_all(
            connection,
            "SELECT i.text, i.state, ARRAY(SELECT e.embedding::text FROM memory_embedding e"
            " JOIN memory_space s USING (space_id) WHERE e.item = i.number AND s.state = 'active') AS vectors"
            " FROM memory_item i",
        )


async def test_changes_while_another_model_takes_over(
    memory: Memory, database: Database, outbox: Outbox, models: tuple[BagOfWords, BagOfWords]
):
    """Two processes index, one of them late to know of the new space."""
    ids = [(await memory.store(new(TENANT, f"note {number}"))).id for number in range(40)]
    await index_all(memory, database, TENANT)
    rival = Memory(database, outbox, Spaces(database, Embedders(*models)))
    await rival.spaces.written()
    await memory.reindexing.start("other-model")

    async def change_some() -> None:
        for number in range(0, 60):
            await change(memory, TENANT, ids[number % 20], f"changed {number} of {number % 20}")

    async def work(worker: Memory) -> None:
        for _ in range(15):
            await worker.index(await queued(database, TENANT))
            await asyncio.sleep(0.01)

    await asyncio.gather(change_some(), work(memory), work(rival))
    rival.spaces.reread()
    for _ in range(4):
        await memory.sweep(older_than_s=0)
        await index_all(memory, database, TENANT)
    assert (await memory.reindexing.progress()).state == "done"
    rows = await vectors(database)
    assert len(rows) == 40
    for row in rows:
        (vector,) = row["vectors"]
        (expected,) = await models[1].embed([row["text"]], "passage", TENANT)
        assert (row["state"], orjson.loads(vector)) == ("ready", pytest.approx(expected, abs=1e-3))


async def test_what_a_model_did_not_take_is_tried_anew(
    memory: Memory, database: Database, models: tuple[BagOfWords, BagOfWords]
):
    item = await memory.store(new(TENANT, "poison here"))
    await index_all(memory, database, TENANT)
    models[1].refuses = "poison"
    await memory.reindexing.start("other-model")
    for _ in range(reindexing._ATTEMPTS - 1):
        await index_all(memory, database, TENANT)
        await memory.reindexing.sweep()
    await change(memory, TENANT, item.id, "medicine here")
    assert (await memory.reindexing.progress()).failed == 0
    await index_all(memory, database, TENANT)
    await memory.reindexing.sweep()
    ended = await memory.reindexing.progress()
    assert (ended.state, ended.done, ended.failed) == ("done", 1, 0)
    (row,) = await vectors(database)
    assert (row["state"], len(row["vectors"])) == ("ready", 1)


async def test_a_lexicon_that_takes_over_finds_what_is_said_now(memory: Memory, database: Database):
    item = await memory.store(new(TENANT, "the old words"))
    await index_all(memory, database, TENANT)
    async with database.system() as connection:
        await connection.execute("UPDATE memory_item SET lexicon = 0")
    await memory.reindexing.sweep()
    await change(memory, TENANT, item.id, "the new phrases")
    await index_all(memory, database, TENANT)
    async with database.system() as connection:
        rows = await fetch_all(connection, "SELECT term FROM memory_posting WHERE term ~ '^[a-z]+$' ORDER BY 1")
    assert [row["term"] for row in rows] == ["new", "phrase"]
