"""``search_docs``."""

from typing import Any

from shared.db.database import Connection
from shared.tools.builtin import store
from shared.tools.model import Invocation

_DEFAULT_K = 5


async def search_docs(connection: Connection, args: dict[str, Any], invocation: Invocation) -> object:
    """The passages that match best, with their scores (above 0, higher is better) and the query's words they hold."""
    rows = await store.search_documents(connection, args["query"], int(args.get("k", _DEFAULT_K)))
    kept = ("id", "title", "source", "snippet", "matched")
    return {"results": [{**{field: row[field] for field in kept}, "score": round(row["score"], 4)} for row in rows]}
