"""Pruning on a real database: what goes, what stays, and that a dry run says what a run does."""

import asyncio
import math
from datetime import timedelta

import pytest

from shared.clock import utc_now
from shared.cloud.outbox import Outbox
from shared.db.database import Database, fetch_all
from shared.errors import InvalidRequest, NotFound
from shared.memory.documents.documents import NewDocument
from shared.memory.memory import Memory, open_memory
from shared.memory.model import ScopeRef
from shared.memory.retention.retention import Report
from tests.memories import AGENT, age, ask, kept, new


@pytest.fixture(scope="module")
async def memory(settings, database: Database):
    outbox = Outbox(database, {})
    yield open_memory(settings, database, outbox)
    await outbox.close()


async def store(memory: Memory, microdao: str, text: str, **fields) -> str:
    return (await memory.store(new(microdao, text, **fields))).id


async def prune(memory: Memory, microdao: str, agent: str | None = None) -> Report:
    """A dry run, and the run that it foretold."""
    foretold = await memory.retention.run(microdao, agent, dry_run=True, within_s=30)
    before = await memory.retention.prunings(microdao, None, None, 200)
    again = await memory.retention.run(microdao, agent, dry_run=True, within_s=30)
    assert told(again) == told(foretold), "a dry run changes nothing"
    assert await memory.retention.prunings(microdao, None, None, 200) == before
    done = await memory.retention.run(microdao, agent, dry_run=False, within_s=30)
    assert told(done) == told(foretold)
    assert done.is_complete
    return done


def told(report: Report) -> list[tuple]:
    return [(one.unit.id, one.reason, one.unit.items, one.unit.bytes) for one in report.removals]


def reasons(report: Report) -> dict[str, str]:
    return {one.unit.id: one.reason for one in report.removals}


async def test_nothing_goes_unasked(memory: Memory, database: Database, microdao: str):
    one = await store(memory, microdao, "tea", importance=0)
    await age(database, microdao, 9999, one)
    assert told(await prune(memory, microdao)) == []
    assert await kept(database, microdao) == {one}


async def test_age_by_tier_and_agents_exceptions(memory: Memory, database: Database, microdao: str):
    async with database.system() as connection:
        await connection.execute("INSERT INTO agent VALUES (%s, 'agent:petro', 'Petro', 'sofia')", (microdao,))
    old = {tier: await store(memory, microdao, "old", tier=tier) for tier in ("short_term", "mid_term", "long_term")}
    young = await store(memory, microdao, "young")
    pinned = await store(memory, microdao, "pinned", importance=1)
    petros = await store(memory, microdao, "old", agent_id="agent:petro")
    await age(database, microdao, 31, *old.values(), pinned, petros)
    await age(database, microdao, 29, young)
    await memory.retention.set_policy(microdao, None, {"mid_term_max_age_days": 30, "long_term_max_age_days": 60})
    await memory.retention.set_policy(microdao, "agent:petro", {"mid_term_max_age_days": None})

    assert told(await prune(memory, microdao, "agent:petro")) == []
    done = await prune(memory, microdao)

    assert reasons(done) == {old["mid_term"]: "age"}
    assert await kept(database, microdao) == {old["short_term"], old["long_term"], young, pinned, petros}
    (row,) = await memory.retention.prunings(microdao, AGENT, None, 10)
    assert (row["reason"], row["ids"], row["items"]) == ("age", [old["mid_term"]], 1)
    assert row["bytes"] == done.removals[0].unit.bytes > 0


@pytest.mark.parametrize("what", ["an item", "a document"])
@pytest.mark.parametrize("limit", [{"mid_term_max_age_days": 30, "long_term_max_age_days": 30}, {"max_items": 1}])
async def test_what_is_pinned_meanwhile_stays(memory: Memory, database: Database, microdao: str, what: str, limit):
    if what == "an item":
        unit_id = await store(memory, microdao, "tea", importance=0.1)
    else:
        document = NewDocument(
            microdao_id=microdao, agent_id=AGENT, data=b"tea", media_type="text/plain", importance=0.1
        )
        unit_id = (await memory.documents.add(document))["id"]
    (item_id,) = await kept(database, microdao)
    await age(database, microdao, 31, unit_id)
    await store(memory, microdao, "coffee")
    await memory.retention.set_policy(microdao, None, limit)
    async with database.agent(microdao, AGENT) as connection:
        await connection.execute("UPDATE memory_item SET importance = 1 WHERE id = %s", (item_id,))
        pruning = asyncio.create_task(memory.retention.run(microdao, None, dry_run=False, within_s=30))
        await asyncio.wait({pruning}, timeout=0.3)
    assert unit_id not in reasons(await pruning)
    assert item_id in await kept(database, microdao)


async def test_what_is_never_found_and_unimportant_goes(memory: Memory, database: Database, microdao: str):
    unused = await store(memory, microdao, "unused coffee", importance=0.2)
    used = await store(memory, microdao, "green tea", importance=0.2)
    important = await store(memory, microdao, "passport", importance=0.3)
    assert [one.id for one in await memory.query(ask(microdao, "tea", mode="lexical"))] == [used]
    young = await store(memory, microdao, "young", importance=0.1)
    await age(database, microdao, 8, unused, used, important)
    await memory.retention.set_policy(microdao, None, {"unused_after_days": 7})
    assert reasons(await prune(memory, microdao)) == {unused: "unused"}
    assert await kept(database, microdao) == {used, important, young}


async def test_caps_evict_what_is_worth_least(memory: Memory, database: Database, microdao: str):
    ids = [await store(memory, microdao, f"note {number}", importance=number / 10) for number in range(10)]
    pinned = await store(memory, microdao, "pinned", importance=1)
    for _ in range(6):  # 0.05 + 0.26 + 0.2: more than what is merely more important by 0.4
        await memory.query(ask(microdao, "note 1", mode="lexical", k=1))
    await age(database, microdao, 60, ids[4])
    await memory.retention.set_policy(microdao, None, {"max_items": 6})

    done = await prune(memory, microdao)

    # Worth: 0.2 + importance / 2; the old one has lost three quarters of its recency.
    assert list(reasons(done)) == [ids[0], ids[4], ids[2], ids[3], ids[5]]
    assert set(reasons(done).values()) == {"size"}
    assert len(await kept(database, microdao)) == 6
    assert {pinned, ids[1]} <= await kept(database, microdao)
    for removal in done.removals:
        days = (utc_now() - removal.unit.created_at) / timedelta(days=1)
        assert removal.unit.value == pytest.approx(
            0.5 * removal.unit.importance + 0.2 * math.pow(0.5, days / 30), abs=1e-4
        )


async def test_bytes_and_totals(memory: Memory, database: Database, microdao: str):
    ids = [await store(memory, microdao, f"{number} " + "x" * 500, importance=number / 10) for number in range(6)]
    shared = ScopeRef("microdao", microdao)
    async with database.system() as connection:  # what only administrators write
        await connection.execute(
            "UPDATE memory_item SET scope_id = (SELECT scope_id FROM memory_scope WHERE microdao_id = %s AND kind = %s)"
            " WHERE id = %s",
            (microdao, shared.kind, ids[0]),
        )
    await memory.retention.set_policy(microdao, None, {"max_bytes": 2000, "total_max_items": 3})
    done = await prune(memory, microdao)
    assert reasons(done) == {ids[1]: "size", ids[2]: "size", ids[0]: "total_size"}
    assert (await memory.stats(microdao, AGENT)).bytes <= 2000
    with pytest.raises(InvalidRequest):
        await memory.retention.set_policy(microdao, AGENT, {"total_max_items": 3})
    with pytest.raises(NotFound):
        await memory.retention.set_policy(microdao, "agent:nobody", {})
    with pytest.raises(NotFound):
        await memory.retention.run(microdao, "agent:nobody", dry_run=False, within_s=1)


async def test_documents_go_whole(memory: Memory, database: Database, microdao: str):
    def document(title: str, **fields) -> NewDocument:
        text = "\n\n".join(f"# Part {part} of {title}\n\n" + "Tea is served. " * 90 for part in range(4))
        data = text.encode()
        return NewDocument(
            microdao_id=microdao, agent_id=AGENT, data=data, media_type="text/markdown", title=title, **fields
        )

    unused = await memory.documents.add(document("unused", importance=0.1))
    half = await memory.documents.add(document("half", importance=0.1))
    assert half["chunks"] > 2
    await memory.query(ask(microdao, "half", mode="lexical", k=1, document_id=half["id"]))
    await age(database, microdao, 40, unused["id"], half["id"])
    await memory.retention.set_policy(microdao, None, {"unused_after_days": 30})
    done = await prune(memory, microdao)
    assert told(done)[0][:3] == (unused["id"], "unused", unused["chunks"])
    assert [row["id"] for row in await memory.documents.list_page(microdao, AGENT, "", 10)] == [half["id"]]
    assert len(await kept(database, microdao)) == half["chunks"]

    await memory.retention.set_policy(microdao, None, {"max_items": half["chunks"] - 1})
    assert reasons(await prune(memory, microdao)) == {half["id"]: "size"}
    assert await kept(database, microdao) == set()
    async with database.tenant(microdao) as connection:
        left = (
            "SELECT (SELECT count(*) FROM memory_posting) AS postings, (SELECT count(*) FROM memory_document) AS docs"
        )
        assert await fetch_all(connection, left) == [{"postings": 0, "docs": 0}]


async def test_one_microdao_never_prunes_another(memory: Memory, database: Database, microdao: str):
    other = f"{microdao}-other"
    async with database.system() as connection:
        await connection.execute("INSERT INTO microdao (microdao_id, name) VALUES (%s, 'Other')", (other,))
        await connection.execute("INSERT INTO agent VALUES (%s, %s, 'Sofia', 'sofia')", (other, AGENT))
    theirs = await store(memory, other, "tea")
    ours = await store(memory, microdao, "tea")
    await memory.retention.set_policy(microdao, None, {"max_items": 0, "total_max_items": 0})
    assert reasons(await prune(memory, microdao)) == {ours: "size"}
    assert await kept(database, other) == {theirs}
    assert await memory.retention.prunings(other, None, None, 10) == []
    assert (await memory.retention.policy(other, None))[0] == {}
    async with database.tenant(other) as connection:
        assert await fetch_all(connection, "SELECT 1 FROM memory_policy UNION ALL SELECT 1 FROM memory_pruning") == []
        moved = await connection.execute("DELETE FROM memory_item WHERE microdao_id = %s", (microdao,))
        assert moved.rowcount == 0


async def test_what_expires_is_reported_too(memory: Memory, database: Database, microdao: str):
    gone = await store(memory, microdao, "tea", expires_at=utc_now() - timedelta(seconds=1), importance=1)
    await memory.sweep()
    (row,) = await memory.retention.prunings(microdao, None, None, 10)
    assert (row["reason"], row["ids"], row["scope_name"]) == ("expired", [gone], AGENT)


async def test_the_round_visits_all_and_goes_on_where_it_stopped(memory: Memory, database: Database, microdao: str):
    others = [f"{microdao}-{number}" for number in range(3)]
    async with database.system() as connection:
        for other in others:
            await connection.execute("INSERT INTO microdao (microdao_id, name) VALUES (%s, 'Other')", (other,))
            await connection.execute("INSERT INTO agent VALUES (%s, %s, 'Sofia', 'sofia')", (other, AGENT))
    for one in (microdao, *others):
        await store(memory, one, "tea")
        await memory.retention.set_policy(one, None, {"max_items": 0})
    assert (await memory.retention.maintain(0))["complete"] is False
    assert await kept(database, microdao) != set()
    done = await memory.retention.maintain(30)
    assert (done["complete"], done["failed"]) == (True, 0)
    assert done["microdaos"] >= 4
    assert done["removed"] >= 4
    for one in (microdao, *others):
        assert await kept(database, one) == set()
