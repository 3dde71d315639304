"""Scopes with many vectors get an index of their own: while memory is in use, and without losing what is near."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator

import numpy as np
import orjson
import psycopg
import pytest

from localstack.postgres import EmbeddedPostgres
from shared.cloud.outbox import Outbox
from shared.db.database import Database, fetch_all, fetch_one
from shared.memory.embedding.embedders import Embedders
from shared.memory.embedding.spaces import Spaces
from shared.memory.indexing.large_scopes import LargeScopes
from shared.memory.memory import Memory
from shared.memory.model import MemoryChange
from tests.embeddings import BagOfWords, add_tenant, beside, own_database
from tests.memories import AGENT, ask, new, queued

TENANT, NEIGHBOUR = "agent:big", "agent:small"
MICRODAO = "microdao:large"
DIMENSIONS = 32
MANY = 25_000
CLUSTERS = 250


class Preset(BagOfWords):
    """Texts like ``vector 17`` have a vector of a clustered set: a direction of its cluster with some noise."""

    def __init__(self, count: int) -> None:
        super().__init__("preset", DIMENSIONS)
        chance = np.random.default_rng(7)
        centres = chance.normal(size=(CLUSTERS, DIMENSIONS))
        made = centres[chance.integers(CLUSTERS, size=count)] + 0.6 * chance.normal(size=(count, DIMENSIONS))
        made /= np.linalg.norm(made, axis=1, keepdims=True)
        self.vectors = made.astype(np.float16).astype(np.float32)

    async def embed(self, texts, purpose, microdao_id):
        return [
            self.vectors[int(text.split()[1])].tolist()
            if text.startswith("vector ")
            else (await super(Preset, self).embed([text], purpose, microdao_id))[0]
            for text in texts
        ]


@pytest.fixture
async def database(postgres: EmbeddedPostgres) -> AsyncIterator[Database]:
    async with own_database(postgres) as database:
        await add_tenant(database, MICRODAO, AGENT, TENANT, NEIGHBOUR)
        yield database


@pytest.fixture
async def outbox(database: Database) -> AsyncIterator[Outbox]:
    outbox = Outbox(database, {})
    yield outbox
    await outbox.close()


def load(postgres: EmbeddedPostgres, database: Database, agent: str, vectors: np.ndarray, first: int = 0) -> None:
    """Items ``vector 0``… of an agent with their vectors, as a bulk load."""
    with psycopg.connect(beside(postgres.admin_url, database._pool.conninfo.rpartition("/")[2])) as admin:
        scope = admin.execute(
            "SELECT scope_id FROM memory_scope WHERE kind = 'agent' AND name = %s", (agent,)
        ).fetchone()
        admin.execute("CREATE TEMP TABLE loaded (place integer, embedding halfvec)")
        with admin.cursor().copy("COPY loaded FROM STDIN") as copy:
            for place, vector in enumerate(vectors, first):
                copy.write_row((place, "[" + ",".join(map("{:.5g}".format, vector.tolist())) + "]"))
        admin.execute(
            "INSERT INTO memory_item (id, microdao_id, scope_id, agent_id, tier, content, text, content_hash, words,"
            " lexicon, state) SELECT 'mem_' || %(agent)s || place, %(microdao)s, %(scope)s, %(agent)s, 'long_term',"
            " jsonb_build_object('text', 'vector ' || place), 'vector ' || place, '', 2, 1, 'ready' FROM loaded",
            {"agent": agent, "microdao": MICRODAO, "scope": scope[0]},
        )
        admin.execute(
            "INSERT INTO memory_embedding SELECT 1, i.scope_id, i.number, 0, l.embedding FROM loaded l"
            " JOIN memory_item i ON i.id = 'mem_' || %s || l.place",
            (agent,),
        )
        admin.execute("ANALYZE memory_embedding_1_small")
        admin.execute("ANALYZE memory_item")


async def large_scopes(database: Database) -> list[str]:
    async with database.system() as connection:
        rows = await fetch_all(
            connection, "SELECT s.name FROM memory_large_scope l JOIN memory_scope s USING (scope_id) ORDER BY 1"
        )
    return [row["name"] for row in rows]


async def texts(memory: Memory, number: int, k: int = 10, **filters: object) -> list[str]:
    question = ask(MICRODAO, f"vector {number}", agent_id=TENANT, mode="vector", k=k, scopes=("agent",), **filters)
    return [one.text for one in await memory.query(question)]


async def test_grown_large_while_in_use(postgres: EmbeddedPostgres, database: Database, outbox: Outbox):
    """Nothing is lost or left over, every search is answered, and the index finds what an exact search finds."""
    model = Preset(MANY + 600)
    memory = Memory(database, outbox, Spaces(database, Embedders(model)))
    await memory.spaces.active()
    load(postgres, database, TENANT, model.vectors[:MANY])
    scopes, done = LargeScopes(database), asyncio.Event()
    stored, forgotten, waits = [], [], []

    async def store() -> None:
        for number in range(MANY, MANY + 600):
            if done.is_set():
                return
            item = await memory.store(new(MICRODAO, f"vector {number}", agent_id=TENANT))
            jobs = [job for job in await queued(database, MICRODAO) if item.id in job.item_ids]
            assert await memory.index(jobs) == set()
            stored.append(number)
            await asyncio.sleep(0.02)

    async def forget() -> None:
        for number in range(0, MANY, 7):
            if done.is_set():
                return
            await memory.forget(MICRODAO, TENANT, f"mem_{TENANT}{number}")
            forgotten.append(number)
            await asyncio.sleep(0.01)

    async def search() -> None:
        for number in itertools.cycle(range(1, MANY, 7)):  # none of those that are forgotten
            if done.is_set():
                return
            began = time.monotonic()
            found = await texts(memory, number, k=20)
            waits.append(time.monotonic() - began)
            assert len(found) >= 8, "but for those that are forgotten between finding and reading them"
            assert f"vector {number}" in found, "not always first: all above a cosine of 0.9 are as good"
            await asyncio.sleep(0.05)

    workers = [asyncio.create_task(one) for one in (store(), forget(), forget_more(memory, done), search())]
    assert await scopes.sweep() is not None
    await asyncio.sleep(0.3)
    done.set()
    await asyncio.gather(*workers)

    assert stored
    assert forgotten
    assert max(waits) < 3, "searches wait for a moment only"
    async with database.system() as connection:
        row = await fetch_one(
            connection,
            "SELECT (SELECT count(*) FROM memory_item WHERE agent_id = %(agent)s) AS items,"
            " (SELECT count(*) FROM memory_embedding) AS vectors, (SELECT count(*) FROM memory_embedding e"
            " WHERE NOT EXISTS (SELECT 1 FROM memory_item i WHERE i.number = e.item)) AS orphans",
            {"agent": TENANT},
        )
    assert row == {"items": row["items"], "vectors": row["items"], "orphans": 0}
    assert await large_scopes(database) == [TENANT]
    assert await scopes.sweep() is None
    await _compare_with_exact(memory, database, model)


async def forget_more(memory: Memory, done: asyncio.Event) -> None:
    """A second one that deletes, many at once."""
    for start in range(3, MANY, 700):
        if done.is_set():
            return
        async with memory._database.agent(MICRODAO, TENANT) as connection:
            ids = [f"mem_{TENANT}{number}" for number in range(start, start + 70, 7)]
            await connection.execute("DELETE FROM memory_item WHERE id = ANY(%s)", (ids,))
        await asyncio.sleep(0.02)


async def _compare_with_exact(memory: Memory, database: Database, model: Preset) -> None:
    async with database.system() as connection:
        rows = await fetch_all(connection, "SELECT text FROM memory_item WHERE agent_id = %s", (TENANT,))
        await connection.execute(
            "UPDATE memory_item SET source = 'some' WHERE agent_id = %s AND number %% 500 = 0", (TENANT,)
        )
        some = {
            row["text"] for row in await fetch_all(connection, "SELECT text FROM memory_item WHERE source = 'some'")
        }
    left = np.array(sorted(int(row["text"].split()[1]) for row in rows))
    hits = 0
    for number in range(5, MANY, 500):
        order = left[np.argsort(-(model.vectors[left] @ model.vectors[number]), kind="stable")]
        exact = [f"vector {one}" for one in order]
        hits += len(set(exact[:10]) & set(await texts(memory, number)))
        if number % 10_000 == 5:
            filtered = await texts(memory, number, source="some")
            assert filtered == [one for one in exact if one in some][:10], "filtered searches are exact"
            assert len(await texts(memory, number, k=100)) == 100
    assert hits / (10 * len(range(5, MANY, 500))) >= 0.99


async def test_what_is_changed_while_it_grows_large_has_the_vector_of_what_it_says(
    postgres: EmbeddedPostgres, database: Database, outbox: Outbox
):
    count = 6000
    model = Preset(2 * count)
    memory = Memory(database, outbox, Spaces(database, Embedders(model)))
    await memory.spaces.active()
    load(postgres, database, TENANT, model.vectors[:count])
    done, changed = asyncio.Event(), []

    async def change(number: int) -> None:
        place = {"microdao_id": MICRODAO, "agent_id": TENANT, "item_id": f"mem_{TENANT}{number}"}
        await memory.items.change(MemoryChange(**place, content={"text": f"vector {count + number}"}))
        assert await memory.index(await queued(database, MICRODAO)) == set()
        changed.append(number)

    async def change_all() -> None:
        for number in range(0, count, 3):
            if done.is_set():
                return
            await change(number)

    changing = asyncio.create_task(change_all())
    assert await LargeScopes(database, most_exact=100).sweep() is not None
    during = len(changed)
    done.set()
    await changing
    for number in (1, 4, 7):
        await change(number)
    assert during > 10
    async with database.system() as connection:
        rows = await fetch_all(
            connection,
            "SELECT i.text, e.embedding::text AS vector FROM memory_item i LEFT JOIN memory_embedding e"
            " ON e.item = i.number WHERE i.agent_id = %s",
            (TENANT,),
        )
    assert len(rows) == count
    for row in rows:
        assert orjson.loads(row["vector"]) == pytest.approx(model.vectors[int(row["text"].split()[1])], abs=1e-3)
    for number in changed[-20:]:
        assert (await texts(memory, count + number))[0] == f"vector {count + number}"
        assert f"vector {number}" not in await texts(memory, number)


async def test_one_scope_a_sweep_the_largest_first(postgres: EmbeddedPostgres, database: Database, outbox: Outbox):
    model = Preset(400)
    memory = Memory(database, outbox, Spaces(database, Embedders(model)))
    await memory.spaces.active()
    scopes = LargeScopes(database, most_exact=100)
    assert await scopes.sweep() is None
    load(postgres, database, NEIGHBOUR, model.vectors[:120])
    load(postgres, database, TENANT, model.vectors[:300])
    load(postgres, database, AGENT, model.vectors[:50])
    assert await scopes.sweep() is not None
    assert await large_scopes(database) == [TENANT]
    assert await scopes.sweep() is not None
    assert await large_scopes(database) == [TENANT, NEIGHBOUR]
    assert await scopes.sweep() is None, "an estimate that is out of date is checked"
    for number in (3, 77, 299):
        near = np.argsort(-(model.vectors[:300] @ model.vectors[number]), kind="stable")[:10]
        assert await texts(memory, number) == [f"vector {one}" for one in near]


async def test_whoever_reads_long_holds_nobody_up(postgres: EmbeddedPostgres, database: Database, outbox: Outbox):
    model = Preset(300)
    memory = Memory(database, outbox, Spaces(database, Embedders(model)))
    await memory.spaces.active()
    load(postgres, database, TENANT, model.vectors)
    waits = []
    async with database.agent(MICRODAO, TENANT) as reader:
        await fetch_all(reader, "SELECT count(*) FROM memory_embedding")
        moving = asyncio.create_task(LargeScopes(database, most_exact=100).sweep())
        for number in range(20):
            began = time.monotonic()
            assert len(await texts(memory, number)) == 10
            waits.append(time.monotonic() - began)
            await asyncio.sleep(0.1)
        assert not moving.done()
    assert await moving is not None
    assert max(waits) < 1.5
    assert await large_scopes(database) == [TENANT]


async def test_a_large_scope_in_a_space_that_is_dropped(postgres: EmbeddedPostgres, database: Database, outbox: Outbox):
    model = Preset(300)
    memory = Memory(database, outbox, Spaces(database, Embedders(model)))
    await memory.spaces.active()
    load(postgres, database, TENANT, model.vectors)
    assert await LargeScopes(database, most_exact=100).sweep() is not None
    await memory.reindexing.start()
    while jobs := await queued(database, MICRODAO):
        await memory.index(jobs)
    assert (await memory.reindexing.progress()).state == "done"
    assert len(await texts(memory, 5)) == 10
    async with database.system() as connection:
        await connection.execute(
            "UPDATE memory_space SET retired_at = now() - interval '1 day' WHERE state = 'retired'"
        )
    await memory.reindexing.sweep()
    assert await large_scopes(database) == []
    assert len(await texts(memory, 5)) == 10
