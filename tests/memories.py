"""What tests of memory share: making items and questions, and delivering the indexer's jobs by hand."""

from typing import Any

from shared.db.database import Database, fetch_all
from shared.memory.memory import Memory
from shared.memory.model import Filters, IndexJob, MemoryQuery, NewMemory

AGENT = "agent:sofia"


def new(microdao: str, text: str, **fields: Any) -> NewMemory:
    """A mid-term memory of Sofia's."""
    defaults = {"microdao_id": microdao, "agent_id": AGENT, "tier": "mid_term", "content": {"text": text}}
    return NewMemory(**{**defaults, **fields})


def ask(microdao: str, query: str, **fields: Any) -> MemoryQuery:
    """A question of Sofia's; fields of Filters may be given beside those of the query."""
    names = set(Filters.__dataclass_fields__) & set(fields)
    filters = Filters(**{name: fields.pop(name) for name in names})
    return MemoryQuery(**{"microdao_id": microdao, "agent_id": AGENT, "query": query, "filters": filters, **fields})


async def queued(database: Database, microdao: str) -> list[IndexJob]:
    """The index jobs of a tenant that are still in the outbox."""
    async with database.tenant(microdao) as connection:
        # The largest first: ids made in the same millisecond have no order.
        rows = await fetch_all(
            connection,
            "SELECT body FROM outbox WHERE body ? 'item_ids' ORDER BY jsonb_array_length(body->'item_ids') DESC, id",
        )
    bodies = [row["body"] for row in rows]
    return [
        IndexJob(
            f"message-{number}", body["job_id"], body["microdao_id"], tuple(body["item_ids"]), body.get("reindex_id")
        )
        for number, body in enumerate(bodies)
    ]


async def index_all(memory: Memory, database: Database, microdao: str) -> None:
    """Deliver every job once; all must succeed."""
    assert await memory.index(await queued(database, microdao)) == set()


async def embedded(database: Database, microdao: str) -> list[str]:
    """The ids of items with an embedding, one for each vector."""
    async with database.tenant(microdao) as connection:
        rows = await fetch_all(
            connection, "SELECT i.id FROM memory_embedding e JOIN memory_item i ON i.number = e.item ORDER BY 1"
        )
    return [row["id"] for row in rows]


async def age(database: Database, microdao: str, days: float, *ids: str) -> None:
    """Let items (or a document with its chunks) have been stored so many days ago."""
    async with database.tenant(microdao) as connection:
        for table, column in (("memory_item", "id"), ("memory_item", "document_id"), ("memory_document", "id")):
            await connection.execute(
                f"UPDATE {table} SET created_at = now() - %s * interval '1 day' WHERE {column} = ANY(%s)",
                (days, list(ids)),
            )


async def kept(database: Database, microdao: str) -> set[str]:
    """The ids of all items that are there."""
    async with database.tenant(microdao) as connection:
        return {row["id"] for row in await fetch_all(connection, "SELECT id FROM memory_item")}
