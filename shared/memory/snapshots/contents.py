"""A snapshot's file as rows of the memory that it is to be restored into. Pure."""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from shared.errors import ApiError
from shared.memory.documents.documents import chunk_id, document_id
from shared.memory.intake import item_columns
from shared.memory.model import NewMemory, ScopeRef
from shared.memory.snapshots.file import SnapshotFile, read_file
from shared.memory.snapshots.lines import DocumentLine, ItemLine
from shared.memory.snapshots.plan import Prepared


@dataclass(slots=True)
class Contents:
    """What belongs into one scope."""

    documents: list[dict[str, Any]] = field(default_factory=list)
    items: list[Prepared] = field(default_factory=list)


def read_contents(microdao_id: str, agent_id: str, data: bytes) -> dict[str | None, Contents]:
    """Everything checked, before anything is written: what is the agent's own (None), and what each user's.

    Raises InvalidRequest or TooLarge, naming the line.
    """
    file: SnapshotFile = read_file(data)
    contents: dict[str | None, Contents] = defaultdict(Contents)
    ids: dict[str, str] = {}
    for document in file.documents:
        scope = _scope(agent_id, document.user_id)
        ids[document.id] = document_id(microdao_id, agent_id, scope, document.media_type, document.content_hash)
        contents[document.user_id].documents.append(_document_row(microdao_id, agent_id, document, ids[document.id]))
    file.items.reverse()
    while file.items:  # what has become a row is let go: a large file need not be in memory twice
        item = file.items.pop()
        contents[item.user_id].items.append(_prepare(microdao_id, agent_id, item, ids))
    return contents


def _scope(agent_id: str, user_id: str | None) -> ScopeRef:
    return ScopeRef("agent", agent_id) if user_id is None else ScopeRef("user", user_id)


def _document_row(microdao_id: str, agent_id: str, document: DocumentLine, own_id: str) -> dict[str, Any]:
    return {
        "id": own_id,
        "microdao_id": microdao_id,
        "agent_id": agent_id,
        "title": document.title,
        "source": document.source,
        "media_type": document.media_type,
        "content_hash": document.content_hash,
        "characters": document.characters,
        "chunks": document.chunks,
        "metadata": document.metadata,
        "created_at": document.created_at,
    }


def _prepare(microdao_id: str, agent_id: str, item: ItemLine, document_ids: dict[str, str]) -> Prepared:
    more: dict[str, Any] = {"id": item.id, "created_at": item.created_at, "position": item.position}
    if item.document_id is not None:
        more["document_id"] = document_ids[item.document_id]
        if item.position is not None:
            more["id"] = chunk_id(more["document_id"], item.position)
            more |= {"kept_text": text} if isinstance(text := item.content.get("text"), str) and text.strip() else {}
    memory = NewMemory(
        microdao_id=microdao_id,
        agent_id=agent_id,
        tier=item.tier,
        content=item.content,
        scope=_scope(agent_id, item.user_id),
        importance=item.importance,
        channel_id=item.channel_id,
        session_id=item.session_id,
        occurred_at=item.occurred_at,
        expires_at=item.expires_at,
        source=item.source,
    )
    try:
        columns = item_columns(memory)
    except ApiError as error:
        raise type(error)(f"line {item.line}: {error.message}", param=error.param) from None
    row = {**columns, "kept_text": columns["text"], **more}
    return Prepared(item.id, row, item.summary_id, item.is_chunk)
