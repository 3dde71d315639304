"""``search_docs`` and ``document.create``: what was uploaded as documents, and the help pages."""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from shared.db.database import Database, Row
from shared.memory.model import Filters, MemoryQuery, Recollection, ScopeRef
from shared.tools.builtin import store
from shared.tools.model import Invocation, Tool

if TYPE_CHECKING:
    from shared.memory.memory import Memory

_DEFAULT_K = 5
_FLOOR = 0.3
"""Passages of documents that score less are noise, as in what agents recall."""
_SNIPPET_CHARACTERS = 600
_WORD = re.compile(r"\w+")


class Documents:
    """The documents that an agent may read: those of memory, and its microDAO's help pages."""

    def __init__(self, database: Database, memory: "Callable[[], Memory]") -> None:
        self._database = database
        self._memory = memory

    async def search(self, tool: Tool, args: dict[str, Any], invocation: Invocation) -> object:
        """The passages that match best, with scores (0 unrelated to 1 the same) and the query's words they hold."""
        query, k = args["query"], int(args.get("k", _DEFAULT_K))
        asked = MemoryQuery(
            microdao_id=invocation.microdao_id,
            agent_id=invocation.agent_id,
            query=query,
            user_id=invocation.user_id,
            k=k,
            filters=Filters(documents_only=True),
        )
        found = [_passage(one, query) for one in await self._memory().query(asked) if one.score >= _FLOOR]
        async with self._database.tenant(invocation.microdao_id) as connection:
            pages = await store.search_documents(connection, query, k)
        ranked = sorted([*found, *map(_page, pages)], key=lambda entry: -entry["score"])
        return {"results": ranked[:k]}

    async def create(self, tool: Tool, args: dict[str, Any], invocation: Invocation) -> object:
        """Keep a text as a document of the agent's own, or for its end user; the same text is the same document."""
        from shared.memory.documents.documents import NewDocument

        row = await self._memory().documents.add(
            NewDocument(
                microdao_id=invocation.microdao_id,
                agent_id=invocation.agent_id,
                data=args["text"].encode(),
                media_type="text/markdown",
                title=args["title"].strip(),
                source=args.get("source"),
                scope=ScopeRef("user", invocation.user_id) if invocation.user_id else None,
            )
        )
        return {"id": row["id"], "title": row["title"], "passages": row["chunks"]}


def _passage(found: Recollection, query: str) -> dict[str, Any]:
    said = set(_words(found.text))
    return {
        "id": found.document_id,
        "title": found.content.get("title", ""),
        "source": found.source or "",
        "snippet": found.text[:_SNIPPET_CHARACTERS],
        "matched": sorted({word for word in _words(query) if word in said}),
        "score": round(found.score, 4),
    }


def _page(row: Row) -> dict[str, Any]:
    kept = ("id", "title", "source", "snippet", "matched")
    return {**{field: row[field] for field in kept}, "score": round(row["score"], 4)}


def _words(text: str) -> list[str]:
    return [match.group().lower() for match in _WORD.finditer(text)]
