"""A tenant's catalogue for tests of tool search, and the parts of the product over it."""

from dataclasses import dataclass

from psycopg.types.json import Jsonb

from shared.cloud.outbox import Outbox
from shared.db.database import Database, fetch_all
from shared.ids import new_id
from shared.memory.embedding.embedders import Embedders
from shared.memory.embedding.spaces import Spaces
from shared.tools.search.indexer import ToolIndexer
from shared.tools.search.model import IndexToolsJob, ToolQuery
from shared.tools.search.searcher import ToolSearch
from tests.embeddings import BagOfWords, add_tenant

SOFIA = "agent:sofia"

_VERSION = """
INSERT INTO tool_version (microdao_id, tool_id, version, definition_hash, description, parameters, risk, executor,
    config, timeout_ms, idempotent, environments)
VALUES (current_microdao(), %(id)s, %(version)s, %(description)s, %(description)s, %(parameters)s, %(risk)s,
    %(executor)s, '{}', 1000, true, %(environments)s)
"""


@dataclass
class Shop:
    """One tenant with agent ``agent:sofia``."""

    database: Database
    embedder: BagOfWords
    spaces: Spaces
    indexer: ToolIndexer
    search: ToolSearch
    microdao: str

    def other_process(self) -> ToolSearch:
        """Search as another process has it: nothing is shared but the database."""
        return ToolSearch(self.database, Spaces(self.database, Embedders(self.embedder)), "dev")

    async def add(self, name: str, description: str = "", *, granted: bool = True, **fields: object) -> str:
        """A tool; its id."""
        tool_id = new_id("tool")
        async with self.database.tenant(self.microdao) as connection:
            await connection.execute("INSERT INTO tool VALUES (%s, current_microdao(), %s, 1)", (tool_id, name))
        await self.add_version(tool_id, 1, description or name, **fields)
        if granted:
            await self.run("INSERT INTO tool_grant VALUES (current_microdao(), %s, %s)", SOFIA, tool_id)
        return tool_id

    async def add_version(self, tool_id: str, version: int, description: str, **fields: object) -> None:
        """Another version, not active."""
        given = {"risk": "A", "executor": "builtin", "parameters": {}, "environments": [], **fields}
        given["parameters"] = Jsonb(given["parameters"])
        async with self.database.tenant(self.microdao) as connection:
            await connection.execute(_VERSION, {"id": tool_id, "version": version, "description": description, **given})

    async def run(self, statement: str, *parameters: object) -> list[dict]:
        """A statement of the tenant."""
        async with self.database.tenant(self.microdao) as connection:
            cursor = await connection.execute(statement, parameters)
            return await cursor.fetchall() if cursor.description else []

    async def jobs(self) -> list[IndexToolsJob]:
        """The jobs in the outbox."""
        rows = await self.run("SELECT id, body FROM outbox WHERE queue = 'memory' ORDER BY id")
        return [
            IndexToolsJob(f"message-{row['id']}", row["body"]["job_id"], self.microdao, tuple(row["body"]["tool_ids"]))
            for row in rows
        ]

    async def index(self) -> set[str]:
        """Deliver every job; what is to be delivered again."""
        return await self.indexer.index(await self.jobs())

    async def find(
        self, text: str, *, agent: str = SOFIA, search: ToolSearch | None = None, **fields: object
    ) -> list[str]:
        """The names found."""
        query = ToolQuery(microdao_id=self.microdao, agent_id=agent, text=text, **fields)
        return [tool.name for tool in (await (search or self.search).search(query)).tools]

    async def score(self, text: str, name: str) -> float:
        """A tool's score."""
        query = ToolQuery(microdao_id=self.microdao, agent_id=SOFIA, text=text, k=100)
        return next(tool.score for tool in (await self.search.search(query)).tools if tool.name == name)


async def open_shop(database: Database, embedder: BagOfWords, *agents: str) -> Shop:
    """A fresh tenant."""
    spaces = Spaces(database, Embedders(embedder))
    indexer = ToolIndexer(database, Outbox(database, {}, inline=True), spaces)
    microdao = await add_tenant(database, f"microdao:{new_id('shop')}", SOFIA, *agents)
    return Shop(database, embedder, spaces, indexer, ToolSearch(database, spaces, "dev"), microdao)


async def every_row(database: Database, statement: str) -> list[dict]:
    """Rows across tenants."""
    async with database.system() as connection:
        return await fetch_all(connection, statement)
