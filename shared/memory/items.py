"""One memory at a time: read, and changed in place. It keeps its id, its use and its place."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

from psycopg.errors import InsufficientPrivilege

from shared.cloud.outbox import Outbox
from shared.db.database import Connection, Database, Row
from shared.db.deadlocks import repeated_after_deadlocks
from shared.errors import Conflict, NotFound, Unauthorized
from shared.memory import store, store_changes
from shared.memory.content import check_change, check_user
from shared.memory.indexing import store_index
from shared.memory.intake import Intake, content_columns, enqueue_items
from shared.memory.model import MemoryChange, ScopeRef
from shared.memory.search.terms import LEXICON, item_terms


@dataclass(frozen=True, slots=True)
class _NewContent:
    """A content's columns, and its terms without those of the item's date."""

    columns: dict[str, Any]
    terms: Counter[str]


class Items:
    """Reads and changes single memories."""

    def __init__(self, database: Database, outbox: Outbox, intake: Intake) -> None:
        self._database = database
        self._outbox = outbox
        self._intake = intake

    async def get(self, microdao_id: str, agent_id: str, item_id: str, user_id: str | None = None) -> Row:
        """An item as it is stored; it may be that end user's. Raises NotFound, also for what the agent may not read."""
        check_user(user_id)
        async with self._database.agent(microdao_id, agent_id, user_id) as connection:
            row = await store.read_item(connection, item_id)
        if row is None:
            raise NotFound(f"there is no memory {item_id!r} that {agent_id} may read", param="item_id")
        return row

    @repeated_after_deadlocks
    async def change(self, change: MemoryChange) -> Row:
        """Change an item in one transaction; the item as it is then.

        Another content is found by its words at once, by meaning when the indexer has seen it, and the former one by
        neither; a summary that was made of the item goes, and what else it stood for is found itself again. Raises
        InvalidRequest, TooLarge, NotFound, Unauthorized for what the agent may only read, or Conflict for the content
        of a summary or of a document's passage.
        """
        check_change(change)
        new = await asyncio.to_thread(_new_content, change.content) if change.content is not None else None
        with _taken_away(change):
            async with self._acting(change) as (connection, scope_id):
                item = await _hold(connection, change, scope_id)
                if new is not None and new.columns["content_hash"] != item["content_hash"]:
                    await _replace_content(connection, item, new)
                row = await _adjust(connection, change)
        await self._outbox.committed()
        return row

    @asynccontextmanager
    async def _acting(self, change: MemoryChange) -> AsyncIterator[tuple[Connection, int | None]]:
        """The transaction of a change, and the one scope that it is bound to, if any."""
        place = change.microdao_id, change.agent_id
        if change.by_admin:
            everyones = ScopeRef("microdao", change.microdao_id)
            async with self._intake.writing(*place, everyones, by_admin=True) as (connection, scope_id):
                yield connection, scope_id
            return
        async with self._database.agent(*place, change.user_id) as connection:
            yield connection, None


async def _hold(connection: Connection, change: MemoryChange, scope_id: int | None) -> Row:
    item = await store_changes.hold_item(connection, change.item_id, scope_id)
    if item is None and not change.by_admin and await store.read_item(connection, change.item_id):
        item = await store_changes.hold_item(connection, change.item_id, scope_id)  # it may have come meanwhile
        if item is None:
            raise Unauthorized(
                f"{change.agent_id} may read {change.item_id} but not change it; what is everybody's"
                " an admin changes with scope=microdao"
            )
    if item is None:
        raise NotFound(f"there is no memory {change.item_id!r} that {change.agent_id} may change", param="item_id")
    return item


async def _replace_content(connection: Connection, item: Row, new: _NewContent) -> None:
    _check_replaceable(item)
    await store_changes.replace_content(connection, item["id"], new.columns)
    terms = new.terms + item_terms("", None, item["occurred_at"])
    await store_index.replace_postings(connection, item["number"], terms, LEXICON)
    await enqueue_items(connection, item["microdao_id"], [item["id"]])


async def _adjust(connection: Connection, change: MemoryChange) -> Row:
    changes = {
        "importance": None if change.importance is None else round(change.importance, 6),
        "sets_expiry": change.sets_expiry,
        "expires_at": change.expires_at,
    }
    is_changed = await store_changes.adjust(connection, change.item_id, changes)
    row = await store_changes.read_changed(connection, change.item_id) if is_changed else None
    if row is None:
        raise _no_longer(change)
    return row


def _check_replaceable(item: Mapping[str, Any]) -> None:
    """A passage belongs to its document's text and a summary to its sources': what they say is changed there."""
    if item["document_id"] is not None:
        raise Conflict(
            f"{item['id']} is a passage of a document: add the document as it shall be and delete"
            f" {item['document_id']}. importance and expires_at may be changed",
            param="content",
        )
    if item["is_summary"]:
        raise Conflict(
            f"{item['id']} is a summary: change one of the memories that it stands for (content.context.sources), or"
            " delete it, and they are found themselves again. importance and expires_at may be changed",
            param="content",
        )


def _new_content(content: Mapping[str, Any]) -> _NewContent:
    columns = content_columns(content)
    return _NewContent(columns, item_terms(columns["text"], columns["author"]))


@contextmanager
def _taken_away(change: MemoryChange) -> Iterator[None]:
    """The right to write may go between the look and the write; the database then refuses."""
    try:
        yield
    except InsufficientPrivilege:
        raise _no_longer(change) from None


def _no_longer(change: MemoryChange) -> Unauthorized:
    return Unauthorized(f"{change.agent_id} may not change {change.item_id} any more")
