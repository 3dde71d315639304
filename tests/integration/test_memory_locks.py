"""Who changes the same memories at once: nobody waits for somebody who waits for him, and nothing is left behind."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from localstack.postgres import EmbeddedPostgres
from shared.clock import utc_now
from shared.cloud.outbox import Outbox
from shared.db.database import Connection, Database, fetch_all
from shared.memory import store
from shared.memory.channels import Message
from shared.memory.documents import store_documents
from shared.memory.documents.documents import NewDocument
from shared.memory.embedding import store_spaces
from shared.memory.intake import Intake, item_row
from shared.memory.memory import Memory
from shared.memory.model import Filters, Listing, ScopeRef
from tests.embeddings import add_tenant, beside, own_database, simple_memory
from tests.memories import AGENT, ask, index_all, kept, new
from tests.races import until_somebody_waits

TENANT = "microdao:locked"
CHANNEL = "general"
MESSAGES = [Message(id=str(number), text=f"message {number}") for number in range(12)]
Change = Callable[[Memory], Awaitable[None]]
_SETTLE_S = 0.2  # time for a rival to do what it can


@pytest.fixture
async def database(postgres: EmbeddedPostgres) -> AsyncIterator[Database]:
    async with own_database(postgres) as database:
        await add_tenant(database, TENANT, AGENT)
        yield database


@pytest.fixture
async def memory(database: Database) -> AsyncIterator[Memory]:
    async with simple_memory(database) as memory:
        yield memory


def document(chunks: int, **fields: Any) -> NewDocument:
    text = "\n\n".join(f"paragraph {number} {'word ' * 150}" for number in range(chunks))
    given = {"data": text.encode(), "media_type": "text/plain", "title": "a secret", **fields}
    return NewDocument(microdao_id=TENANT, agent_id=AGENT, **given)


async def titles(database: Database) -> list[str]:
    async with database.tenant(TENANT) as connection:
        return [row["title"] for row in await fetch_all(connection, "SELECT title FROM memory_document")]


def agent(database: Database) -> Any:
    return database.agent(TENANT, AGENT)


async def hold(connection: Connection, ids: list[str]) -> None:
    """As the indexer does before it writes; fails at once when somebody else has one."""
    await fetch_all(connection, "SELECT 1 FROM memory_item WHERE id = ANY(%s) FOR NO KEY UPDATE NOWAIT", (ids,))


async def add(memory: Memory) -> None:
    await memory.documents.add(document(12))


async def post(memory: Memory) -> None:
    await memory.channels.post(TENANT, AGENT, CHANNEL, MESSAGES)


async def forget_channel(memory: Memory) -> None:
    await memory.forget_matching(TENANT, AGENT, Filters(channel_id=CHANNEL))


async def forget_documents(memory: Memory) -> None:
    await memory.forget_matching(TENANT, AGENT, Filters(documents_only=True))


async def delete_document(memory: Memory) -> None:
    (found,) = await memory.documents.list_page(TENANT, AGENT, "", 9)
    await memory.documents.delete(TENANT, AGENT, found["id"])


@pytest.mark.parametrize(
    ("begin", "change"),
    [(add, add), (post, post), (post, forget_channel), (add, forget_documents), (add, delete_document)],
)
async def test_locks_are_taken_in_the_indexers_order(memory: Memory, database: Database, begin: Change, change: Change):
    """Whoever waits for the first item holds none of the others, which the indexer is about to lock."""
    await begin(memory)
    ids = sorted(await kept(database, TENANT))
    async with database.tenant(TENANT) as connection:
        await hold(connection, ids[:1])
        changing = asyncio.create_task(change(memory))
        await until_somebody_waits(database)
        await hold(connection, ids)
    await changing
    assert len(await kept(database, TENANT)) in (0, 12)


async def test_the_last_two_chunks_forgotten_at_once(memory: Memory, database: Database):
    await memory.documents.add(document(2))
    first, second = await kept(database, TENANT)
    async with agent(database) as connection:
        assert await store.delete_items(connection, [first]) == [first]
        rival = asyncio.create_task(memory.forget(TENANT, AGENT, second))
        await asyncio.sleep(_SETTLE_S)
    await rival
    assert await titles(database) == []


async def _added_up_to_its_row(connection: Connection, database: Database) -> list[dict[str, Any]]:
    """A document is being added again: its row is held, its items are to come."""
    rows = await fetch_all(connection, "SELECT * FROM memory_document")
    items = await fetch_all(
        connection,
        "SELECT id, microdao_id, scope_id, agent_id, tier, content::text, text, content_hash, source, author,"
        " channel_id, session_id, document_id, position, importance, occurred_at, NULL AS expires_at, words, lexicon,"
        " '{}'::text[] AS terms, '{}'::smallint[] AS frequencies, NULL AS job_id, NULL AS job_body,"
        " true AS may_differ, true AS renews FROM memory_item",
    )
    await store_documents.insert_document(connection, {**rows[0], "metadata": "{}"})
    return items


async def test_a_document_deleted_while_it_is_added_again(memory: Memory, database: Database):
    added = await memory.documents.add(document(3))
    async with agent(database) as connection:
        items = await _added_up_to_its_row(connection, database)
        rival = asyncio.create_task(memory.documents.delete(TENANT, AGENT, added["id"]))
        await asyncio.sleep(_SETTLE_S)
        await store.insert_items(connection, items)
    await rival
    assert await titles(database) == []
    assert await kept(database, TENANT) == set()


async def test_a_user_forgotten_while_more_is_stored_beside_what_is_there(memory: Memory, database: Database):
    """Who stores holds what is there, then needs the scope; who forgets must not hold the scope and wait for that."""
    scope = ScopeRef("user", "olena")
    await memory.channels.post(TENANT, AGENT, CHANNEL, MESSAGES[:1], scope)
    (there,) = await kept(database, TENANT)
    async with Intake(database, Outbox(database, {})).writing(TENANT, AGENT, scope) as (connection, scope_id):
        await hold(connection, [there])
        forgetting = asyncio.create_task(memory.users.forget(TENANT, AGENT, "olena"))
        await until_somebody_waits(database)
        row = item_row(new(TENANT, "more", scope=scope), scope_id=scope_id)
        await store.insert_items(connection, [row])
    assert await forgetting == {"items": 2, "documents": 0}
    assert await kept(database, TENANT) == set()


async def test_a_user_is_forgotten_in_the_indexers_order(memory: Memory, database: Database):
    scope = ScopeRef("user", "olena")
    await memory.channels.post(TENANT, AGENT, CHANNEL, MESSAGES, scope)
    ids = sorted(await kept(database, TENANT))
    async with database.tenant(TENANT) as connection:
        await hold(connection, ids[:1])
        forgetting = asyncio.create_task(memory.users.forget(TENANT, AGENT, "olena"))
        await until_somebody_waits(database)
        await hold(connection, ids)
    assert await forgetting == {"items": 12, "documents": 0}


async def test_a_restore_is_made_in_the_indexers_order_whose_ever_memory_it_is(memory: Memory, database: Database):
    scopes = (ScopeRef("agent", AGENT), ScopeRef("user", "olena"))
    snapshot = await memory.snapshots.save(TENANT, AGENT, "empty")
    for scope in scopes:
        await memory.channels.post(TENANT, AGENT, CHANNEL, MESSAGES, scope)
    ids = sorted(await kept(database, TENANT))
    async with database.agent(TENANT, AGENT, "olena") as connection:
        of_user = await fetch_all(
            connection, "SELECT id FROM memory_item JOIN memory_scope USING (scope_id) WHERE kind = 'user' ORDER BY id"
        )
    first = of_user[0]["id"]
    async with database.tenant(TENANT) as connection:
        await hold(connection, [first])
        restoring = asyncio.create_task(memory.snapshots.restore(TENANT, snapshot["id"], None, "replace"))
        await until_somebody_waits(database)
        await hold(connection, ids[ids.index(first) :])
    assert (await restoring).removed == 24
    assert await kept(database, TENANT) == set()


async def test_words_of_passages_are_made_anew_while_their_document_is_held(memory: Memory, database: Database):
    await memory.documents.add(document(3))
    ids = sorted(await kept(database, TENANT))
    async with database.tenant(TENANT) as connection:
        await connection.execute("UPDATE memory_item SET lexicon = 0")
    async with database.tenant(TENANT) as connection:
        await connection.execute("SELECT 1 FROM memory_document FOR UPDATE")
        indexing = asyncio.create_task(index_all(memory, database, TENANT))
        await until_somebody_waits(database)
        await hold(connection, ids)
    await indexing


async def test_an_expired_document_swept_while_it_is_added_again(memory: Memory, database: Database):
    await memory.documents.add(document(3, expires_at=utc_now() - timedelta(seconds=1)))
    async with agent(database) as connection:
        items = await _added_up_to_its_row(connection, database)
        sweep = asyncio.create_task(memory.sweep())
        await asyncio.sleep(_SETTLE_S)
        await store.insert_items(connection, items)
    await sweep
    assert await titles(database) == ["a secret"]
    assert len(await memory.query(ask(TENANT, "paragraph", mode="lexical", k=9))) == 3


async def test_two_sweeps_that_drop_the_same_space(memory: Memory, database: Database):
    await memory.store(new(TENANT, "note"))
    await index_all(memory, database, TENANT)
    async with database.system() as connection:
        await connection.execute("SELECT add_memory_space('gone', 8, 'retired')")
        await connection.execute("UPDATE memory_space SET retired_at = now() - interval '1 hour' WHERE model = 'gone'")

    async def drop(*, then_wait_s: float = 0) -> list[int]:
        async with database.system() as connection:
            dropped = await store_spaces.drop_retired(connection, 600)
            await asyncio.sleep(then_wait_s)
        return dropped

    first, second = await asyncio.gather(drop(then_wait_s=_SETTLE_S), drop(then_wait_s=_SETTLE_S))
    assert sorted((len(first), len(second))) == [0, 1]
    assert [one["model"] for one in await database.run("SELECT model FROM memory_space")] == ["a-model"]


async def test_a_server_of_another_time_zone(memory: Memory, database: Database, postgres: EmbeddedPostgres):
    """The last moment of 9999 in UTC, a usual "never", is in the year 10000 there."""
    name = database._pool.conninfo.rpartition("/")[2]
    with psycopg.connect(beside(postgres.admin_url, name), autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE \"{name}\" SET timezone = 'Pacific/Kiritimati'")
    await database._pool.drain()
    never = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
    await memory.store(new(TENANT, "the end", occurred_at=never, expires_at=never))
    await memory.store(new(TENANT, "the beginning", occurred_at=datetime(1, 1, 1, tzinfo=UTC)))
    found = await memory.query(ask(TENANT, "the end", mode="lexical"))
    assert found[0].occurred_at == never
    listed = await memory.list(Listing(microdao_id=TENANT, agent_id=AGENT, filters=Filters()))
    assert [row["expires_at"] for row in listed] == [never, None]
    (asked,) = await database.run("SELECT day FROM memory_activity")
    assert asked["day"] == utc_now().date()


async def test_the_gates_of_very_many_users_fit_into_the_servers_table_of_locks(database: Database):
    async with agent(database) as connection:
        await store.pass_gates(connection, AGENT, [f"user-{number}" for number in range(50_000)])
        (held,) = await fetch_all(connection, "SELECT count(*) AS n FROM pg_locks WHERE locktype = 'advisory'")
    assert 0 < held["n"] <= 256
