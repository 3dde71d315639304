"""Who is given up in a deadlock is done again, and nobody outside notices."""

import asyncio

import psycopg
import pytest

from localstack.postgres import EmbeddedPostgres
from shared.bootstrap import Services
from shared.db.database import Database, Deadlock
from shared.db.deadlocks import repeated_after_deadlocks
from shared.errors import NotFound
from shared.memory.documents.documents import NewDocument
from tests.memories import AGENT, kept
from tests.races import until_somebody_waits


async def test_a_victim_is_done_again(
    postgres: EmbeddedPostgres, database: Database, services: Services, microdao: str
):
    documents = services.memory.documents
    data = b"the garden gate is green"
    new = NewDocument(microdao_id=microdao, agent_id=AGENT, data=data, media_type="text/plain", title="garden")
    document = (await documents.add(new))["id"]
    async with await psycopg.AsyncConnection.connect(postgres.admin_url) as rival:
        await rival.execute("SET deadlock_timeout = '60s'")  # it is never the one that is given up
        await rival.execute("SELECT 1 FROM memory_item WHERE document_id = %s FOR UPDATE", (document,))
        deleting = asyncio.create_task(documents.delete(microdao, AGENT, document))
        await until_somebody_waits(database)
        await rival.execute("SELECT 1 FROM memory_document WHERE id = %s FOR UPDATE", (document,))
    await deleting
    with pytest.raises(NotFound):
        await documents.get(microdao, AGENT, document)
    assert not await kept(database, microdao)


async def test_one_that_never_ends_is_told():
    tries = []

    @repeated_after_deadlocks
    async def work(name: str) -> None:
        tries.append(name)
        raise Deadlock("another change came in between")

    with pytest.raises(Deadlock):
        await work("delete")
    assert tries == ["delete"] * 4
