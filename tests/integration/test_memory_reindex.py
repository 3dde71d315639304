"""A change of the embedding model while memory is stored to, searched and forgotten; each test in its own database."""

import asyncio
import signal
import sys
import time
from collections.abc import AsyncIterator

import pytest

from localstack.postgres import EmbeddedPostgres
from shared.cloud.outbox import Outbox
from shared.db.database import Database, Row, fetch_all, fetch_one
from shared.errors import Conflict, InsufficientQuota, NotFound
from shared.memory.embedding.embedders import Embedders
from shared.memory.embedding.spaces import Spaces
from shared.memory.indexing import reindexing
from shared.memory.memory import Memory
from shared.memory.search.terms import LEXICON
from tests.embeddings import BagOfWords, add_tenant, own_database
from tests.memories import AGENT, ask, index_all, new, queued

TENANT = "microdao:reindexed"
_outboxes: list[Outbox] = []
TEXTS = [f"note {number} about the number {number}" for number in range(40)]


@pytest.fixture
async def database(postgres: EmbeddedPostgres) -> AsyncIterator[Database]:
    async with own_database(postgres) as database:
        await add_tenant(database, TENANT, AGENT)
        yield database
        for outbox in _outboxes:
            await outbox.close()
        _outboxes.clear()


@pytest.fixture
def old() -> BagOfWords:
    return BagOfWords("old-model", 64)


@pytest.fixture
def other() -> BagOfWords:
    return BagOfWords("other-model", 128)


def opened(database: Database, old: BagOfWords, *others: BagOfWords, configured: str = "") -> Memory:
    _outboxes.append(Outbox(database, {}))  # jobs stay in it: the tests deliver them by hand
    return Memory(database, _outboxes[-1], Spaces(database, Embedders(old, *others, configured=configured)))


@pytest.fixture
def memory(database: Database, old: BagOfWords, other: BagOfWords) -> Memory:
    return opened(database, old, other)


@pytest.fixture(autouse=True)
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reindexing, "_FIRST_WAIT_S", 0.0)


async def fill(memory: Memory, *texts: str) -> list[str]:
    ids = [(await memory.store(new(TENANT, text))).id for text in texts]
    await index_all(memory, memory._database, TENANT)
    return ids


async def spaces(database: Database) -> list[Row]:
    async with database.system() as connection:
        return await fetch_all(
            connection,
            "SELECT s.space_id, s.model, s.state, count(DISTINCT e.item) AS items FROM memory_space s"
            " LEFT JOIN memory_embedding e USING (space_id) GROUP BY s.space_id ORDER BY s.space_id",
        )


async def states(database: Database) -> list[tuple[str, str, int]]:
    return [(row["model"], row["state"], row["items"]) for row in await spaces(database)]


async def found(memory: Memory, number: int) -> str:
    best, *_ = await memory.query(ask(TENANT, TEXTS[number], mode="vector"))
    return best.text


async def test_both_spaces_live_until_the_swap(memory: Memory, database: Database, old: BagOfWords, other: BagOfWords):
    ids = await fill(memory, *TEXTS)
    started = await memory.reindexing.start("other-model")
    assert (started.state, started.total, started.done, started.progress) == ("running", 40, 0, 0.0)
    assert await found(memory, 7) == TEXTS[7]
    assert await states(database) == [("old-model", "active", 40), ("other-model", "filling", 0)]

    jobs = await queued(database, TENANT)
    assert {job.reindex_id for job in jobs} == {started.id}
    assert sorted(item for job in jobs for item in job.item_ids) == sorted(ids)
    assert await memory.index(jobs[:1]) == set()
    halfway = await memory.reindexing.progress()
    assert (halfway.done, halfway.state, halfway.progress) == (32, "running", 0.8)
    assert halfway.eta_s is not None
    assert await found(memory, 39) == TEXTS[39], "the old space answers while the other one is incomplete"

    new_id = (await memory.store(new(TENANT, "something else entirely"))).id
    await memory.index([job for job in await queued(database, TENANT) if new_id in job.item_ids])
    await memory.forget(TENANT, AGENT, ids[0])
    assert await states(database) == [("old-model", "active", 40), ("other-model", "filling", 32)]

    assert await memory.index(jobs[1:]) == set()
    assert await states(database) == [("old-model", "retired", 40), ("other-model", "active", 40)]
    asked = len(old.asked)
    assert await found(memory, 39) == TEXTS[39]
    assert (len(old.asked), other.asked[-1]) == (asked, TEXTS[39])
    ended = await memory.reindexing.progress()
    assert (ended.state, ended.done, ended.total, ended.progress, ended.eta_s) == ("done", 40, 40, 1.0, None)
    assert await queued(database, TENANT) == []
    assert sorted(other.asked[:-1]) == sorted([*TEXTS, "something else entirely"]), "each text once"


async def test_another_process_follows(memory: Memory, database: Database, old: BagOfWords, other: BagOfWords):
    """It remembers the spaces for some seconds: what it indexes meanwhile into the old one is not lost."""
    await fill(memory, *TEXTS[:5])
    late = opened(database, old, other)
    await late.spaces.written()
    await memory.reindexing.start("other-model")
    fills = await queued(database, TENANT)
    stored = await late.store(new(TENANT, TEXTS[30]))
    ordinary = [job for job in await queued(database, TENANT) if stored.id in job.item_ids]
    assert await late.index(ordinary) == set()
    assert await states(database) == [("old-model", "active", 6), ("other-model", "filling", 0)]

    assert await memory.index(fills) == set()
    assert (await memory.reindexing.progress()).state == "running", "one is missing"
    await memory.reindexing.sweep()
    await index_all(memory, database, TENANT)
    assert await states(database) == [("old-model", "retired", 6), ("other-model", "active", 6)]
    assert await found(late, 30) == TEXTS[30], "the retired space still answers"


async def test_an_item_written_by_who_missed_the_swap(memory: Memory, database: Database, old, other):
    await fill(memory, *TEXTS[:3])
    late = opened(database, old, other)
    await late.spaces.written()
    await memory.reindexing.start("other-model")
    await index_all(memory, database, TENANT)
    stored = await late.store(new(TENANT, TEXTS[30]))
    await index_all(late, database, TENANT)
    async with database.tenant(TENANT) as connection:
        row = await fetch_one(connection, "SELECT state FROM memory_item WHERE id = %s", (stored.id,))
    assert row == {"state": "pending"}, "not ready: the active space lacks it"
    await memory.sweep(older_than_s=0)
    await index_all(memory, database, TENANT)
    assert (await memory.stats(TENANT, AGENT)).pending == 0
    assert await found(memory, 30) == TEXTS[30]


async def test_the_same_model_again(memory: Memory, database: Database, old: BagOfWords):
    await fill(memory, *TEXTS)
    asked = len(old.asked)
    await memory.reindexing.start()
    await index_all(memory, database, TENANT)
    assert await states(database) == [("old-model", "retired", 40), ("old-model", "active", 40)]
    assert sorted(old.asked[asked:]) == sorted(TEXTS)
    await memory.reindexing.sweep()
    assert len(await spaces(database)) == 2, "a retired space is kept for a while"


async def test_a_retired_space_is_dropped(memory: Memory, database: Database, monkeypatch: pytest.MonkeyPatch):
    await fill(memory, *TEXTS[:3])
    await memory.reindexing.start("other-model")
    await index_all(memory, database, TENANT)
    monkeypatch.setattr(reindexing, "_DROPPED_AFTER_S", 0.0)
    async with database.agent(TENANT, AGENT) as reader:
        await fetch_all(reader, "SELECT count(*) FROM memory_embedding")
        began = time.monotonic()
        await memory.reindexing.sweep()
        assert time.monotonic() - began < 5, "whoever reads is not waited for"
        assert len(await spaces(database)) == 2
    await memory.reindexing.sweep()
    assert await states(database) == [("other-model", "active", 3)]
    assert await found(memory, 2) == TEXTS[2]


async def test_one_at_a_time_and_cancelling(memory: Memory, database: Database):
    with pytest.raises(NotFound):
        await memory.reindexing.progress()
    with pytest.raises(NotFound):
        await memory.reindexing.cancel()
    with pytest.raises(NotFound):
        await memory.reindexing.start("no-such-model")
    await fill(memory, *TEXTS)
    results = await asyncio.gather(*(memory.reindexing.start("other-model") for _ in range(3)), return_exceptions=True)
    assert sorted(type(one).__name__ for one in results) == ["Conflict", "Conflict", "Progress"]
    with pytest.raises(Conflict):
        await memory.reindexing.start()
    await memory.index((await queued(database, TENANT))[:1])

    cancelled = await memory.reindexing.cancel()
    assert (cancelled.state, cancelled.done, cancelled.total) == ("cancelled", 32, 40)
    assert await queued(database, TENANT) == []
    assert [row["state"] for row in await spaces(database)] == ["active", "retired"]
    assert await found(memory, 5) == TEXTS[5]
    await memory.reindexing.sweep()
    assert (await memory.reindexing.progress()).state == "cancelled", "nothing begins again by itself"
    assert (await memory.reindexing.start("other-model")).state == "running"


async def test_what_cannot_be_embedded_holds_nobody_up(memory: Memory, database: Database, other: BagOfWords):
    await fill(memory, *TEXTS[:5], "poison here")
    other.refuses = "poison"
    await memory.reindexing.start("other-model")
    for _ in range(reindexing._ATTEMPTS):
        assert (await memory.reindexing.progress()).state == "running"
        assert await memory.index(await queued(database, TENANT)) == set()
        await memory.reindexing.sweep()
    ended = await memory.reindexing.progress()
    assert (ended.state, ended.total, ended.done, ended.failed) == ("done", 6, 5, 1)
    assert (await memory.stats(TENANT, AGENT)).failed == 1
    (bad,) = [row for row in await memory.list(listing()) if row["state"] == "failed"]
    assert bad["failure"] == "ValueError: this text cannot be embedded"
    assert [one.text for one in await memory.query(ask(TENANT, "poison", mode="lexical"))] == ["poison here"]

    other.refuses = ""
    await memory.reindexing.start("old-model")
    await index_all(memory, database, TENANT)
    assert (await memory.stats(TENANT, AGENT)).failed == 0, "a model that takes it makes it ready again"


def listing():
    from shared.memory.model import Filters, Listing

    return Listing(microdao_id=TENANT, agent_id=AGENT, filters=Filters())


async def test_a_model_that_is_down_is_waited_for(memory: Memory, database: Database, other: BagOfWords):
    """Neither an item's fault nor a reason to keep new items from the space that is searched."""
    await fill(memory, *TEXTS[:5])
    await memory.reindexing.start("other-model")
    other.refuses, other.error = "note", InsufficientQuota("the budget is spent")
    stored = await memory.store(new(TENANT, TEXTS[9]))
    for _ in range(5):
        assert await memory.index(await queued(database, TENANT)) == set()
        await memory.reindexing.sweep()
    assert await found(memory, 9) == TEXTS[9]
    assert (await memory.stats(TENANT, AGENT)).pending == 0
    waiting = await memory.reindexing.progress()
    assert (waiting.state, waiting.done, waiting.failed, waiting.total) == ("running", 0, 0, 6)
    other.refuses = ""
    await index_all(memory, database, TENANT)
    await memory.reindexing.sweep()
    assert await states(database) == [("old-model", "retired", 6), ("other-model", "active", 6)]
    assert stored.id in {one.id for one in await memory.query(ask(TENANT, TEXTS[9], k=6))}


async def test_jobs_in_the_queue_are_bounded(memory: Memory, database: Database, monkeypatch: pytest.MonkeyPatch):
    await fill(memory, *TEXTS)
    monkeypatch.setattr(reindexing, "_WINDOW", 4)
    monkeypatch.setattr(reindexing, "_MOST_JOBS", 2)
    await memory.reindexing.start("other-model")
    rounds = 0
    while jobs := await queued(database, TENANT):
        assert len(jobs) <= 2
        await memory.reindexing.sweep()
        assert await queued(database, TENANT) == jobs, "nothing is added while these are not done"
        assert await memory.index(jobs) == set()
        rounds += 1
    assert rounds == 5
    assert (await memory.reindexing.progress()).state == "done"


async def test_lost_jobs_are_written_again(memory: Memory, database: Database):
    await fill(memory, *TEXTS[:5])
    await memory.reindexing.start("other-model")
    async with database.system() as connection:
        await connection.execute("DELETE FROM outbox")
    await memory.reindexing.sweep()
    await memory.reindexing.sweep()
    await index_all(memory, database, TENANT)
    assert (await memory.reindexing.progress()).state == "done"


async def test_another_lexicon_makes_postings_anew(memory: Memory, database: Database, old: BagOfWords):
    await fill(memory, *TEXTS[:5])
    await memory.reindexing.sweep()
    first = await memory.reindexing.progress()
    assert (first.state, first.space, first.total) == ("done", None, 5)
    await memory.reindexing.sweep()
    assert (await memory.reindexing.progress()).id == first.id

    async with database.system() as connection:
        await connection.execute("UPDATE memory_item SET lexicon = %s", (LEXICON - 1,))
        await connection.execute("UPDATE memory_reindex SET lexicon = %s", (LEXICON - 1,))
        await connection.execute("DELETE FROM memory_posting")
    asked = len(old.asked)
    await memory.reindexing.sweep()
    assert await memory.query(ask(TENANT, "note", mode="lexical")) == []
    await index_all(memory, database, TENANT)
    assert len(await memory.query(ask(TENANT, "note", mode="lexical"))) == 5
    assert len(old.asked) == asked, "vectors are kept"
    second = await memory.reindexing.progress()
    assert (second.state, second.space, second.done) == ("done", None, 5)
    assert second.id != first.id


async def test_a_change_of_the_setting_starts_a_run(database: Database, old: BagOfWords, other: BagOfWords):
    before = opened(database, old)
    await fill(before, *TEXTS[:5])
    await before.sweep()
    after = opened(database, old, other, configured="other-model")
    assert await found(after, 3) == TEXTS[3]
    await after.sweep()
    assert (await after.reindexing.progress()).model == "other-model"
    assert await found(after, 3) == TEXTS[3]
    await index_all(after, database, TENANT)
    assert await states(database) == [("old-model", "retired", 5), ("other-model", "active", 5)]

    await after.reindexing.start("old-model")
    await index_all(after, database, TENANT)
    await after.sweep()
    assert (await after.reindexing.progress()).state == "done", "an operator's choice stands until the setting changes"
    assert [row["model"] for row in await spaces(database) if row["state"] == "active"] == ["old-model"]


async def test_a_setting_that_cannot_be_followed_yet(database: Database, old: BagOfWords):
    memory = opened(database, old, configured="a-provider's")
    await fill(memory, TEXTS[0])
    await memory.sweep()
    assert await states(database) == [("old-model", "active", 1)]
    assert await found(memory, 0) == TEXTS[0]


async def test_stores_and_deletions_all_the_while(memory: Memory, database: Database, old, other):
    """Two processes index, one of them late to know, while items come and go: all that stay are in the new space."""
    ids = await fill(memory, *TEXTS[:20])
    rival = opened(database, old, other)
    await rival.spaces.written()
    await memory.reindexing.start("other-model")

    async def come_and_go() -> None:
        for number in range(20, 40):
            stored = await memory.store(new(TENANT, TEXTS[number]))
            if number % 3 == 0:
                await memory.forget(TENANT, AGENT, stored.id)
            if number % 4 == 0:
                await memory.forget(TENANT, AGENT, ids[number - 20])

    async def work(worker: Memory) -> None:
        for _ in range(12):
            await worker.index(await queued(database, TENANT))
            await asyncio.sleep(0.01)

    await asyncio.gather(come_and_go(), work(memory), work(rival))
    rival.spaces.reread()
    for _ in range(4):
        await memory.sweep(older_than_s=0)
        await index_all(memory, database, TENANT)
    assert (await memory.reindexing.progress()).state == "done"
    async with database.system() as connection:
        rows = await fetch_all(
            connection,
            "SELECT i.number, i.state, (SELECT count(*) FROM memory_embedding e JOIN memory_space s USING (space_id)"
            " WHERE e.item = i.number AND s.state = 'active') AS vectors FROM memory_item i",
        )
        orphans = await fetch_all(
            connection, "SELECT 1 FROM memory_embedding WHERE item NOT IN (SELECT number FROM memory_item)"
        )
    assert {(row["state"], row["vectors"]) for row in rows} == {("ready", 1)}
    assert len(rows) == 40 - 7 - 5
    assert orphans == []


_INDEX_IN_A_PROCESS = """
import asyncio, sys
from shared.cloud.outbox import Outbox
from shared.db.database import Database
from tests.embeddings import BagOfWords
from tests.integration.test_memory_reindex import TENANT, opened
from tests.memories import queued

async def main():
    database = Database(sys.argv[1])
    memory = opened(database, BagOfWords("old-model", 64), BagOfWords("other-model", 128))
    await memory.index(await queued(database, TENANT))

asyncio.run(main())
"""


async def test_killed_in_the_middle_of_the_fill(memory: Memory, database: Database):
    """A row of each job is locked, so the other process embeds, begins to commit and waits; there it is killed."""
    await fill(memory, *TEXTS)
    await memory.reindexing.start("other-model")
    async with database.system() as connection:
        await fetch_all(connection, "SELECT 1 FROM outbox FOR UPDATE")
        url = database._pool.conninfo
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", _INDEX_IN_A_PROCESS, url)
        try:
            await _until_a_lock_is_waited_for(database)
        finally:
            process.kill()
        assert await process.wait() == -signal.SIGKILL
    assert await states(database) == [("old-model", "active", 40), ("other-model", "filling", 0)]
    assert await found(memory, 3) == TEXTS[3]
    await index_all(memory, database, TENANT)
    assert await states(database) == [("old-model", "retired", 40), ("other-model", "active", 40)]


async def _until_a_lock_is_waited_for(database: Database) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        async with database.system() as connection:
            if await fetch_all(connection, "SELECT 1 FROM pg_locks WHERE NOT granted"):
                return
        await asyncio.sleep(0.02)
    raise AssertionError("the other process never reached its commit")
