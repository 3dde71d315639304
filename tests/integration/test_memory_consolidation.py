"""Consolidation: a summary is found in place of old exchanges, which stay readable, and forgetting really forgets."""

import asyncio
import signal
import sys
import time
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from shared.clock import utc_now
from shared.cloud.outbox import Outbox
from shared.db.database import Database, Row, fetch_all
from shared.errors import InvalidRequest
from shared.llm.gateway import open_gateway
from shared.llm.money.limits import Limits
from shared.llm.money.scopes import ScopeKey
from shared.memory.embedding.embedders import Embedders, open_local_model
from shared.memory.embedding.port import LocalEmbedder
from shared.memory.embedding.spaces import Spaces
from shared.memory.intake import enqueue_items
from shared.memory.memory import Memory, open_memory
from shared.memory.model import Filters, Listing
from shared.memory.retention.retention import Report
from shared.settings import Settings
from tests.fakes.openai_server import FakeOpenAI, Reply
from tests.memories import AGENT, age, ask, embedded, index_all, kept, new, queued

SUMMARY = "The fair in Lviv costs three thousand euros; Olena books the stand."
SAID = [
    "The fair in Lviv begins in March.",
    "A stand at the fair in Lviv costs three thousand euros.",
    "Olena will book the stand at the fair.",
    "Ihor prints the leaflets for the fair.",
]
EXTRACTIVE = {"consolidate_after_days": 30, "consolidate_min_items": 3}
WRITTEN = {**EXTRACTIVE, "consolidate_model": "gpt-4.1-mini"}


@pytest.fixture(scope="module")
async def outbox(database: Database):
    outbox = Outbox(database, {})
    yield outbox
    await outbox.close()


@pytest.fixture
async def openai():
    async with FakeOpenAI() as fake:
        yield fake


@pytest.fixture
async def memory(settings: Settings, database: Database, outbox: Outbox, openai: FakeOpenAI):
    options = {"openai_api_key": "sk-fake", "openai_base_url": openai.base_url, "local_llm_base_url": "none"}
    gateway = open_gateway(Settings(**options, llm_deadline_s=5), database, outbox)
    yield open_memory(settings, database, outbox, lambda: gateway)
    await gateway.close()


async def talk(memory: Memory, database: Database, microdao: str, **fields: Any) -> list[str]:
    """Exchanges of a session that are forty days old and indexed."""
    began = utc_now() - timedelta(days=40)
    more = {"session_id": "sess_1", **fields}
    ids = [
        (await memory.store(new(microdao, text, occurred_at=began + timedelta(minutes=number), **more))).id
        for number, text in enumerate(SAID)
    ]
    await index_all(memory, database, microdao)
    await age(database, microdao, 40, *ids)
    return ids


async def run(memory: Memory, microdao: str, **options: Any) -> Report:
    return await memory.retention.run(microdao, None, **{"dry_run": False, "within_s": 20, **options})


async def listed(memory: Memory, microdao: str) -> dict[str, Row]:
    rows = await memory.list(Listing(microdao_id=microdao, agent_id=AGENT, filters=Filters()))
    return {row["id"]: row for row in rows}


async def found(memory: Memory, microdao: str, query: str = "the fair in Lviv") -> set[str]:
    return {
        one.id for mode in ("lexical", "hybrid") for one in await memory.query(ask(microdao, query, mode=mode, k=50))
    }


async def traces(database: Database, microdao: str, *ids: str) -> int:
    """Postings and embeddings of items."""
    async with database.tenant(microdao) as connection:
        (row,) = await fetch_all(
            connection,
            "SELECT count(*) AS n FROM (SELECT item FROM memory_posting UNION ALL SELECT item FROM memory_embedding) t"
            " JOIN memory_item i ON i.number = t.item WHERE i.id = ANY(%s)",
            (list(ids),),
        )
    return row["n"]


async def test_a_summary_is_found_in_place_of_its_sources(memory: Memory, database: Database, microdao: str):
    ids = await talk(memory, database, microdao)
    fresh = (await memory.store(new(microdao, "The fair in Lviv was moved.", session_id="sess_1"))).id
    await memory.query(ask(microdao, SAID[0], mode="lexical", k=1))
    await memory.retention.set_policy(microdao, None, EXTRACTIVE)
    foretold = await run(memory, microdao, dry_run=True)
    assert await kept(database, microdao) == {*ids, fresh}

    done = await run(memory, microdao)

    assert done.groups == foretold.groups
    (group,) = done.groups
    assert group.ids == tuple(ids)
    await index_all(memory, database, microdao)
    assert await found(memory, microdao) == {group.summary_id, fresh}
    rows = await listed(memory, microdao)
    summary = rows[group.summary_id]
    context = summary["content"]["context"]
    assert (context["kind"], context["sources"], context["written_by"]) == ("summary", ids, "extractive")
    assert summary["occurred_at"] == rows[ids[-1]]["occurred_at"]
    assert (summary["session_id"], summary["tier"], summary["agent_id"]) == ("sess_1", "mid_term", AGENT)
    assert all(line in SAID for line in summary["text"].split("\n"))
    assert {rows[one]["summary_id"] for one in ids} == {group.summary_id}
    assert [rows[one]["text"] for one in ids] == SAID
    assert await traces(database, microdao, *ids) == 0
    (entry,) = await memory.retention.prunings(microdao, AGENT, None, 5)
    assert (entry["reason"], entry["items"], entry["ids"]) == ("consolidated", 4, [group.summary_id])

    assert (await run(memory, microdao)).groups == [], "a summary is never summarised"
    async with database.tenant(microdao) as connection:
        hits = await fetch_all(
            connection,
            "SELECT u.hits FROM memory_use u JOIN memory_item i ON i.number = u.item WHERE i.id = %s",
            (group.summary_id,),
        )
    assert hits[0]["hits"] >= 1


async def test_a_summary_expires_with_what_it_quotes(memory: Memory, database: Database, microdao: str):
    source, *_ = await talk(memory, database, microdao)
    await memory.retention.set_policy(microdao, None, EXTRACTIVE)
    (group,) = (await run(memory, microdao)).groups
    await index_all(memory, database, microdao)
    row = (await listed(memory, microdao))[source]
    again = new(microdao, row["text"], session_id="sess_1", occurred_at=row["occurred_at"])
    tomorrow, yesterday = (replace(again, expires_at=utc_now() + timedelta(days=days)) for days in (1, -1))
    assert (await memory.store(tomorrow)).id == source
    assert await found(memory, microdao) == {group.summary_id}
    await memory.store(yesterday)
    assert await found(memory, microdao) == set()
    await memory.sweep()
    await index_all(memory, database, microdao)
    assert group.summary_id not in await kept(database, microdao)
    assert len(await found(memory, microdao)) == len(SAID) - 1


async def test_what_is_never_summarised(memory: Memory, database: Database, microdao: str):
    await talk(memory, database, microdao, session_id="pinned", importance=1)
    await talk(memory, database, microdao, session_id="expiring", expires_at=utc_now() + timedelta(days=1))
    await talk(memory, database, microdao, session_id="long", tier="long_term")
    await talk(memory, database, microdao, session_id=None)
    few = await talk(memory, database, microdao, session_id="few")
    for one in few[2:]:
        await memory.forget(microdao, AGENT, one)
    summaries = {"content": {"text": "a note", "context": {"kind": "summary"}}, "session_id": "notes"}
    for _ in range(3):
        await memory.store(new(microdao, "", **summaries, occurred_at=utc_now()))
    await index_all(memory, database, microdao)
    await age(database, microdao, 40, *(await kept(database, microdao)))
    await memory.retention.set_policy(microdao, None, EXTRACTIVE)
    assert (await run(memory, microdao)).groups == []


async def test_a_model_writes_and_the_microdao_pays(
    memory: Memory, database: Database, microdao: str, openai: FakeOpenAI, caplog
):
    ids = await talk(memory, database, microdao)
    openai.will(Reply(text=SUMMARY, usage={"prompt_tokens": 1000, "completion_tokens": 500}))
    await memory.retention.set_policy(microdao, None, WRITTEN)
    (group,) = (await run(memory, microdao)).groups
    summary = (await listed(memory, microdao))[group.summary_id]
    assert (summary["text"], summary["content"]["context"]["written_by"]) == (SUMMARY, "gpt-4.1-mini")
    (request,) = openai.requests
    assert all(text in request.body["messages"][1]["content"] for text in SAID)
    assert not any(text in caplog.text for text in (*SAID, SUMMARY))
    async with database.tenant(microdao) as connection:
        (row,) = await fetch_all(connection, "SELECT agent_id, cost_microusd FROM usage_event")
    assert row["agent_id"] == AGENT
    assert row["cost_microusd"] > 0
    assert set(ids) < set(await listed(memory, microdao))
    with pytest.raises(InvalidRequest):
        await memory.retention.set_policy(microdao, None, {"consolidate_model": "no-such-model"})


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (Reply(status=500), "upstream_error"),
        (Reply(drop=True), "unavailable"),
        (Reply(text=" "), "upstream_error"),
    ],
    ids=["broken", "down", "empty"],
)
async def test_trouble_leaves_the_sources_as_they_were(
    memory: Memory, database: Database, microdao: str, openai: FakeOpenAI, reply: Reply, code: str
):
    ids = await talk(memory, database, microdao)
    before = await listed(memory, microdao), await traces(database, microdao, *ids)
    await memory.retention.set_policy(microdao, None, WRITTEN)
    openai.will(*[reply] * 8)
    report = await run(memory, microdao)
    assert report.groups == []
    assert dict(report.postponed) in ({code: 1}, {"upstream_error": 1})
    assert (await listed(memory, microdao), await traces(database, microdao, *ids)) == before


async def test_what_a_model_refuses_is_summarised_without_it(
    memory: Memory, database: Database, microdao: str, openai: FakeOpenAI
):
    await talk(memory, database, microdao)
    await memory.retention.set_policy(microdao, None, WRITTEN)
    openai.will(*[Reply(status=400)] * 4)
    (group,) = (await run(memory, microdao)).groups
    assert (await listed(memory, microdao))[group.summary_id]["content"]["context"]["written_by"] == "extractive"


async def test_a_spent_budget_leaves_it_for_later(
    memory: Memory, database: Database, microdao: str, openai: FakeOpenAI
):
    ids = await talk(memory, database, microdao)
    await memory.retention.set_policy(microdao, None, WRITTEN)
    limits, key = Limits(database), ScopeKey(microdao_id=microdao, scope="microdao", id=microdao)
    await limits.set_budget(key, "day", 0)
    report = await run(memory, microdao)
    assert (report.groups, dict(report.postponed)) == ([], {"insufficient_quota": 1})
    assert openai.requests == []
    assert await found(memory, microdao) == set(ids)
    await limits.set_budget(key, "day", None)
    openai.will(Reply(text=SUMMARY))
    assert len((await run(memory, microdao)).groups) == 1


async def test_forgetting_a_source_forgets_what_quotes_it(memory: Memory, database: Database, microdao: str):
    ids = await talk(memory, database, microdao)
    await memory.retention.set_policy(microdao, None, EXTRACTIVE)
    (group,) = (await run(memory, microdao)).groups
    await index_all(memory, database, microdao)

    await memory.forget(microdao, AGENT, ids[1])

    assert await kept(database, microdao) == {ids[0], ids[2], ids[3]}
    await index_all(memory, database, microdao)
    assert await found(memory, microdao) == {ids[0], ids[2], ids[3]}
    assert len(await embedded(database, microdao)) == 3
    async with database.system() as connection:
        left = await fetch_all(
            connection,
            "SELECT 1 FROM memory_item WHERE microdao_id = %s AND content::text LIKE %s",
            (microdao, "%three thousand%"),
        )
    assert left == []
    (rebuilt,) = (await run(memory, microdao)).groups
    assert rebuilt.ids == (ids[0], ids[2], ids[3])
    assert rebuilt.summary_id != group.summary_id


async def test_deleting_a_summary_frees_its_sources(memory: Memory, database: Database, microdao: str):
    ids = await talk(memory, database, microdao)
    await memory.retention.set_policy(microdao, None, EXTRACTIVE)
    (group,) = (await run(memory, microdao)).groups
    await index_all(memory, database, microdao)
    await memory.forget(microdao, AGENT, group.summary_id)
    rows = await listed(memory, microdao)
    assert {(row["state"], row["summary_id"]) for row in rows.values()} == {("pending", None)}
    assert {item_id for job in await queued(database, microdao) for item_id in job.item_ids} == set(ids)
    await index_all(memory, database, microdao)
    assert await found(memory, microdao) == set(ids)
    assert (await run(memory, microdao)).groups == [], "what somebody undid is left alone for as long again"


async def test_forgetting_all_leaves_nothing(memory: Memory, database: Database, microdao: str):
    await talk(memory, database, microdao)
    await memory.retention.set_policy(microdao, None, EXTRACTIVE)
    await run(memory, microdao)
    await memory.forget_matching(microdao, AGENT, Filters(session_id="sess_1"))
    assert await kept(database, microdao) == set()
    await memory.sweep()
    async with database.tenant(microdao) as connection:
        assert (
            await fetch_all(connection, "SELECT 1 FROM memory_posting UNION ALL SELECT 1 FROM memory_embedding") == []
        )


async def test_retention_removes_sources_before_and_without_their_summary(
    memory: Memory, database: Database, microdao: str
):
    ids = await talk(memory, database, microdao)
    await memory.retention.set_policy(microdao, None, EXTRACTIVE)
    (group,) = (await run(memory, microdao)).groups
    other = (await memory.store(new(microdao, "worth little", importance=0))).id
    await memory.retention.set_policy(microdao, None, {**EXTRACTIVE, "max_items": 2})
    await run(memory, microdao)
    assert await kept(database, microdao) == {group.summary_id, other}
    await memory.retention.set_policy(microdao, None, {"mid_term_max_age_days": 39})
    report = await run(memory, microdao)
    assert [one.unit.id for one in report.removals] == [group.summary_id], "it is as old as the newest of its sources"
    assert not set(ids) & await kept(database, microdao)


async def test_two_at_once_make_one_summary(memory: Memory, database: Database, microdao: str, openai: FakeOpenAI):
    ids = await talk(memory, database, microdao)
    await memory.retention.set_policy(microdao, None, WRITTEN)
    openai.will(*[Reply(text=SUMMARY, delay_s=0.2)] * 3)
    reports = await asyncio.gather(*(run(memory, microdao) for _ in range(3)))
    assert sum(len(report.groups) for report in reports) == 1
    assert len(await kept(database, microdao)) == len(ids) + 1


class _Halting:
    """The real model, which waits in the middle of its work until it is told to go on."""

    def __init__(self, embedder) -> None:
        self._embedder = embedder
        self.model, self.dimensions, self.warm = embedder.model, embedder.dimensions, embedder.warm
        self.cosines = embedder.cosines
        self.reached, self.go_on = asyncio.Event(), asyncio.Event()

    async def embed(self, texts, purpose, microdao_id):
        self.reached.set()
        await self.go_on.wait()
        return await self._embedder.embed(texts, purpose, microdao_id)


async def test_an_indexer_that_was_overtaken_writes_nothing(
    settings: Settings, memory: Memory, database: Database, outbox: Outbox, microdao: str
):
    ids = await talk(memory, database, microdao)
    await memory.retention.set_policy(microdao, None, EXTRACTIVE)
    async with database.tenant(microdao) as connection:  # as when words are counted anew, and the model is another
        await connection.execute("UPDATE memory_item SET lexicon = NULL")
        await connection.execute("DELETE FROM memory_embedding")
        await enqueue_items(connection, microdao, ids)
    embedder = _Halting(LocalEmbedder(open_local_model(settings)))
    rival = asyncio.create_task(
        Memory(database, outbox, Spaces(database, Embedders(embedder))).index(await queued(database, microdao))
    )
    await embedder.reached.wait()
    assert len((await run(memory, microdao)).groups) == 1
    embedder.go_on.set()
    assert await rival == set()
    assert await traces(database, microdao, *ids) == 0


_CONSOLIDATE_IN_A_PROCESS = """
import asyncio, sys
from pathlib import Path
from shared.bootstrap import Services
from shared.settings import Settings

async def main():
    url, home, microdao = sys.argv[1:]
    services = Services(Settings(database_url=url, home=Path(home)))
    await services.memory.retention.run(microdao, None, dry_run=False, within_s=30)

asyncio.run(main())
"""


async def test_a_process_killed_before_it_commits_changes_nothing(
    settings: Settings, memory: Memory, database: Database, microdao: str
):
    ids = await talk(memory, database, microdao)
    await memory.retention.set_policy(microdao, None, EXTRACTIVE)
    before = await listed(memory, microdao), await traces(database, microdao, *ids)
    command = [sys.executable, "-c", _CONSOLIDATE_IN_A_PROCESS, settings.database_url, str(settings.home), microdao]
    async with database.system() as connection:
        await fetch_all(connection, "SELECT 1 FROM memory_item WHERE id = %s FOR UPDATE", (ids[2],))
        process = await asyncio.create_subprocess_exec(*command)
        try:
            await _until_a_lock_is_waited_for(database)
        finally:
            process.kill()
        assert await process.wait() == -signal.SIGKILL
    assert (await listed(memory, microdao), await traces(database, microdao, *ids)) == before
    assert len((await run(memory, microdao)).groups) == 1


async def _until_a_lock_is_waited_for(database: Database) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        async with database.system() as connection:
            if await fetch_all(connection, "SELECT 1 FROM pg_locks WHERE NOT granted"):
                return
        await asyncio.sleep(0.02)
    raise AssertionError("the other process never reached its commit")
