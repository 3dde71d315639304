"""The schema's owner need be no superuser (managed Postgres): it applies the migrations, and memory works as ever."""

import shutil
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import psycopg
import pytest

from localstack.postgres import DATABASE, EmbeddedPostgres
from shared.bootstrap import Services
from shared.db import migrate as migrations
from shared.db.database import Database, fetch_all, fetch_one
from shared.errors import NotFound
from shared.memory.model import Filters, Listing
from shared.settings import Settings
from tests.memories import AGENT, ask, embedded, index_all, new

OWNER, RUNTIME, MICRODAO = "managed_owner", "managed_runtime", "microdao:managed"


class _Managed(EmbeddedPostgres):
    """A server as a provider hands it over: the extension is there, and two logins that are no superusers."""

    def _prepare(self) -> None:
        with psycopg.connect(self._url("postgres", "postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE ROLE {OWNER} LOGIN CREATEROLE NOBYPASSRLS PASSWORD 'owner'")
            connection.execute(f"CREATE ROLE {RUNTIME} LOGIN NOINHERIT PASSWORD 'runtime'")
            connection.execute(f"CREATE DATABASE {DATABASE} OWNER {OWNER}")
        with psycopg.connect(self.admin_url, autocommit=True) as connection:
            connection.execute("CREATE EXTENSION vector")

    def url(self, login: str) -> str:
        """The login's URL; its password is the last part of its name."""
        return f"postgresql://{login}:{login.partition('_')[2]}@{self.admin_url.partition('@')[2]}"


@dataclass(frozen=True)
class _Before:
    """What the database held when memory's scopes came."""

    url: str
    item: str


@pytest.fixture(scope="module")
def upgraded(session_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Before]:
    """Migrated by the owner in two steps: up to the first form of memory, then, with an item in it, to the end."""
    server = _Managed(session_folder / "managed")
    server.start()
    earlier = tmp_path_factory.mktemp("earlier")
    for file in sorted(migrations.MIGRATIONS.glob("*.sql")):
        if file.name < "0009":
            shutil.copy(file, earlier)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(migrations, "MIGRATIONS", earlier)
        assert len(migrations.migrate(server.url(OWNER), runtime_login=RUNTIME)) == 8
    with psycopg.connect(server.url(RUNTIME)) as connection:
        connection.execute("SET LOCAL ROLE daarion_system")
        connection.execute("INSERT INTO microdao (microdao_id, name) VALUES (%s, 'Managed')", (MICRODAO,))
        connection.execute("INSERT INTO agent VALUES (%s, %s, 'Sofia', 'sofia')", (MICRODAO, AGENT))
        connection.execute(
            "INSERT INTO memory_item (id, microdao_id, agent_id, tier, content, text, content_hash)"
            " VALUES ('mem_before', %s, %s, 'mid_term', '{\"text\": \"kept before\"}', 'kept before', '')",
            (MICRODAO, AGENT),
        )
    assert migrations.migrate(server.url(OWNER), runtime_login=RUNTIME)
    assert migrations.migrate(server.url(OWNER), runtime_login=RUNTIME) == []
    yield _Before(server.url(RUNTIME), "mem_before")
    server.stop()


@pytest.fixture
async def services(settings: Settings, upgraded: _Before) -> AsyncIterator[Services]:
    services = Services(replace(settings, database_url=upgraded.url))
    yield services
    await services.close()


async def counts(database: Database, *tables: str) -> list[int]:
    async with database.system() as connection:
        rows = [await fetch_one(connection, f"SELECT count(*) AS n FROM {table}") for table in tables]
    return [int(row["n"]) for row in rows if row]


async def test_the_owner_is_plain_and_bound_by_the_rows_policies(upgraded: _Before):
    url = upgraded.url.replace(f"{RUNTIME}:runtime", f"{OWNER}:owner")
    async with await psycopg.AsyncConnection.connect(url) as connection:
        found = await connection.execute("SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user")
        assert await found.fetchone() == (False,)
        assert await (await connection.execute("SELECT count(*) FROM memory_item")).fetchone() == (0,)


async def test_what_was_kept_before_is_found_afterwards(services: Services, upgraded: _Before):
    listing = Listing(microdao_id=MICRODAO, agent_id=AGENT, filters=Filters())
    assert [row["id"] for row in await services.memory.list(listing)] == [upgraded.item]
    await services.memory.sweep()
    await index_all(services.memory, services.database, MICRODAO)
    assert [one.id for one in await services.memory.query(ask(MICRODAO, "kept"))] == [upgraded.item]


async def test_store_index_search_enlarge_and_delete(services: Services):
    memory, database = services.memory, services.database
    ids = [(await memory.store(new(MICRODAO, f"note {number} about tea"))).id for number in range(5)]
    await index_all(memory, database, MICRODAO)
    space = await memory.spaces.active()
    async with database.system() as connection:
        row = await fetch_one(connection, "SELECT scope_id FROM memory_item LIMIT 1")
        assert row is not None
        await connection.execute("SELECT enlarge_memory_scope(%s::smallint, %s)", (space.id, row["scope_id"]))
        await connection.execute("INSERT INTO memory_large_scope VALUES (%s, %s)", (space.id, row["scope_id"]))
    assert set(ids) <= set(await embedded(database, MICRODAO))
    found = await memory.query(ask(MICRODAO, "tea", k=10, mode="vector"))
    assert set(ids) <= {one.id for one in found}

    await memory.forget(MICRODAO, AGENT, ids[0])
    assert ids[0] not in await embedded(database, MICRODAO)
    assert await memory.forget_matching(MICRODAO, AGENT, Filters(tiers=("mid_term",))) >= 4
    assert await counts(database, "memory_item", "memory_posting", "memory_embedding", "memory_use") == [0] * 4
    with pytest.raises(NotFound):
        await memory.forget(MICRODAO, AGENT, ids[1])


async def test_spaces_and_teams_come_and_go(services: Services):
    database = services.database
    async with database.system() as connection:
        added = await fetch_one(connection, "SELECT add_memory_space('another', 3, 'filling') AS id")
        assert added is not None
        await connection.execute("SELECT drop_memory_space(%s::smallint)", (added["id"],))
    async with database.tenant(MICRODAO) as connection:
        await connection.execute(
            "INSERT INTO team (microdao_id, team_id, name) VALUES (%s, 'team:x', 'X')", (MICRODAO,)
        )
        assert await fetch_all(connection, "SELECT 1 FROM memory_scope WHERE kind = 'team'")
        await connection.execute("DELETE FROM team")
        assert await fetch_all(connection, "SELECT 1 FROM memory_scope WHERE kind = 'team'") == []
