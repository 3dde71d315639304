"""Snapshots of what agents keep for their end users: theirs again when restored, and nobody else's through one."""

import asyncio

import orjson
import pytest

from shared.cloud.outbox import Outbox
from shared.db.database import Database, fetch_all
from shared.errors import NotFound
from shared.memory.channels import Message
from shared.memory.documents.documents import NewDocument
from shared.memory.memory import Memory, open_memory
from shared.memory.model import Filters, Grantee, Listing, ScopeRef
from shared.settings import Settings
from tests.memories import AGENT, ask, index_all, new
from tests.races import until_somebody_waits
from tests.unit.test_memory_snapshot_file import document, file_of, item

OTHER, OLENA, IHOR, NINA = "agent:other", "olena", "ihor", "Ніна/%"
PAPER = b"The xylophone has bars of rosewood."


@pytest.fixture(scope="module")
async def outbox(database: Database):
    outbox = Outbox(database, {})
    yield outbox
    await outbox.close()


@pytest.fixture(scope="module")
def memory(settings: Settings, database: Database, outbox: Outbox) -> Memory:
    return open_memory(settings, database, outbox)


@pytest.fixture
async def microdao(database: Database, microdao: str) -> str:
    async with database.system() as connection:
        await connection.execute("INSERT INTO agent VALUES (%s, %s, 'Other', 'sofia')", (microdao, OTHER))
    return microdao


async def store(memory: Memory, microdao: str, text: str, user: str | None, **fields) -> str:
    scope = ScopeRef("user", user) if user else None
    return (await memory.store(new(microdao, text, scope=scope, **fields))).id


async def add_paper(memory: Memory, microdao: str, user: str | None) -> str:
    scope = ScopeRef("user", user) if user else None
    paper = NewDocument(microdao_id=microdao, agent_id=AGENT, data=PAPER, media_type="text/plain", scope=scope)
    return (await memory.documents.add(paper))["id"]


async def fill(memory: Memory, database: Database, microdao: str) -> None:
    """For two users and for nobody in particular: a note that stands for another, a message, and the same document."""
    for user in (OLENA, IHOR, None):
        old, summary = [await store(memory, microdao, f"{word} of {user}", user) for word in ("source", "summary")]
        async with database.tenant(microdao) as connection:
            await connection.execute("UPDATE memory_item SET summary_id = %s WHERE id = %s", (summary, old))
        scope = ScopeRef("user", user) if user else None
        await memory.channels.post(microdao, AGENT, "room", [Message(text=f"message of {user}", id="1")], scope)
        await add_paper(memory, microdao, user)


async def held(memory: Memory, microdao: str, user: str | None, agent: str = AGENT) -> dict[str, str]:
    """Texts by id of what an agent keeps for a user (None: of its own)."""
    filters = Filters(scopes=("user",) if user else ("agent",))
    rows = await memory.list(Listing(microdao_id=microdao, agent_id=agent, filters=filters, user_id=user))
    return {row["id"]: row["text"] for row in rows}


async def export(memory: Memory, microdao: str, agent: str = AGENT) -> bytes:
    snapshot = await memory.snapshots.save(microdao, agent, "")
    return b"".join(await memory.snapshots.file(microdao, snapshot["id"]))


async def links(database: Database, microdao: str) -> set[tuple[str, str]]:
    async with database.tenant(microdao) as connection:
        rows = await fetch_all(
            connection, "SELECT i.text, y.text AS summary FROM memory_item i JOIN memory_item y ON y.id = i.summary_id"
        )
    return {(row["text"], row["summary"]) for row in rows}


LINKS = {(f"source of {user}", f"summary of {user}") for user in (OLENA, IHOR, None)}


async def test_a_snapshot_brings_users_memories_back_as_theirs(memory: Memory, database: Database, microdao: str):
    await fill(memory, database, microdao)
    before = {user: await held(memory, microdao, user) for user in (OLENA, IHOR, None)}
    assert [len(one) for one in before.values()] == [4, 4, 4]
    snapshot = await memory.snapshots.save(microdao, AGENT, "all")
    assert (snapshot["items"], snapshot["documents"], snapshot["users"]) == (12, 3, 2)
    await memory.users.forget(microdao, AGENT, OLENA)
    await store(memory, microdao, "new", IHOR)
    await store(memory, microdao, "new", NINA)
    merged = await memory.snapshots.restore(microdao, snapshot["id"], None, "merge")
    assert (merged.added, merged.kept, merged.removed, merged.documents_added) == (4, 8, 0, 1)
    assert await held(memory, microdao, OLENA) == before[OLENA]
    assert len(await held(memory, microdao, IHOR)) == 5
    assert len(await held(memory, microdao, NINA)) == 1, "merge leaves what it does not know"
    replaced = await memory.snapshots.restore(microdao, snapshot["id"], None, "replace")
    assert (replaced.added, replaced.kept, replaced.removed) == (0, 12, 2)
    assert {user: await held(memory, microdao, user) for user in (OLENA, IHOR, None)} == before
    assert await held(memory, microdao, NINA) == {}
    assert await links(database, microdao) == LINKS
    await index_all(memory, database, microdao)
    for user in (OLENA, IHOR):
        found = await memory.query(ask(microdao, "summary and rosewood xylophone", user_id=user, k=50))
        assert {one.scope for one in found} == {ScopeRef("agent", AGENT), ScopeRef("user", user)}
    nobodys = await memory.query(ask(microdao, "summary and rosewood xylophone", k=50))
    assert {one.scope for one in nobodys} == {ScopeRef("agent", AGENT)}


async def test_users_move_with_the_memory_to_another_agent_and_microdao(
    memory: Memory, database: Database, microdao: str, other_microdao: str
):
    await fill(memory, database, microdao)
    snapshot = await memory.snapshots.save(microdao, AGENT, "all")
    done = await memory.snapshots.restore(microdao, snapshot["id"], OTHER, "merge", by_admin=True)
    assert (done.agent_id, done.added, done.documents_added) == (OTHER, 12, 3)
    data = await export(memory, microdao)
    assert orjson.loads(data.partition(b"\n")[0])["version"] == 2
    for _ in range(2):
        done = await memory.snapshots.import_file(other_microdao, AGENT, data, "merge")
    assert (done.added, done.kept, done.documents_added) == (0, 12, 0), "the same twice changes nothing more"
    again = await memory.snapshots.import_file(microdao, OTHER, data, "replace")
    assert (again.added, again.kept, again.removed) == (0, 12, 0)
    for place, agent in ((microdao, AGENT), (microdao, OTHER), (other_microdao, AGENT)):
        for user in (OLENA, IHOR, None):
            texts = sorted((await held(memory, place, user, agent)).values())
            assert texts == sorted([f"{one} of {user}" for one in ("source", "summary", "message")] + [PAPER.decode()])
        assert [row["user_id"] for row in await memory.users.list_page(place, agent, "", 9)] == [IHOR, OLENA]
    assert await links(database, other_microdao) == LINKS
    copy_of_copy = await export(memory, other_microdao)
    assert (await memory.snapshots.import_file(microdao, AGENT, copy_of_copy, "merge")).added == 0


async def test_a_file_without_users_is_as_it_was_and_replaces_theirs(memory: Memory, database: Database, microdao: str):
    await store(memory, microdao, "of nobody", None)
    data = await export(memory, microdao)
    assert orjson.loads(data.partition(b"\n")[0])["version"] == 1
    assert b"user_id" not in data
    await store(memory, microdao, "of Olena", OLENA)
    merged = await memory.snapshots.import_file(microdao, AGENT, data, "merge")
    assert (merged.kept, merged.removed, len(await held(memory, microdao, OLENA))) == (1, 0, 1)
    replaced = await memory.snapshots.import_file(microdao, AGENT, data, "replace")
    assert (replaced.kept, replaced.removed, await held(memory, microdao, OLENA)) == (1, 1, {})


async def test_who_may_read_an_agents_memory_gets_no_snapshot_of_its_users(
    memory: Memory, database: Database, microdao: str
):
    snapshots = memory.snapshots
    await store(memory, microdao, "of nobody", None)
    plain = (await snapshots.save(microdao, AGENT, "without"))["id"]
    await store(memory, microdao, "of Olena", OLENA)
    private = (await snapshots.save(microdao, AGENT, "with"))["id"]
    await memory.sharing.share(microdao, Grantee("agent", AGENT), Grantee("agent", OTHER), "write")
    assert (await snapshots.get(microdao, plain, OTHER))["users"] == 0
    for refused in (
        snapshots.get(microdao, private, OTHER),
        snapshots.file(microdao, private, OTHER),
        snapshots.restore(microdao, private, OTHER, "merge"),
        snapshots.delete(microdao, private, OTHER),
    ):
        with pytest.raises(NotFound):
            await refused
    assert await held(memory, microdao, OLENA, OTHER) == {}
    assert (await snapshots.restore(microdao, plain, OTHER, "merge")).added == 1
    assert [row["id"] for row in await snapshots.list_page(microdao, AGENT, "", 9)] == [plain, private]
    assert (await snapshots.get(microdao, private, AGENT))["users"] == 1
    await snapshots.delete(microdao, private, AGENT)


async def test_ids_of_a_file_are_taken_for_one_user_each(memory: Memory, database: Database, microdao: str):
    """Two files that give the same ids to what is of two users, one of whom has it already."""
    lines = [document(chunks=1), item(id="mem_1", document_id="doc_1", position=0), item(id="mem_2")]
    for user in (OLENA, IHOR, None):
        own = {"user_id": user} if user else {}
        data = file_of(*({**line, **own} for line in lines), version=2)
        assert (await memory.snapshots.import_file(microdao, AGENT, data, "merge")).added == 2, user
    ids = [one for user in (OLENA, IHOR, None) for one in await held(memory, microdao, user)]
    assert len(set(ids)) == 6


async def test_a_user_who_comes_during_a_restore_is_kept(memory: Memory, database: Database, microdao: str):
    await fill(memory, database, microdao)
    data = await export(memory, microdao)
    await asyncio.gather(
        memory.snapshots.import_file(microdao, AGENT, data, "replace"),
        *(store(memory, microdao, f"told {number}", IHOR) for number in range(5)),
    )
    assert len(await held(memory, microdao, OLENA)) == 4
    again = await memory.snapshots.import_file(microdao, AGENT, data, "replace")
    assert (again.kept, len(await held(memory, microdao, IHOR))) == (12, 4)


async def test_a_user_who_is_forgotten_during_a_restore_is_restored(memory: Memory, database: Database, microdao: str):
    await fill(memory, database, microdao)
    data = await export(memory, microdao)
    async with database.tenant(microdao) as connection:
        await connection.execute("DELETE FROM memory_item WHERE text LIKE '%% of olena'")
        await connection.execute("DELETE FROM memory_scope WHERE kind = 'user' AND name = %s", (OLENA,))
        restoring = asyncio.create_task(memory.snapshots.import_file(microdao, AGENT, data, "merge"))
        await until_somebody_waits(database)
    assert (await restoring).added == 4
    assert len(await held(memory, microdao, OLENA)) == 4
