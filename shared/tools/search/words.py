"""Gives tools their words. Whoever needs them first does it: a tool is found by words from the moment it is made."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from shared.db.database import Connection, Row
from shared.tools.search import store_entries
from shared.tools.search.text import LEXICON, tool_terms, tool_views, views_hash

_AT_ONCE: Final = 256
"""Some tenths of a second."""

_MOST_FREQUENT: Final = 32_767


async def add_words(connection: Connection, tool_ids: Sequence[str] | None = None) -> int:
    """Give up to 256 tools of the transaction's microDAO (of these) their words, if they lack them; how many."""
    rows = await store_entries.lock_wordless(connection, LEXICON, _AT_ONCE, tool_ids)
    if rows:
        words = await asyncio.to_thread(_words_of, rows)
        await store_entries.write_words(connection, LEXICON, words)
    return len(rows)


def _words_of(rows: Sequence[Row]) -> list[dict[str, Any]]:
    return [_words(row["entry"], row["name"], row["description"], row["parameters"]) for row in rows]


def _words(entry: int, name: str, description: str, parameters: dict[str, Any]) -> dict[str, Any]:
    terms = tool_terms(name, description, parameters)
    return {
        "entry": entry,
        "terms": list(terms),
        "frequencies": [min(count, _MOST_FREQUENT) for count in terms.values()],
        "text_hash": views_hash(tool_views(name, description, parameters)).hex(),
    }
