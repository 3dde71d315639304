"""Changes of what a summary stands for, and of summaries: none quotes what nobody says any more."""

import asyncio
from datetime import timedelta

import pytest

from shared.clock import utc_now
from shared.cloud.outbox import Outbox
from shared.db.database import Database, fetch_all
from shared.errors import Conflict
from shared.llm.gateway import open_gateway
from shared.memory.memory import Memory, open_memory
from shared.memory.model import Filters, Grantee
from shared.settings import Settings
from tests.fakes.openai_server import FakeOpenAI, Reply
from tests.integration.test_memory_changes import change
from tests.integration.test_memory_consolidation import (
    EXTRACTIVE,
    SAID,
    SUMMARY,
    WRITTEN,
    found,
    listed,
    run,
    talk,
)
from tests.memories import AGENT, embedded, index_all, kept, queued

MOVED = "Ihor prints posters for the fair in Lviv."


@pytest.fixture
async def openai():
    async with FakeOpenAI() as fake:
        yield fake


@pytest.fixture
async def memory(settings: Settings, database: Database, openai: FakeOpenAI):
    options = {"openai_api_key": "sk-fake", "openai_base_url": openai.base_url, "local_llm_base_url": "none"}
    outbox = Outbox(database, {})
    gateway = open_gateway(Settings(**options, llm_deadline_s=5), database, outbox)
    yield open_memory(settings, database, outbox, lambda: gateway)
    await gateway.close()
    await outbox.close()


async def summarise(memory: Memory, database: Database, microdao: str) -> tuple[list[str], str]:
    """Exchanges, and the summary that is found in their place."""
    ids = await talk(memory, database, microdao)
    await memory.retention.set_policy(microdao, None, EXTRACTIVE)
    (group,) = (await run(memory, microdao)).groups
    await index_all(memory, database, microdao)
    return ids, group.summary_id


async def test_a_summary_goes_when_what_it_quotes_is_changed(memory: Memory, database: Database, microdao: str):
    ids, summary = await summarise(memory, database, microdao)

    changed = await change(memory, microdao, ids[3], MOVED)

    assert (changed["summary_id"], changed["state"]) == (None, "pending")
    assert await kept(database, microdao) == set(ids)
    assert await found(memory, microdao, "posters") == {ids[3]}, "by its words at once"
    await index_all(memory, database, microdao)
    assert await found(memory, microdao) == set(ids)
    assert await embedded(database, microdao) == sorted(ids)
    assert await queued(database, microdao) == []
    (rebuilt,) = (await run(memory, microdao)).groups
    assert rebuilt.ids == tuple(ids)
    assert rebuilt.summary_id == summary
    assert "leaflets" not in (await listed(memory, microdao))[summary]["text"]


async def test_a_summary_stays_when_nothing_else_is_said(memory: Memory, database: Database, microdao: str):
    ids, summary = await summarise(memory, database, microdao)
    changed = await change(memory, microdao, ids[0], SAID[0], importance=0.9)
    assert (changed["summary_id"], changed["state"]) == (summary, "ready")
    assert await found(memory, microdao) == {summary}
    assert await queued(database, microdao) == []


async def test_a_summary_expires_no_later_than_what_it_stands_for(memory: Memory, database: Database, microdao: str):
    ids, summary = await summarise(memory, database, microdao)
    soon, later = (utc_now() + timedelta(days=days) for days in (1, 2))
    for item_id, end in ((ids[0], later), (ids[1], soon), (ids[2], later), (ids[1], None), (ids[3], None)):
        await change(memory, microdao, item_id, sets_expiry=True, expires_at=end)
    assert (await memory.items.get(microdao, AGENT, summary))["expires_at"] == soon
    assert (await change(memory, microdao, summary, sets_expiry=True))["expires_at"] == later
    assert (await change(memory, microdao, summary, sets_expiry=True, expires_at=soon))["expires_at"] == soon
    assert (await change(memory, microdao, summary, importance=0.8))["expires_at"] == soon
    await change(memory, microdao, ids[0], sets_expiry=True, expires_at=utc_now() - timedelta(seconds=1))
    assert await found(memory, microdao) == set()
    await memory.sweep()
    await index_all(memory, database, microdao)
    assert await found(memory, microdao) == set(ids[1:])


async def test_what_a_summary_says_is_not_changed(memory: Memory, database: Database, microdao: str):
    ids, summary = await summarise(memory, database, microdao)
    with pytest.raises(Conflict, match="summary"):
        await change(memory, microdao, summary, SUMMARY, importance=0.9)
    row = (await listed(memory, microdao))[summary]
    assert row["importance"] == pytest.approx(0.5)
    assert (await change(memory, microdao, summary, importance=0.9))["importance"] == pytest.approx(0.9)
    async with database.tenant(microdao) as connection:  # as retention does, which keeps the summary
        await connection.execute("SELECT set_config('daarion.keeps_summaries', 'on', true)")
        await connection.execute("DELETE FROM memory_item WHERE id = ANY(%s)", (ids,))
    with pytest.raises(Conflict, match="summary"):
        await change(memory, microdao, summary, SUMMARY)


async def test_a_merged_snapshot_brings_no_summary_back_of_what_is_there(
    memory: Memory, database: Database, microdao: str
):
    ids, summary = await summarise(memory, database, microdao)
    snapshot = await memory.snapshots.save(microdao, AGENT, "before")
    await change(memory, microdao, ids[3], MOVED)
    await memory.forget(microdao, AGENT, ids[0])
    merged = await memory.snapshots.restore(microdao, snapshot["id"], None, "merge")
    assert (merged.added, merged.kept) == (1, 3), "what was forgotten comes back, and is found itself"
    await index_all(memory, database, microdao)
    assert await found(memory, microdao) == await kept(database, microdao) == set(ids)
    assert await found(memory, microdao, "leaflets") & {summary} == set()
    assert (await memory.snapshots.restore(microdao, snapshot["id"], None, "merge")).added == 0
    await memory.forget_matching(microdao, AGENT, Filters(session_id="sess_1"))
    await memory.snapshots.restore(microdao, snapshot["id"], None, "merge")
    await index_all(memory, database, microdao)
    assert await found(memory, microdao) == {summary}, "where nothing is left it comes back with all"


@pytest.mark.parametrize("is_indexed", [True, False])
async def test_a_summary_of_what_was_changed_meanwhile_is_not_kept(
    memory: Memory, database: Database, microdao: str, openai: FakeOpenAI, is_indexed: bool
):
    ids = await talk(memory, database, microdao)
    await memory.retention.set_policy(microdao, None, WRITTEN)
    openai.will(Reply(text=SUMMARY, delay_s=1.0))
    running = asyncio.create_task(run(memory, microdao))
    while not openai.requests:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    await change(memory, microdao, ids[1], MOVED)
    if is_indexed:
        await index_all(memory, database, microdao)
    assert (await running).groups == []
    assert await kept(database, microdao) == set(ids)
    await index_all(memory, database, microdao)
    assert await found(memory, microdao) == set(ids)


async def test_changes_of_all_that_a_summary_stands_for_at_once(memory: Memory, database: Database, microdao: str):
    """And a deletion: all are done, in whatever order."""
    for session in range(6):
        ids = await talk(memory, database, microdao, session_id=f"sess_{session}")
        await memory.retention.set_policy(microdao, None, EXTRACTIVE)
        assert len((await run(memory, microdao)).groups) == 1
        await index_all(memory, database, microdao)
        acts = [change(memory, microdao, one, f"{MOVED} {one}", sets_expiry=True) for one in ids[:2]]
        acts += [change(memory, microdao, ids[2], sets_expiry=True, expires_at=utc_now() + timedelta(days=1))]
        answers = await asyncio.gather(*acts, memory.forget(microdao, AGENT, ids[3]), return_exceptions=True)
        assert not [one for one in answers if isinstance(one, BaseException)], answers
        assert await kept(database, microdao) == set(ids[:3])
        await index_all(memory, database, microdao)
        assert set(ids[:3]) == await found(memory, microdao)
        await memory.forget_matching(microdao, AGENT, Filters(session_id=f"sess_{session}"))


async def test_a_summary_goes_with_a_change_by_whom_it_is_shared_with(
    memory: Memory, database: Database, microdao: str
):
    async with database.system() as connection:
        await connection.execute("INSERT INTO agent VALUES (%s, 'agent:bob', 'Bob', 'sofia')", (microdao,))
    ids, summary = await summarise(memory, database, microdao)
    await memory.sharing.share(microdao, Grantee("agent", AGENT), Grantee("agent", "agent:bob"), "write")
    await change(memory, microdao, ids[3], MOVED, agent_id="agent:bob")
    await index_all(memory, database, microdao)
    assert await found(memory, microdao) == set(ids)
    async with database.tenant(microdao) as connection:
        assert await fetch_all(connection, "SELECT 1 FROM memory_item WHERE id = %s", (summary,)) == []
