"""A database that accepts connections and says nothing: callers hear of it in time, and nothing of it is kept."""

import asyncio
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import aiohttp
import psutil
import pytest

from localstack.postgres import EmbeddedPostgres
from shared.db.database import Database
from shared.errors import Unavailable
from shared.settings import Settings
from tests.integration.api_server import running_api


@pytest.fixture(scope="module")
def own_postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    server = EmbeddedPostgres(Path(tmp_path_factory.mktemp("frozen")) / "postgres")
    server.start()
    yield server
    server.stop()


@contextmanager
def frozen(server: EmbeddedPostgres) -> Iterator[None]:
    """Stop the postmaster and every backend it has."""
    postmaster = psutil.Process(server.process.pid)
    family = [postmaster, *postmaster.children(recursive=True)]
    for one in family:
        one.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for one in family:
            one.send_signal(signal.SIGCONT)


async def use_transaction(database: Database) -> None:
    async with database.system() as connection:
        await connection.execute("SELECT 1")


async def use_run(database: Database) -> None:
    await database.run("SELECT 1")


@pytest.mark.parametrize("use", [use_transaction, use_run])
async def test_a_frozen_server_is_unavailable_in_time_and_its_connection_is_dropped(own_postgres, use):
    database = Database(own_postgres.runtime_url, max_size=1, timeout_s=1)
    try:
        before = (await database.run("SELECT pg_backend_pid() AS pid"))[0]["pid"]
        with frozen(own_postgres):
            began = time.monotonic()
            async with asyncio.timeout(8):
                for _ in range(2):  # with a connection of the pool, and with none
                    with pytest.raises(Unavailable):
                        await use(database)
            assert time.monotonic() - began < 5
        async with asyncio.timeout(20):
            while not (after := await pid_of_next_connection(database)):
                pass
        assert after != before
    finally:
        await database.close()


async def pid_of_next_connection(database: Database) -> int:
    try:
        return (await database.run("SELECT pg_backend_pid() AS pid"))[0]["pid"]
    except Unavailable:
        return 0


async def test_a_long_statement_of_a_transaction_is_let_be(own_postgres):
    database = Database(own_postgres.runtime_url, timeout_s=0.5)
    try:
        async with database.system() as connection:
            await connection.execute("SELECT pg_sleep(1)")
        with pytest.raises(Unavailable, match="does not answer"):
            await database.run("SELECT pg_sleep(5)")
        await use_run(database)
    finally:
        await database.close()


async def test_the_api_says_503(own_postgres, settings: Settings):
    own = replace(settings, database_url=own_postgres.runtime_url, database_timeout_s=2)
    async with running_api(own) as api, aiohttp.ClientSession(api.url) as session:
        await api.services.tenants.ensure("microdao:frozen", "Frozen")
        member = await api.for_member("microdao:frozen")
        async with session.get("/readyz") as answer:
            assert answer.status == 200
        with frozen(own_postgres):
            began = time.monotonic()
            async with session.get("/readyz") as answer:
                body = await answer.json()
                assert (answer.status, body["status"], body["missing"]) == (503, "unready", ["database"])
            assert time.monotonic() - began < 3
            began = time.monotonic()
            async with session.get("/v1/models", headers={"Authorization": f"Bearer {member.key}"}) as answer:
                assert answer.status == 503
            assert time.monotonic() - began < 4
