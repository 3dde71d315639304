"""Memory on a real database: kept once, found by meaning, never across tenants."""

import asyncio
import random
from datetime import timedelta

import numpy as np
import pytest

from shared.clock import utc_now
from shared.cloud.outbox import Outbox
from shared.db.database import Database, fetch_one
from shared.errors import InvalidRequest, NotFound
from shared.memory.analytics.analytics import Subject
from shared.memory.embedding.embedders import Embedders, open_local_model
from shared.memory.embedding.port import LocalEmbedder
from shared.memory.embedding.spaces import Spaces
from shared.memory.memory import Memory, open_memory
from shared.memory.model import IndexJob
from tests.memories import AGENT, ask, embedded, index_all, new, queued

CAT = "My cat Murka sleeps on the sofa all day."
BUDGET = "The marketing budget for this quarter is twelve thousand euros."
DEPLOY = "We release new versions of the software every Friday at noon."


@pytest.fixture(scope="module")
async def outbox(database: Database):
    """Jobs stay in it: the tests deliver them by hand."""
    outbox = Outbox(database, {})
    yield outbox
    await outbox.close()


@pytest.fixture(scope="module")
def memory(settings, database: Database, outbox: Outbox) -> Memory:
    return open_memory(settings, database, outbox)


async def test_what_was_stored_is_found_by_meaning(memory: Memory, database: Database, microdao: str):
    stored = [await memory.store(new(microdao, text)) for text in (CAT, BUDGET, DEPLOY)]
    assert {one.state for one in stored} == {"pending"}
    assert [one.id for one in await memory.query(ask(microdao, "budget"))] == [stored[1].id], "by its words at once"

    await index_all(memory, database, microdao)

    found = await memory.query(ask(microdao, "How much money may we spend on ads?", explain=True))
    assert found[0].id == stored[1].id
    assert len(found) == 3
    assert found[0].text == BUDGET
    assert found[0].content == {"text": BUDGET}
    assert 0 < found[0].why["vector"] <= 1
    assert all(0 <= one.score <= 1 for one in found)
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
    assert await queued(database, microdao) == []


async def test_what_scores_too_little_is_neither_found_nor_counted(memory: Memory, database: Database, microdao: str):
    for text in (CAT, BUDGET, DEPLOY):
        await memory.store(new(microdao, text))
    await index_all(memory, database, microdao)
    question = "What is the marketing budget for this quarter?"
    best, *rest = await memory.query(ask(microdao, question))
    assert len(rest) == 2
    least = (best.score + rest[0].score) / 2
    assert [one.id for one in await memory.query(ask(microdao, question, min_score=least))] == [best.id]
    assert await memory.query(ask(microdao, question, min_score=1.0)) == []
    subject = Subject(microdao_id=microdao, agent_id=AGENT)
    assert [row["hits"] for row in await memory.analytics.most_used(subject, None, 9)] == [2, 1, 1]
    assert (await memory.stats(microdao, AGENT)).queries == 3


async def test_equal_content_is_kept_once(memory: Memory, database: Database, microdao: str):
    first = await memory.store(new(microdao, CAT, session_id="sess_1"))
    assert await memory.store(new(microdao, CAT, session_id="sess_1")) == first
    assert (await memory.store(new(microdao, CAT, session_id="sess_2"))).id != first.id
    assert (await memory.store(new(microdao, CAT, session_id="sess_1", tier="long_term"))).id != first.id
    await index_all(memory, database, microdao)
    assert (await memory.store(new(microdao, CAT, session_id="sess_1"))).state == "ready"
    assert await queued(database, microdao) == []
    assert len(await embedded(database, microdao)) == 3


async def test_storing_again_renews_importance_and_expiry(memory: Memory, database: Database, microdao: str):
    end = utc_now() + timedelta(days=1)
    await memory.store(new(microdao, CAT, importance=0.2))
    await memory.store(new(microdao, CAT, importance=0.9, expires_at=end))
    async with database.tenant(microdao) as connection:
        row = await fetch_one(connection, "SELECT importance, expires_at FROM memory_item")
    assert row == {"importance": pytest.approx(0.9), "expires_at": end}


async def test_filters_tiers_and_expiry(memory: Memory, database: Database, microdao: str):
    now = utc_now()
    old = await memory.store(new(microdao, "the first tea", tier="short_term", occurred_at=now - timedelta(days=9)))
    here = await memory.store(
        new(microdao, "the second tea", channel_id="c1", session_id="s1", content={"text": "tea", "source": "wiki"})
    )
    gone = await memory.store(new(microdao, "the third tea", expires_at=now - timedelta(seconds=1)))
    await index_all(memory, database, microdao)

    async def ids(**fields):
        return {one.id for one in await memory.query(ask(microdao, "tea", **fields))}

    assert gone.id in await embedded(database, microdao)
    assert await ids() == {old.id, here.id}
    assert await ids(tiers=("short_term",)) == {old.id}
    assert await ids(channel_id="c1") == await ids(session_id="s1") == await ids(source="wiki") == {here.id}
    assert await ids(until=now - timedelta(days=1)) == {old.id}
    assert await ids(since=now - timedelta(days=1)) == {here.id}
    assert await ids(channel_id="c2") == set()

    assert (await memory.store(new(microdao, "the third tea", expires_at=now + timedelta(days=1)))).id == gone.id
    assert gone.id in await ids()


async def test_the_sweep_reclaims_what_expired(memory: Memory, database: Database, microdao: str):
    await memory.store(new(microdao, CAT, expires_at=utc_now() - timedelta(seconds=1)))
    kept = await memory.store(new(microdao, BUDGET, expires_at=utc_now() + timedelta(days=1)))
    await index_all(memory, database, microdao)
    assert await memory.sweep() == 0
    assert await embedded(database, microdao) == [kept.id]
    assert (await memory.stats(microdao, AGENT)).items["mid_term"] == 1


async def test_another_tenant_finds_nothing(memory: Memory, database: Database, microdao: str):
    other = f"{microdao}-other"
    async with database.system() as connection:
        await connection.execute("INSERT INTO microdao (microdao_id, name) VALUES (%s, 'Other')", (other,))
        await connection.execute("INSERT INTO agent VALUES (%s, %s, 'Sofia', 'sofia')", (other, AGENT))
    stored = await memory.store(new(microdao, CAT))
    jobs = await queued(database, microdao)
    assert await memory.index([IndexJob("m", jobs[0].job_id, other, (stored.id,))]) == set()
    assert await embedded(database, microdao) == []
    assert await memory.index(jobs) == set()
    assert await memory.query(ask(other, CAT)) == []
    assert (await memory.stats(other, AGENT)).items == {"short_term": 0, "mid_term": 0, "long_term": 0}
    assert [one.id for one in await memory.query(ask(microdao, CAT))] == [stored.id]


async def test_an_unknown_agent_is_not_found(memory: Memory, microdao: str):
    with pytest.raises(NotFound):
        await memory.store(new(microdao, CAT, agent_id="agent:nobody"))
    with pytest.raises(NotFound):
        await memory.query(ask(microdao, CAT, agent_id="agent:nobody"))
    with pytest.raises(NotFound):
        await memory.stats(microdao, "agent:nobody")
    with pytest.raises(InvalidRequest):
        await memory.store(new(microdao, "a\0b"))


async def test_figures(memory: Memory, database: Database, microdao: str):
    await memory.store(new(microdao, CAT, tier="long_term"))
    await index_all(memory, database, microdao)
    await memory.store(new(microdao, BUDGET))
    for _ in range(3):
        await memory.query(ask(microdao, CAT))
    stats = await memory.stats(microdao, AGENT)
    assert stats.items == {"short_term": 0, "mid_term": 1, "long_term": 1}
    assert (stats.pending, stats.failed, stats.queries) == (1, 0, 3)
    assert stats.bytes > len(CAT) + len(BUDGET)
    assert stats.last_indexed_at is not None
    async with database.tenant(microdao) as connection:
        row = await fetch_one(connection, "SELECT hits FROM memory_use")
    assert row == {"hits": 3}


async def test_concurrent_queries_do_not_lock_each_other(memory: Memory, database: Database, microdao: str):
    for number in range(12):
        await memory.store(new(microdao, f"note number {number} about tea"))
    await index_all(memory, database, microdao)
    answers = await asyncio.gather(*(memory.query(ask(microdao, f"tea {number}", k=10)) for number in range(24)))
    assert {len(answer) for answer in answers} == {10}
    assert (await memory.stats(microdao, AGENT)).queries == 24


async def test_the_search_is_exact(memory: Memory, settings, database: Database, microdao: str):
    """The order is that of a brute-force comparison in fp32, apart from ties at half precision."""
    subjects = ("budget", "cat", "deployment", "holiday", "garden", "invoice", "training", "music")
    texts = [f"The {subject} was discussed in meeting {number}." for subject in subjects for number in range(12)]
    ids = [(await memory.store(new(microdao, text))).id for text in texts]
    await index_all(memory, database, microdao)
    embedder = open_local_model(settings)
    vectors = np.array(embedder.embed(texts))
    for query in ("money", "a pet", "software release", "songs"):
        cosines = dict(zip(ids, vectors @ np.array(embedder.embed([query], "query")[0]), strict=True))
        found = await memory.query(ask(microdao, query, k=10, mode="vector"))
        best = sorted(cosines.values(), reverse=True)[:10]
        assert len(found) == 10
        assert [cosines[one.id] for one in found] == pytest.approx(best, abs=2e-3)
    assert len(await memory.query(ask(microdao, "money", k=100))) == len(texts)


async def test_duplicates_in_any_order_embed_once(
    settings, memory: Memory, outbox: Outbox, database: Database, microdao: str
):
    chance = random.Random(7)
    ids = [(await memory.store(new(microdao, f"fact {number}"))).id for number in range(6)]
    deliveries = [job for job in await queued(database, microdao) for _ in range(3)]
    chance.shuffle(deliveries)
    rival = open_memory(settings, database, outbox)
    batches = [deliveries[start : start + 5] for start in range(0, len(deliveries), 5)]
    answers = await asyncio.gather(
        *((memory if number % 2 else rival).index(batch) for number, batch in enumerate(batches))
    )
    assert answers == [set()] * len(batches)
    assert await embedded(database, microdao) == sorted(ids)
    assert await queued(database, microdao) == []
    assert (await memory.stats(microdao, AGENT)).pending == 0


async def test_an_item_gone_meanwhile_is_no_failure(memory: Memory, database: Database, microdao: str):
    await memory.store(new(microdao, CAT))
    jobs = await queued(database, microdao)
    async with database.tenant(microdao) as connection:
        await connection.execute("DELETE FROM memory_item")
    assert await memory.index([*jobs, IndexJob("message-x", "job_x", microdao, ("mem_x",))]) == set()
    assert await queued(database, microdao) == []


async def test_the_sweep_queues_what_has_no_job(memory: Memory, database: Database, microdao: str):
    stored = await memory.store(new(microdao, CAT))
    async with database.tenant(microdao) as connection:
        await connection.execute("DELETE FROM outbox")
        await connection.execute("UPDATE memory_item SET queued_at = NULL")  # which comes before all that was queued
    assert await memory.sweep() >= 1
    assert await memory.sweep() == 0
    jobs = await queued(database, microdao)
    assert [job.item_ids for job in jobs] == [(stored.id,)]
    await memory.index(jobs)


class _RefusesPoison:
    """The real model behind a provider that will not embed one kind of text."""

    def __init__(self, embedder) -> None:
        self._embedder = embedder
        self.model, self.dimensions, self.warm = embedder.model, embedder.dimensions, embedder.warm
        self.refuses = True

    async def embed(self, texts, purpose, microdao_id):
        if self.refuses and any("poison" in text for text in texts):
            raise ValueError("this text cannot be embedded")
        return await self._embedder.embed(texts, purpose, microdao_id)


async def test_a_poisonous_item_holds_nobody_up(settings, outbox: Outbox, database: Database, microdao: str):
    embedder = _RefusesPoison(LocalEmbedder(open_local_model(settings)))
    memory = Memory(database, outbox, Spaces(database, Embedders(embedder)))
    good = await memory.store(new(microdao, CAT))
    bad = await memory.store(new(microdao, "poison"))
    jobs = await queued(database, microdao)
    poisonous = {job.message_id for job in jobs if job.item_ids == (bad.id,)}

    assert await memory.index(jobs) == poisonous
    assert await embedded(database, microdao) == [good.id]
    assert (await memory.stats(microdao, AGENT)).failed == 1
    async with database.tenant(microdao) as connection:
        row = await fetch_one(connection, "SELECT failure FROM memory_item WHERE id = %s", (bad.id,))
    assert row == {"failure": "ValueError: this text cannot be embedded"}

    embedder.refuses = False
    assert await memory.index(jobs) == set()
    assert await embedded(database, microdao) == sorted([good.id, bad.id])
    assert (await memory.stats(microdao, AGENT)).failed == 0


class _StopsAfter:
    """The real model in a process that is cut short after so many calls."""

    def __init__(self, embedder, calls: int) -> None:
        self._embedder, self._left = embedder, calls
        self.model, self.dimensions, self.warm = embedder.model, embedder.dimensions, embedder.warm
        self.cosines = embedder.cosines

    async def embed(self, texts, purpose, microdao_id):
        self._left -= 1
        if self._left < 0:
            raise asyncio.CancelledError
        return await self._embedder.embed(texts, purpose, microdao_id)


async def test_a_batch_that_is_cut_short_goes_on_from_there(
    settings, outbox: Outbox, database: Database, microdao: str
):
    stopped = _StopsAfter(LocalEmbedder(open_local_model(settings)), 1)
    memory = Memory(database, outbox, Spaces(database, Embedders(stopped)))
    for number in range(70):
        await memory.store(new(microdao, f"fact {number}"))
    jobs = await queued(database, microdao)
    with pytest.raises(asyncio.CancelledError):
        await memory.index(jobs)
    assert (await memory.stats(microdao, AGENT)).pending == 6
    assert await queued(database, microdao) == jobs
    again = open_memory(settings, database, outbox)
    assert await again.index(jobs) == set()
    assert len(await embedded(database, microdao)) == 70
