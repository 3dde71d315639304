"""Postgres away for ten seconds while memories are stored and indexed, each message delivered three times."""

import asyncio
import random
from collections import Counter
from pathlib import Path

import pytest

from localstack.postgres import EmbeddedPostgres
from shared.cloud.outbox import Outbox
from shared.db.database import Database, fetch_all
from shared.errors import Unavailable
from shared.memory.memory import Memory, open_memory
from shared.settings import Settings
from tests.memories import AGENT, embedded, new, queued

TENANT = "microdao:outage"
ITEMS = 150
OUTAGE_S = 10.0


@pytest.mark.timeout(300)
async def test_every_item_ends_embedded_once(tmp_path: Path, models: Path):
    server = EmbeddedPostgres(tmp_path / "postgres")
    server.start()
    database = Database(server.runtime_url)
    outbox = Outbox(database, {})
    memory = open_memory(Settings(database_url=server.runtime_url, home=models.parent), database, outbox)
    try:
        await _make_tenant(database)
        storing = asyncio.create_task(_store(memory))
        indexers = [asyncio.create_task(_index(memory, database, storing, seed)) for seed in (1, 2)]
        await asyncio.sleep(1)
        await asyncio.to_thread(server.stop)
        await asyncio.sleep(OUTAGE_S)
        await asyncio.to_thread(server.start)
        stored = await storing
        await asyncio.gather(*indexers)
        assert Counter(await embedded(database, TENANT)) == Counter(stored)
        assert len(stored) == ITEMS
        stats = await memory.stats(TENANT, AGENT)
        assert (stats.pending, stats.failed, stats.items["mid_term"]) == (0, 0, ITEMS)
    finally:
        await database.close()
        server.stop()


async def _make_tenant(database: Database) -> None:
    async with database.system() as connection:
        await connection.execute("INSERT INTO microdao (microdao_id, name) VALUES (%s, 'Test')", (TENANT,))
        await connection.execute("INSERT INTO agent VALUES (%s, %s, 'Sofia', 'sofia')", (TENANT, AGENT))


async def _store(memory: Memory) -> list[str]:
    """Store all, each until it is acknowledged: an item whose answer was lost is sent again."""
    ids = []
    for number in range(ITEMS):
        while True:
            try:
                ids.append((await memory.store(new(TENANT, f"fact number {number} about gardens"))).id)
                break
            except Unavailable:
                await asyncio.sleep(0.2)
        await asyncio.sleep(0.02)
    return ids


async def _index(memory: Memory, database: Database, storing: "asyncio.Task[list[str]]", seed: int) -> None:
    """Deliver what is queued three times in random order, until all is stored and nothing is left."""
    chance = random.Random(seed)
    while True:
        try:
            jobs = await queued(database, TENANT)
            if storing.done() and not jobs and not await _waiting(database):
                return
            deliveries = [job for job in jobs for _ in range(3)]
            chance.shuffle(deliveries)
            for start in range(0, len(deliveries), 10):
                await memory.index(deliveries[start : start + 10])
            await memory.sweep(older_than_s=5)
        except Unavailable:
            await asyncio.sleep(0.2)


async def _waiting(database: Database) -> bool:
    async with database.tenant(TENANT) as connection:
        return bool(await fetch_all(connection, "SELECT 1 FROM memory_item WHERE state <> 'ready' LIMIT 1"))
