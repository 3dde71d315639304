"""Stand-ins for embedding models in tests: cheap, deterministic, and refusing on command; and a database to change
models in without disturbing others."""

import zlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import psycopg

from localstack.postgres import RUNTIME_LOGIN, EmbeddedPostgres
from shared.cloud.outbox import Outbox
from shared.db.database import Database
from shared.db.migrate import migrate
from shared.ids import new_id
from shared.memory.embedding.embedders import Embedders
from shared.memory.embedding.spaces import Spaces
from shared.memory.memory import Memory
from tests.fakes.openai_server import FakeOpenAI

_TEMPLATE = "own_template"


def bag_of_words(text: str, dimensions: int) -> list[float]:
    """How often each word stands in the text, hashed to so many numbers; not of length 1."""
    vector = [0.0] * dimensions
    for word in text.casefold().split():
        vector[zlib.crc32(word.encode()) % dimensions] += 1.0
    return vector


class BagOfWords:
    """An embedding model in this process. ``refuses`` and ``fails`` are words in texts that it does not take."""

    cosines = (0.0, 0.9)
    is_at_hand = True

    def __init__(self, model: str, dimensions: int = 64) -> None:
        self.model = model
        self.size = dimensions
        self.asked: list[str] = []
        self.refuses = ""
        self.error: Exception = ValueError("this text cannot be embedded")

    async def dimensions(self, microdao_id: str = "") -> int:
        return self.size

    async def prepare(self) -> None:
        return

    async def warm(self) -> None:
        return

    async def embed(self, texts: Sequence[str], purpose: str, microdao_id: str) -> list[list[float]]:
        if self.refuses and any(self.refuses in text for text in texts):
            raise self.error
        self.asked += texts
        return [_normalised(bag_of_words(text, self.size)) for text in texts]


class FakeEmbeddings(FakeOpenAI):
    """A provider whose embeddings are bags of words, and not of length 1."""

    def __init__(self, dimensions: int = 48) -> None:
        super().__init__()
        self.dimensions = dimensions

    @property
    def texts(self) -> list[list[str]]:
        """What came in, call by call."""
        return [one.body["input"] for one in self.requests]

    def whole(self, body: dict[str, Any], reply: Any) -> dict[str, Any]:
        made = super().whole(body, reply)
        for entry, text in zip(made["data"], body["input"], strict=True):
            entry["embedding"] = bag_of_words(text, self.dimensions)
        return made


@asynccontextmanager
async def simple_memory(database: Database) -> AsyncIterator[Memory]:
    """Memory with one such model. Jobs stay in the outbox: tests deliver them by hand."""
    outbox = Outbox(database, {})
    yield Memory(database, outbox, Spaces(database, Embedders(BagOfWords("a-model"))))
    await outbox.close()


@asynccontextmanager
async def own_database(postgres: EmbeddedPostgres, **pool: Any) -> AsyncIterator[Database]:
    """A migrated database beside the session's, whose embedding spaces are the test's own; options of its pool."""
    name = new_id("own")
    with psycopg.connect(postgres.admin_url, autocommit=True) as connection:
        if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (_TEMPLATE,)).fetchone():
            connection.execute(f"CREATE DATABASE {_TEMPLATE}")
            migrate(beside(postgres.admin_url, _TEMPLATE), runtime_login=RUNTIME_LOGIN)
        connection.execute(f'CREATE DATABASE "{name}" TEMPLATE {_TEMPLATE}')
    database = Database(beside(postgres.runtime_url, name), **pool)
    yield database
    await database.close()


async def add_tenant(database: Database, microdao_id: str, *agents: str) -> str:
    """A tenant with agents."""
    async with database.system() as connection:
        await connection.execute("INSERT INTO microdao (microdao_id, name) VALUES (%s, 'Test')", (microdao_id,))
        for agent in agents:
            await connection.execute("INSERT INTO agent VALUES (%s, %s, 'Test', 'sofia')", (microdao_id, agent))
    return microdao_id


def beside(url: str, name: str) -> str:
    """The URL of another database of the same server."""
    return f"{url.rpartition('/')[0]}/{name}"


def _normalised(vector: list[float]) -> list[float]:
    length = sum(value * value for value in vector) ** 0.5
    return [value / length for value in vector]
