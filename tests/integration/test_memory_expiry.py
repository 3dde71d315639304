"""Thousands of memories that expire at the same moment: nobody waits for them, and they are gone soon."""

import time
from collections.abc import AsyncIterator

import pytest

from localstack.postgres import EmbeddedPostgres
from shared.db.database import Database
from shared.memory.memory import Memory
from tests.embeddings import add_tenant, own_database, simple_memory
from tests.memories import AGENT, ask, index_all, kept, new

TENANT = "microdao:expiring"
COUNT = 8000
QUESTION = "apple pie"

_COPY = """
WITH item AS (
    INSERT INTO memory_item
        (id, microdao_id, scope_id, agent_id, tier, content, text, content_hash, state, words, lexicon, expires_at)
    SELECT 'mem_copy' || g, microdao_id, scope_id, agent_id, tier, content, text, content_hash, 'ready', words, lexicon,
        CASE WHEN g %% 2 = 0 THEN now() + interval '1 day' END
    FROM memory_item, generate_series(1, %s) g RETURNING scope_id, number),
posting AS (
    INSERT INTO memory_posting
    SELECT p.scope_id, p.term, i.number, p.frequency, p.words FROM memory_posting p JOIN item i USING (scope_id))
INSERT INTO memory_embedding
SELECT e.space_id, e.scope_id, i.number, e.part, e.embedding FROM memory_embedding e JOIN item i USING (scope_id)
"""


@pytest.fixture
async def database(postgres: EmbeddedPostgres) -> AsyncIterator[Database]:
    async with own_database(postgres) as database:
        await add_tenant(database, TENANT, AGENT)
        yield database


@pytest.fixture
async def memory(database: Database) -> AsyncIterator[Memory]:
    """With half of its items to expire in a day."""
    async with simple_memory(database) as memory:
        await memory.store(new(TENANT, QUESTION))
        await index_all(memory, database, TENANT)
        await database.run(_COPY, (COUNT,))
        await database.run("UPDATE memory_item SET queued_at = NULL")
        yield memory


async def expire(database: Database) -> None:
    await database.run("UPDATE memory_item SET expires_at = now() - interval '1 second' WHERE expires_at IS NOT NULL")


async def fastest_s(memory: Memory) -> float:
    times = []
    for _ in range(5):
        began = time.perf_counter()
        assert await memory.query(ask(TENANT, QUESTION))
        times.append(time.perf_counter() - began)
    return min(times)


async def test_what_has_just_expired_slows_no_query_down(memory: Memory, database: Database):
    before = await fastest_s(memory)
    await expire(database)
    assert await fastest_s(memory) < 5 * before


async def test_one_sweep_reclaims_thousands(memory: Memory, database: Database):
    await expire(database)
    await memory.sweep()
    assert len(await kept(database, TENANT)) == 1 + COUNT // 2
