"""The texts by which an item is found by meaning. Pure."""

from datetime import datetime
from typing import Any

from shared.memory.documents.split import split_text

_MOST = 8  # vectors an item may have; what a longer text says further on is found by its words
_TOKENS = 200


def item_passages(row: dict[str, Any]) -> list[str]:
    """One text per vector: the day, the document's title and a part of the text, as far as there are any."""
    head = " ".join(part for part in (_day(row["occurred_at"]), row["title"]) if part)
    return [f"{head}: {part}" for part in split_text(row["text"], _TOKENS)[:_MOST]]


def _day(moment: datetime) -> str:
    return f"{moment.day} {moment:%B %Y}"
