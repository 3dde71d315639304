"""The subject: a database of its own, tools and grants in it, and the product's search and indexer over it."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from psycopg.types.json import Jsonb

from bench.tool_search.kept import KeptModel
from bench.tool_search.sets import BenchTool
from localstack.postgres import EmbeddedPostgres
from shared.cloud.outbox import Outbox
from shared.db.database import Database, fetch_all
from shared.memory.embedding.caches import RecentVectors
from shared.memory.embedding.e5 import MultilingualE5
from shared.memory.embedding.embedders import Embedders
from shared.memory.embedding.port import LocalEmbedder
from shared.memory.embedding.spaces import Spaces
from shared.tools.search.indexer import ToolIndexer
from shared.tools.search.model import IndexToolsJob
from shared.tools.search.searcher import ToolSearch

_REMEMBERED = 50_000
"""Requests and clauses whose vectors stay at hand, so that what is measured comes after embedding."""

_ROWS = 1000
_TOOLS = """
INSERT INTO tool (id, microdao_id, name, active_version)
SELECT id, %(microdao)s, name, 1 FROM jsonb_to_recordset(%(tools)s) AS t (id text, name text)
"""
_VERSIONS = """
INSERT INTO tool_version (microdao_id, tool_id, version, definition_hash, description, parameters, risk, executor,
    config, timeout_ms, idempotent)
SELECT %(microdao)s, id, 1, 'bench', description, parameters, 'A', 'builtin', '{}', 1000, true
FROM jsonb_to_recordset(%(tools)s) AS t (id text, description text, parameters jsonb)
"""
_GRANTS = """
INSERT INTO tool_grant (microdao_id, agent_id, tool_id)
SELECT %(microdao)s, %(agent)s, id FROM tool WHERE name = ANY(%(names)s)
"""

ALL = "agent:all"
"""The agent that is granted every tool."""


@dataclass(frozen=True, slots=True)
class Stack:
    """The product's parts over one database."""

    database: Database
    spaces: Spaces
    indexer: ToolIndexer
    model: KeptModel

    def search(self) -> ToolSearch:
        """A search whose indexes are not read yet, as in a new process."""
        return ToolSearch(self.database, self.spaces, "dev")

    async def add_tools(self, microdao: str, tools: Sequence[BenchTool]) -> None:
        """A microDAO with these tools, all granted to ``ALL``."""
        async with self.database.system() as connection:
            await connection.execute("INSERT INTO microdao (microdao_id, name) VALUES (%s, 'bench')", (microdao,))
        rows = [{"id": f"{microdao}:{number}", **asdict(tool)} for number, tool in enumerate(tools)]
        async with self.database.tenant(microdao) as connection:
            for start in range(0, len(rows), _ROWS):
                part = {"microdao": microdao, "tools": Jsonb(rows[start : start + _ROWS])}
                await connection.execute(_TOOLS, part)
                await connection.execute(_VERSIONS, part)
        await self.grant(microdao, {ALL: [tool.name for tool in tools]})

    async def grant(self, microdao: str, grants: Mapping[str, Sequence[str]]) -> None:
        """New agents with these tools each."""
        async with self.database.tenant(microdao) as connection:
            for agent, names in grants.items():
                await connection.execute("INSERT INTO agent VALUES (%s, %s, 'Bench', 'sofia')", (microdao, agent))
                await connection.execute(_GRANTS, {"microdao": microdao, "agent": agent, "names": list(names)})

    async def index(self, microdao: str) -> None:
        """Deliver the microDAO's jobs to the indexer, as the queue would. Raises RuntimeError when one fails."""
        async with self.database.tenant(microdao) as connection:
            rows = await fetch_all(connection, "SELECT body FROM outbox WHERE queue = 'memory' ORDER BY id")
        for number, body in enumerate(row["body"] for row in rows):
            job = IndexToolsJob(str(number), body["job_id"], microdao, tuple(body["tool_ids"]))
            if await self.indexer.index([job]):
                raise RuntimeError(f"{microdao}: a job could not be done")
        self.model.save()


@contextmanager
def running_stack(folder: Path, scratch: Path) -> Iterator[Stack]:
    """A fresh database under ``scratch``; models and vectors are kept in ``folder``."""
    postgres = EmbeddedPostgres(scratch / "postgres")
    postgres.start()
    try:
        database = Database(postgres.runtime_url)
        model = KeptModel(MultilingualE5(folder / "models"), folder / "vectors.npz")
        spaces = Spaces(database, Embedders(LocalEmbedder(model)))
        spaces.recent = RecentVectors(_REMEMBERED)
        yield Stack(database, spaces, ToolIndexer(database, Outbox(database, {}), spaces), model)
        run(database.close())
        model.save()
    finally:
        postgres.stop()


def run(coroutine: Any) -> Any:
    """Run a coroutine to its end in the one event loop of this process, which the pool belongs to."""
    return _LOOP.run_until_complete(coroutine)


_LOOP = asyncio.new_event_loop()
