"""Who may change which memory."""

import asyncio
from typing import Any

import pytest

from shared.cloud.outbox import Outbox
from shared.db.database import Database, fetch_one
from shared.errors import ApiError, NotFound, Unauthorized
from shared.memory.embedding.embedders import Embedders
from shared.memory.embedding.spaces import Spaces
from shared.memory.memory import Memory
from shared.memory.model import Grantee, ScopeRef
from tests.embeddings import BagOfWords, add_tenant, own_database
from tests.integration.test_memory_changes import COFFEE, OTHER, TEA, change, found, texts_of
from tests.memories import AGENT, ask, index_all, new
from tests.races import until_somebody_waits


@pytest.fixture(scope="module")
async def database(postgres):
    """Of its own, for its model is another one."""
    async with own_database(postgres) as database:
        yield database


@pytest.fixture(scope="module")
async def outbox(database: Database):
    """Jobs stay in it: the tests deliver them by hand."""
    outbox = Outbox(database, {})
    yield outbox
    await outbox.close()


@pytest.fixture
async def microdao(database: Database, request: pytest.FixtureRequest) -> str:
    microdao = f"microdao:{request.node.name}"
    await add_tenant(database, microdao, AGENT, OTHER)
    return microdao


@pytest.fixture
def memory(database: Database, outbox: Outbox) -> Memory:
    return Memory(database, outbox, Spaces(database, Embedders(BagOfWords("bag-of-words"))))


async def test_only_who_may_write_changes(memory: Memory, database: Database, microdao: str):
    item = await memory.store(new(microdao, TEA))
    sharing, bob = memory.sharing, Grantee("agent", OTHER)

    async def try_it(**fields: Any) -> type[ApiError] | None:
        try:
            await change(memory, microdao, item.id, agent_id=OTHER, **fields)
        except ApiError as error:
            return type(error)
        return None

    asked: list[dict[str, Any]] = [{"text": COFFEE}, {"importance": 0.9}, {"sets_expiry": True}]
    assert [await try_it(**one) for one in asked] == [NotFound] * 3
    grant = await sharing.share(microdao, Grantee("agent", AGENT), bob, "read")
    assert [await try_it(**one) for one in asked] == [Unauthorized] * 3
    assert [await try_it(**one, by_admin=True) for one in asked] == [NotFound] * 3, "it is not the microDAO's"
    assert (await memory.items.get(microdao, OTHER, item.id))["text"] == TEA
    await sharing.share(microdao, Grantee("agent", AGENT), bob, "write")
    assert [await try_it(**one) for one in asked] == [None] * 3
    await sharing.revoke(microdao, grant["id"])
    assert [await try_it(**one) for one in asked] == [NotFound] * 3
    with pytest.raises(NotFound):
        await memory.items.get(microdao, OTHER, item.id)


async def test_what_is_everybodys_only_admins_change(memory: Memory, database: Database, microdao: str):
    item = await memory.store(new(microdao, TEA, scope=ScopeRef("microdao", microdao), by_admin=True))
    with pytest.raises(Unauthorized):
        await change(memory, microdao, item.id, COFFEE)
    assert (await memory.items.get(microdao, OTHER, item.id))["text"] == TEA
    changed = await change(memory, microdao, item.id, COFFEE, by_admin=True, importance=0.9)
    assert (changed["text"], changed["scope_kind"]) == (COFFEE, "microdao")
    await index_all(memory, database, microdao)
    memories = await memory.query(ask(microdao, COFFEE, agent_id=OTHER))
    assert [one.id for one in memories] == [item.id]
    with pytest.raises(NotFound):
        await change(memory, microdao, "mem_none", COFFEE, by_admin=True)


async def test_a_right_that_is_taken_away_while_it_changes_changes_nothing(
    memory: Memory, database: Database, microdao: str
):
    item = await memory.store(new(microdao, TEA))
    await memory.sharing.share(microdao, Grantee("agent", AGENT), Grantee("agent", OTHER), "write")
    async with database.system() as connection:
        await fetch_one(connection, "SELECT 1 FROM memory_item WHERE id = %s FOR UPDATE", (item.id,))
        changing = asyncio.create_task(change(memory, microdao, item.id, COFFEE, agent_id=OTHER))
        await until_somebody_waits(database)
        await memory.sharing.share(microdao, Grantee("agent", AGENT), Grantee("agent", OTHER), "read")
    with pytest.raises(Unauthorized):
        await changing
    assert await texts_of(memory, microdao, item.id) == [TEA]
    assert await found(memory, microdao, TEA) == [item.id]
