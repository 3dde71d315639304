"""Snapshots on a real database: saved at one moment, restored whole or not at all, for the right eyes only."""

import asyncio
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from localstack.postgres import EmbeddedPostgres
from shared.clock import utc_now
from shared.cloud.outbox import Outbox
from shared.db.database import Database, fetch_all
from shared.errors import InvalidRequest, LimitExceeded, NotFound, Unauthorized, Unavailable
from shared.ids import new_id
from shared.memory.channels import Message
from shared.memory.documents.documents import NewDocument
from shared.memory.memory import Memory, open_memory
from shared.memory.model import Filters, Grantee, Listing
from shared.memory.snapshots.file import read_file
from shared.memory.snapshots.snapshots import MAX_SNAPSHOTS
from tests.memories import AGENT, ask, embedded, index_all, new, queued
from tests.unit.test_memory_snapshot_file import file_of, item

OTHER = "agent:other"
MAY = datetime(2026, 5, 1, 12, tzinfo=UTC)
GUIDE = "# Tea\n\nGreen tea wants water of eighty degrees.\n\n# Coffee\n\nCoffee wants freshly ground beans.\n"
SEEN = (
    "tier", "content", "text", "occurred_at", "session_id", "channel_id", "position", "source", "author", "importance",
    "expires_at", "created_at",
)  # fmt: skip


@pytest.fixture(scope="module")
async def outbox(database: Database):
    """Jobs stay in it: the tests deliver them by hand."""
    outbox = Outbox(database, {})
    yield outbox
    await outbox.close()


@pytest.fixture(scope="module")
def memory(settings, database: Database, outbox: Outbox) -> Memory:
    return open_memory(settings, database, outbox)


@pytest.fixture
async def microdao(database: Database, microdao: str) -> str:
    """With a second agent."""
    await add_agent(database, microdao, OTHER)
    return microdao


async def add_agent(database: Database, microdao: str, agent: str) -> None:
    async with database.system() as connection:
        await connection.execute("INSERT INTO microdao VALUES (%s, 'Test') ON CONFLICT DO NOTHING", (microdao,))
        await connection.execute("INSERT INTO agent VALUES (%s, %s, 'Agent', 'sofia')", (microdao, agent))


async def fill(memory: Memory, database: Database, microdao: str) -> None:
    """Every kind of memory there is; one item stands for two others."""
    notes = [
        await memory.store(new(microdao, "The cat sleeps.", importance=0.7, session_id="sess_1", source="wiki")),
        await memory.store(
            new(microdao, "Олена любить чай.", occurred_at=MAY, expires_at=utc_now() + timedelta(days=9))
        ),
        await memory.store(new(microdao, "The cat sleeps and Olena drinks tea.", tier="long_term")),
    ]
    await memory.store(new(microdao, "gone", expires_at=utc_now() - timedelta(seconds=1)))
    context = {"large": 1e20, "deep": [{"a": None}], "whole": 1.0}
    await memory.store(new(microdao, "", content={"user_message": "Hi", "agent_reply": "Hello", "context": context}))
    messages = [Message(text=f"message {number}", author="Ann", id=str(number)) for number in range(3)]
    await memory.channels.post(microdao, AGENT, "general", messages)
    document = NewDocument(
        microdao_id=microdao, agent_id=AGENT, data=GUIDE.encode(), media_type="text/markdown", metadata={"lang": "en"}
    )
    await memory.documents.add(document)
    await link(database, microdao, notes[2].id, [notes[0].id, notes[1].id])


async def link(database: Database, microdao: str, summary: str, sources: list[str]) -> None:
    """What consolidation does."""
    async with database.tenant(microdao) as connection:
        await connection.execute(
            "WITH gone AS (DELETE FROM memory_posting WHERE item IN ("
            " SELECT number FROM memory_item WHERE id = ANY(%s)))"
            " UPDATE memory_item SET summary_id = %s, state = 'ready', words = NULL, lexicon = NULL WHERE id = ANY(%s)",
            (sources, summary, sources),
        )


async def rows_of(database: Database, microdao: str, agent: str = AGENT) -> list[dict]:
    """An agent's memory in its order, without what differs from one agent to another; links as the summary's text."""
    async with database.tenant(microdao) as connection:
        return await fetch_all(
            connection,
            f"SELECT {', '.join(f'i.{column}' for column in SEEN)}, y.text AS summary, d.title, d.metadata, d.chunks,"
            " (SELECT count(*) FROM memory_posting p WHERE p.item = i.number) AS postings"
            " FROM memory_item i JOIN memory_scope s USING (scope_id) LEFT JOIN memory_item y ON y.id = i.summary_id"
            " LEFT JOIN memory_document d ON d.id = i.document_id"
            " WHERE s.name = %s AND (i.expires_at IS NULL OR i.expires_at > now()) ORDER BY i.number",
            (agent,),
        )


async def ids_of(memory: Memory, microdao: str, agent: str = AGENT) -> list[str]:
    listing = Listing(microdao_id=microdao, agent_id=agent, filters=Filters(scopes=("agent",)))
    return sorted(row["id"] for row in await memory.list(listing))


async def export(memory: Memory, microdao: str, agent: str = AGENT) -> bytes:
    snapshot = await memory.snapshots.save(microdao, agent, "")
    return b"".join(await memory.snapshots.file(microdao, snapshot["id"]))


async def test_replace_brings_the_saved_memory_back(memory: Memory, database: Database, microdao: str):
    await fill(memory, database, microdao)
    await index_all(memory, database, microdao)
    before, ids = await rows_of(database, microdao), await ids_of(memory, microdao)
    assert len(before) == 9
    assert len([row for row in before if row["summary"]]) == 2
    snapshot = await memory.snapshots.save(microdao, AGENT, "before the flood")
    assert (snapshot["items"], snapshot["documents"], snapshot["agent_id"]) == (9, 1, AGENT)

    (document,) = await memory.documents.list_page(microdao, AGENT, "", 9)
    await memory.documents.delete(microdao, AGENT, document["id"])
    await memory.forget_matching(microdao, AGENT, Filters(session_id="sess_1"))
    await memory.store(new(microdao, "something new"))
    async with database.tenant(microdao) as connection:
        await connection.execute("UPDATE memory_item SET tier = 'mid_term', importance = 0.1 WHERE source = 'channel'")
        await connection.execute("UPDATE memory_item SET summary_id = NULL")

    done = await memory.snapshots.restore(microdao, snapshot["id"], None, "replace")
    assert await ids_of(memory, microdao) == ids
    key = lambda row: (row["occurred_at"], row["text"])  # noqa: E731 - numbers are new
    assert sorted(await rows_of(database, microdao), key=key) == sorted(before, key=key)
    assert (done.added, done.changed, done.removed, done.documents_added) == (4, 4, 1, 1), (
        "the summary went with its source"
    )
    again = await memory.snapshots.restore(microdao, snapshot["id"], AGENT, "replace")
    assert (again.added, again.changed, again.removed, again.kept) == (0, 0, 0, 9)

    await index_all(memory, database, microdao)
    assert len(await embedded(database, microdao)) == 7, "all but what a summary stands for"
    assert (await memory.stats(microdao, AGENT)).pending == 0
    found = await memory.query(ask(microdao, "How hot should water be for green tea?", mode="vector"))
    assert found[0].document_id == document["id"]


async def test_a_summary_stays_when_what_was_added_to_it_goes(memory: Memory, database: Database, microdao: str):
    summary, old = [await memory.store(new(microdao, text)) for text in ("Ann likes tea.", "I like tea.")]
    await link(database, microdao, summary.id, [old.id])
    snapshot = await memory.snapshots.save(microdao, AGENT, "")
    before = await rows_of(database, microdao)
    await link(database, microdao, summary.id, [(await memory.store(new(microdao, "Green tea!"))).id])
    await memory.snapshots.restore(microdao, snapshot["id"], None, "replace")
    assert await rows_of(database, microdao) == before
    await memory.forget(microdao, AGENT, old.id)
    assert await ids_of(memory, microdao) == [], "a summary goes with what it was made of"
    await memory.snapshots.restore(microdao, snapshot["id"], None, "merge")
    assert await rows_of(database, microdao) == before


async def test_merge_adds_what_is_missing(memory: Memory, database: Database, microdao: str):
    kept, lost = [await memory.store(new(microdao, text)) for text in ("kept", "lost")]
    snapshot = await memory.snapshots.save(microdao, AGENT, "")
    await memory.forget(microdao, AGENT, lost.id)
    later = await memory.store(new(microdao, "later"))
    done = await memory.snapshots.restore(microdao, snapshot["id"], None, "merge")
    assert (done.added, done.kept, done.removed) == (1, 1, 0)
    assert await ids_of(memory, microdao) == sorted([kept.id, lost.id, later.id])
    assert [one.id for one in await memory.query(ask(microdao, "lost"))] == [lost.id], "by its words at once"
    assert any(lost.id in job.item_ids for job in await queued(database, microdao))


async def test_passages_count_as_their_documents_come_and_go(memory: Memory, microdao: str):
    empty = await memory.snapshots.save(microdao, AGENT, "empty")
    text = "\n\n".join(f"paragraph {number} {'word ' * 150}" for number in range(3))
    document = NewDocument(microdao_id=microdao, agent_id=AGENT, data=text.encode(), media_type="text/plain")
    await memory.documents.add(document)
    passages = len(await ids_of(memory, microdao))
    assert passages > 1
    full = await memory.snapshots.save(microdao, AGENT, "full")
    gone = await memory.snapshots.restore(microdao, empty["id"], None, "replace")
    assert (gone.added, gone.removed, gone.documents_removed) == (0, passages, 1)
    back = await memory.snapshots.restore(microdao, full["id"], None, "replace")
    assert (back.added, back.removed, back.documents_added) == (passages, 0, 1)


@pytest.mark.parametrize("mode", ["merge", "replace"])
async def test_to_another_agent_and_to_another_microdao(memory: Memory, database: Database, microdao: str, mode: str):
    elsewhere = f"microdao:{new_id('elsewhere')}"
    await add_agent(database, elsewhere, AGENT)
    await fill(memory, database, microdao)
    before = await rows_of(database, microdao)
    snapshot = await memory.snapshots.save(microdao, AGENT, "")
    data = b"".join(await memory.snapshots.file(microdao, snapshot["id"]))

    first = await memory.snapshots.restore(microdao, snapshot["id"], OTHER, mode, by_admin=True)
    assert (first.agent_id, first.added, first.documents_added) == (OTHER, 9, 1)
    assert await rows_of(database, microdao, OTHER) == before, "in order, with links, documents and times"
    second = await memory.snapshots.restore(microdao, snapshot["id"], OTHER, mode, by_admin=True)
    assert (second.added, second.removed, second.kept, second.documents_added) == (0, 0, 9, 0)

    for added in (9, 0):
        done = await memory.snapshots.import_file(elsewhere, AGENT, data, mode)
        assert (done.added, done.kept, done.removed) == (added, 9 - added, 0)
        assert await rows_of(database, elsewhere) == before
    await index_all(memory, database, elsewhere)
    assert len(await embedded(database, elsewhere)) == 7
    assert await rows_of(database, microdao) == before, "the origin stays as it was"
    assert len(set(await ids_of(memory, microdao)) & set(await ids_of(memory, microdao, OTHER))) == 0
    found = await memory.query(ask(elsewhere, "freshly ground beans for coffee"))
    assert any("Coffee" in one.text for one in found[:3])

    back = await memory.snapshots.import_file(microdao, AGENT, await export(memory, microdao, OTHER), mode)
    assert (back.added, back.kept) == (0, 9), "a copy of a copy is still the same"


async def test_a_save_sees_one_moment(memory: Memory, database: Database, microdao: str):
    """Each batch of messages is written at once, so a snapshot holds all of it or nothing."""
    snapshots: list[bytes] = []

    async def write() -> None:
        for number in range(40):
            batch = [Message(text=f"batch {number} part {part}") for part in range(7)]
            await memory.channels.post(microdao, AGENT, "general", batch)

    writing = asyncio.create_task(write())
    while not writing.done():
        snapshots.append(await export(memory, microdao))
        async with database.tenant(microdao) as connection:
            await connection.execute("DELETE FROM memory_snapshot")
    await writing
    sizes = [len(read_file(data).items) for data in snapshots]
    assert [size % 7 for size in sizes] == [0] * len(sizes)
    assert sizes == sorted(sizes)
    assert len(set(sizes)) > 3, "the saves met the writes"


@pytest.mark.parametrize("mode", ["merge", "replace"])
async def test_a_restore_that_is_killed_changes_nothing(
    postgres: EmbeddedPostgres, memory: Memory, database: Database, microdao: str, mode: str
):
    await fill(memory, database, microdao)
    snapshot = await memory.snapshots.save(microdao, AGENT, "")
    await memory.forget_matching(microdao, AGENT, Filters(tiers=("long_term",)))
    await memory.store(new(microdao, "something new"))
    before, jobs = await rows_of(database, microdao), await queued(database, microdao)

    with psycopg.connect(postgres.admin_url) as blocker:
        blocker.execute("LOCK TABLE outbox IN SHARE MODE")  # what a restore writes last
        restoring = asyncio.create_task(memory.snapshots.restore(microdao, snapshot["id"], None, mode))
        await asyncio.to_thread(_kill_whoever_waits, postgres)
        with pytest.raises(Unavailable):
            await restoring
        blocker.rollback()
    assert await rows_of(database, microdao) == before
    assert await queued(database, microdao) == jobs
    done = await memory.snapshots.restore(microdao, snapshot["id"], None, mode)
    assert done.added > 0


def _kill_whoever_waits(postgres: EmbeddedPostgres) -> None:
    query = (
        "SELECT pg_terminate_backend(a.pid) FROM pg_locks l JOIN pg_stat_activity a USING (pid)"
        " WHERE NOT l.granted AND l.relation = 'outbox'::regclass AND a.query NOT LIKE 'UPDATE outbox%'"  # the relay
    )
    with psycopg.connect(postgres.admin_url, autocommit=True) as connection:
        for _ in range(500):
            if connection.execute(query).fetchall():
                return
            connection.execute("SELECT pg_sleep(0.01)")
    raise AssertionError("no restore came to wait")


async def test_readers_see_before_or_after(memory: Memory, microdao: str):
    for number in range(30):
        await memory.store(new(microdao, f"old {number}"))
    old = await memory.snapshots.save(microdao, AGENT, "")
    await memory.forget_matching(microdao, AGENT, Filters(tiers=("mid_term",)))
    for number in range(30):
        await memory.store(new(microdao, f"young {number}"))
    young = await memory.snapshots.save(microdao, AGENT, "")
    seen: set[frozenset[str]] = set()

    async def flip() -> None:
        for snapshot in [old, young] * 6:
            await memory.snapshots.restore(microdao, snapshot["id"], None, "replace")

    flipping = asyncio.create_task(flip())
    while not flipping.done():
        listing = Listing(microdao_id=microdao, agent_id=AGENT, filters=Filters())
        rows = await memory.list(listing)
        assert len(rows) == 30
        seen.add(frozenset(row["text"].split()[0] for row in rows))
    await flipping
    assert seen == {frozenset({"old"}), frozenset({"young"})}


async def test_restores_at_once_do_not_double(memory: Memory, database: Database, microdao: str):
    await fill(memory, database, microdao)
    data = await export(memory, microdao)
    done = await asyncio.gather(*(memory.snapshots.import_file(microdao, OTHER, data, "merge") for _ in range(4)))
    assert sorted(one.added for one in done) == [0, 0, 0, 9]
    assert len(await rows_of(database, microdao, OTHER)) == 9


async def test_a_forged_file_reaches_nobody_else(memory: Memory, database: Database, microdao: str):
    """It names the ids of a neighbour's items, in the same and in another microDAO."""
    elsewhere = f"microdao:{new_id('elsewhere')}"
    await add_agent(database, elsewhere, AGENT)
    victims = [
        await memory.store(new(microdao, "secret", agent_id=OTHER)),
        await memory.store(new(elsewhere, "secret")),
    ]
    forged = file_of(*(item(id=one.id, content={"text": "forged"}) for one in victims))
    for mode in ("merge", "replace"):
        done = await memory.snapshots.import_file(microdao, AGENT, forged, mode)
        assert (done.removed, len(await ids_of(memory, microdao))) == (0, 2)
    assert [row["text"] for row in await rows_of(database, microdao, OTHER)] == ["secret"]
    assert [row["text"] for row in await rows_of(database, elsewhere)] == ["secret"]
    assert not set(await ids_of(memory, microdao)) & {one.id for one in victims}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"content": {"text": "a", "context": {"a": "b" * 100_001}}}, "line 3: content may have 100000 bytes"),
        ({"content": {"text": " "}}, "line 3: content needs"),
        ({"content": {"text": 5}}, "line 3: content.text must be text"),
        ({"tier": "eternal"}, "line 3: tier must be one of"),
    ],
)
async def test_a_bad_line_leaves_nothing(memory: Memory, database: Database, microdao: str, line: dict, message: str):
    await memory.store(new(microdao, "there before"))
    before, jobs = await rows_of(database, microdao), await queued(database, microdao)
    with pytest.raises(Exception, match=f"^{message}"):
        await memory.snapshots.import_file(microdao, AGENT, file_of(item(), item(id="b", **line)), "replace")
    with pytest.raises(InvalidRequest):
        await memory.snapshots.import_file(microdao, AGENT, file_of(item())[:-9], "replace")
    assert (await rows_of(database, microdao), await queued(database, microdao)) == (before, jobs)


async def test_isolation(memory: Memory, database: Database, microdao: str):
    elsewhere = f"microdao:{new_id('elsewhere')}"
    await add_agent(database, elsewhere, AGENT)
    await memory.store(new(microdao, "secret"))
    snapshot = (await memory.snapshots.save(microdao, AGENT, ""))["id"]
    for place in ((microdao, snapshot, OTHER), (elsewhere, snapshot, AGENT), (elsewhere, snapshot, None)):
        for call in (memory.snapshots.get, memory.snapshots.file, memory.snapshots.delete):
            with pytest.raises(NotFound):
                await call(*place)
    with pytest.raises(NotFound):
        await memory.snapshots.restore(elsewhere, snapshot, AGENT, "merge")
    assert await memory.snapshots.list_page(microdao, OTHER, "", 9) == []
    assert await memory.snapshots.list_page(elsewhere, AGENT, "", 9) == []

    grant = await memory.sharing.share(microdao, Grantee("agent", AGENT), Grantee("agent", OTHER), "read")
    assert (await memory.snapshots.get(microdao, snapshot, OTHER))["id"] == snapshot, "shared with the memory"
    with pytest.raises(Unauthorized):
        await memory.snapshots.delete(microdao, snapshot, OTHER)
    await memory.sharing.revoke(microdao, grant["id"])
    with pytest.raises(NotFound):
        await memory.snapshots.get(microdao, snapshot, OTHER)
    with pytest.raises(NotFound, match=f"no snapshot '{snapshot}' that {OTHER} may see"):
        await memory.snapshots.restore(microdao, snapshot, OTHER, "merge")
    await memory.snapshots.delete(microdao, snapshot, AGENT)
    with pytest.raises(NotFound):
        await memory.snapshots.get(microdao, snapshot)


async def test_unknown_agents_and_too_many_snapshots(memory: Memory, microdao: str):
    for call in (
        memory.snapshots.save(microdao, "agent:nobody", ""),
        memory.snapshots.list_page(microdao, "agent:nobody", "", 9),
        memory.snapshots.import_file(microdao, "agent:nobody", file_of(), "merge"),
    ):
        with pytest.raises(NotFound):
            await call
    saved = [(await memory.snapshots.save(microdao, AGENT, f"{number}"))["id"] for number in range(MAX_SNAPSHOTS)]
    with pytest.raises(LimitExceeded, match="delete one"):
        await memory.snapshots.save(microdao, AGENT, "")
    page = await memory.snapshots.list_page(microdao, AGENT, saved[14], 10)
    assert [row["id"] for row in page] == saved[15:]
