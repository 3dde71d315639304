"""Fixtures shared by all tests: the embedded Postgres of the session, a pool, and a fresh tenant for each test."""

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

from localstack.postgres import EmbeddedPostgres
from shared.bootstrap import Services
from shared.db.database import Database
from shared.ids import new_id
from shared.memory.embedding.e5 import MultilingualE5
from shared.policy.policy import Policy
from shared.settings import Settings, current_settings

# The suite says the same each time, however busy the machine is; `make soak` tries examples that nobody has tried.
UNTIMED = hypothesis_settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
hypothesis_settings.register_profile("suite", UNTIMED, derandomize=True)
hypothesis_settings.register_profile("soak", UNTIMED, max_examples=300)
hypothesis_settings.load_profile("suite")

# No test may reach a paid provider, whatever the developer's shell holds.
for name in [name for name in os.environ if name.endswith("_API_KEY") or name.endswith("_BASE_URL")]:
    del os.environ[name]


@pytest.fixture(scope="session")
def session_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for what lives as long as the test session."""
    return tmp_path_factory.mktemp("session")


@pytest.fixture(scope="session")
def postgres(session_folder: Path) -> Iterator[EmbeddedPostgres]:
    """The embedded Postgres, migrated."""
    server = EmbeddedPostgres(session_folder / "postgres")
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def database_url(postgres: EmbeddedPostgres) -> str:
    """The runtime login's URL."""
    return postgres.runtime_url


@pytest.fixture(scope="session")
async def database(database_url: str) -> AsyncIterator[Database]:
    """A pool of the session's event loop."""
    database = Database(database_url)
    yield database
    await database.close()


@pytest.fixture(scope="session")
async def side_database(database_url: str) -> AsyncIterator[Database]:
    """A second pool, for what is asked inside transactions."""
    database = Database(database_url, max_size=2)
    yield database
    await database.close()


@pytest.fixture
def policy(side_database: Database) -> Policy:
    """Permission, as a process asks for it."""
    return Policy(side_database)


@pytest.fixture(scope="session")
def models(session_folder: Path) -> Path:
    """The folder of the embedding model, built once for all tests of the session."""
    folder = session_folder / "home" / "models"
    MultilingualE5(folder).prepare()
    return folder


@pytest.fixture(scope="session")
def settings(database_url: str, session_folder: Path) -> Settings:
    """Settings of a process beside the session's database."""
    current_settings.cache_clear()
    return Settings(
        database_url=database_url, home=session_folder / "home", secret_key="test-secret-key", local_llm_base_url="none"
    )


@pytest.fixture
async def services(settings: Settings) -> AsyncIterator[Services]:
    """What a process would have beside the session's database."""
    services = Services(settings)
    yield services
    await services.close()


@pytest.fixture
async def empty_outbox(database: Database) -> None:
    """No jobs that other tests left unsent: those would crowd this test's queues."""
    async with database.system() as connection:
        await connection.execute("DELETE FROM outbox WHERE queue IN ('tool', 'memory')")


@pytest.fixture
async def microdao(database: Database) -> str:
    """A fresh tenant with the agent ``agent:sofia``."""
    return await _new_microdao(database)


@pytest.fixture
async def other_microdao(database: Database) -> str:
    """Another one."""
    return await _new_microdao(database)


async def _new_microdao(database: Database) -> str:
    microdao_id = f"microdao:{new_id('test')}"
    async with database.system() as connection:
        await connection.execute("INSERT INTO microdao (microdao_id, name) VALUES (%s, 'Test')", (microdao_id,))
        await connection.execute(
            "INSERT INTO agent (microdao_id, agent_id, name, blueprint_code)"
            " VALUES (%s, 'agent:sofia', 'Sofia', 'sofia')",
            (microdao_id,),
        )
    return microdao_id
