"""Channels: messages as they come are short-term memory, read by time; their history becomes mid-term memory."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from shared.db.database import Connection, Database, Row
from shared.db.deadlocks import repeated_after_deadlocks
from shared.errors import InvalidRequest
from shared.ids import derived_id, new_id
from shared.llm.tokens import estimate_tokens
from shared.memory import store, store_channels
from shared.memory.content import check_user
from shared.memory.intake import Intake, enqueue_items, item_row, scope_key, scope_of
from shared.memory.model import Filters, Listing, NewMemory, ScopeRef

_MOST_READ = 500  # messages that are looked at for a budget
_HISTORY_BATCH = 256  # messages of a channel that are queued at once
_SHORT_TERM_FOR = timedelta(days=1)
"""So long a message is short-term memory; then it is history, which mid-term memory holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """Something said in a channel. ``id`` is the channel's own: the same id is kept once."""

    text: str
    author: str | None = None
    id: str | None = None
    occurred_at: datetime | None = None
    context: dict[str, Any] | None = None


class Channels:
    """What is said in channels, as part of an agent's, a team's or the microDAO's memory."""

    def __init__(self, database: Database, intake: Intake) -> None:
        self._database = database
        self._intake = intake

    @repeated_after_deadlocks
    async def post(
        self,
        microdao_id: str,
        agent_id: str,
        channel_id: str,
        messages: Sequence[Message],
        scope: ScopeRef | None = None,
        *,
        by_admin: bool = False,
    ) -> list[str]:
        """Keep messages all or none; their items' ids in order. Raises as :meth:`Intake.store`."""
        template = NewMemory(
            microdao_id=microdao_id,
            agent_id=agent_id,
            tier="short_term",
            content={},
            scope=scope,
            channel_id=channel_id,
            source="channel",
        )
        rows = await asyncio.to_thread(lambda: [_row(template, message) for message in messages])
        place = microdao_id, agent_id, scope_of(template)
        async with self._intake.writing(*place, by_admin=by_admin) as (connection, scope_id):
            # Locked before numbers are given, so that they are committed in their order and none is passed over.
            await store_channels.lock_channel(connection, scope_id, channel_id)
            await store.insert_items(connection, [row | {"scope_id": scope_id} for row in rows])
            await _queue_history(connection, microdao_id, scope_id, channel_id)
        return [row["id"] for row in rows]

    async def recent(
        self,
        microdao_id: str,
        agent_id: str,
        filters: Filters,
        *,
        user_id: str | None = None,
        max_tokens: int,
        limit: int = _MOST_READ,
        characters: int | None = None,
    ) -> list[Row]:
        """The newest items of a channel or session that fit into so many tokens together, oldest first.

        ``user_id``: with that end user's memory. ``characters`` cuts each text before it is counted.
        """
        check_user(user_id)
        if not (filters.channel_id or filters.session_id):
            raise InvalidRequest("name a channel_id or a session_id", param="channel_id")
        listing = Listing(microdao_id=microdao_id, agent_id=agent_id, filters=filters, limit=limit)
        async with self._database.agent(microdao_id, agent_id, user_id) as connection:
            rows = await store.list_items(connection, listing)
        kept: list[Row] = []
        for row in rows:
            text = row["text"][:characters]
            max_tokens -= (tokens := estimate_tokens(text))
            if max_tokens < 0:
                break
            kept.append({**row, "text": text, "tokens": tokens})
        return kept[::-1]

    async def index_history(self) -> int:
        """Queue what channels hold beyond their watermark, and let old messages become mid-term memory (all tenants).

        The number of messages queued.
        """
        queued = 0
        async with self._database.system() as connection:
            await store_channels.promote(connection, _SHORT_TERM_FOR)
            for channel in await store_channels.channels_behind(connection):
                place = channel["microdao_id"], channel["scope_id"], channel["channel_id"]
                queued += await _queue_history(connection, *place)
        return queued


async def _queue_history(connection: Connection, microdao_id: str, scope_id: int, channel_id: str) -> int:
    """Write the jobs for what lies beyond a channel's watermark and move it, in the caller's transaction."""
    total = 0
    while item_ids := await store_channels.advance(connection, scope_id, channel_id, _HISTORY_BATCH):
        await enqueue_items(connection, microdao_id, item_ids)
        total += len(item_ids)
    return total


def _row(template: NewMemory, message: Message) -> dict[str, Any]:
    named = {"author": message.author, "message_id": message.id}
    context = (message.context or {}) | {name: value for name, value in named.items() if value}
    content = {"text": message.text} | ({"context": context} if context else {})
    # Sent again, it is what is there, though that was changed since: neither its text nor its expiry come back.
    row = item_row(replace(template, content=content, occurred_at=message.occurred_at), renews=False)
    if message.id:  # the channel's own id names the message, whatever it says now
        scope = scope_of(template)
        place = (template.microdao_id, *scope_key(scope, template.agent_id), template.channel_id or "")
        row["id"] = derived_id("mem", "message", *place, message.id)
    elif message.occurred_at is None:  # nothing tells it from the same words said before
        row["id"] = new_id("mem")
    return row
