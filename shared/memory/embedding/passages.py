"""The texts by which an item is found by meaning. Pure."""

from typing import Any

from shared.memory.documents.chunk import chunk_blocks
from shared.memory.documents.model import Block, ParsedDocument

MOST_PASSAGES = 8
"""Vectors an item may have; what a longer text says further on is found by its words."""


def item_passages(row: dict[str, Any]) -> list[str]:
    """One text per vector: the document's title, if any, and a part of the text."""
    head = f"{row['title']}: " if row["title"] else ""
    whole = ParsedDocument(None, (Block("paragraph", row["text"]),))
    return [head + part.text for part in chunk_blocks(whole, overlap_tokens=0)[:MOST_PASSAGES]]
