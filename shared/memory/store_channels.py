"""The SQL of channels and their watermarks."""

from datetime import timedelta
from typing import Final

from shared.db.database import Connection, Row, fetch_all

_LOCK: Final = """
INSERT INTO memory_channel AS c (scope_id, channel_id) VALUES (%(scope_id)s, %(channel_id)s)
ON CONFLICT (scope_id, channel_id) DO UPDATE SET last_message_at = now()
"""

_ADVANCE: Final = """
WITH beyond AS (
    SELECT i.id, i.number FROM memory_item i
    WHERE i.scope_id = %(scope_id)s AND i.channel_id = %(channel_id)s AND i.source = 'channel'
      AND i.number > (
        SELECT queued_to FROM memory_channel WHERE scope_id = %(scope_id)s AND channel_id = %(channel_id)s)
    ORDER BY i.number LIMIT %(limit)s),
moved AS (
    UPDATE memory_channel SET queued_to = (SELECT max(number) FROM beyond)
    WHERE scope_id = %(scope_id)s AND channel_id = %(channel_id)s AND EXISTS (SELECT 1 FROM beyond))
SELECT id FROM beyond ORDER BY number
"""

_BEHIND: Final = """
SELECT c.scope_id, c.channel_id, s.microdao_id FROM memory_channel c JOIN memory_scope s USING (scope_id)
WHERE EXISTS (
    SELECT 1 FROM memory_item i WHERE i.scope_id = c.scope_id AND i.channel_id = c.channel_id AND i.source = 'channel'
      AND i.number > c.queued_to)
ORDER BY c.scope_id, c.channel_id FOR UPDATE OF c SKIP LOCKED
"""


async def lock_channel(connection: Connection, scope_id: int, channel_id: str) -> None:
    """Keep others from this channel until the transaction ends."""
    await connection.execute(_LOCK, {"scope_id": scope_id, "channel_id": channel_id})


async def advance(connection: Connection, scope_id: int, channel_id: str, limit: int) -> list[str]:
    """Move the watermark of a locked channel over its next messages; their items' ids."""
    place = {"scope_id": scope_id, "channel_id": channel_id, "limit": limit}
    return [row["id"] for row in await fetch_all(connection, _ADVANCE, place)]


async def channels_behind(connection: Connection) -> list[Row]:
    """Channels with messages beyond their watermark, locked (system role)."""
    return await fetch_all(connection, _BEHIND)


async def promote(connection: Connection, older_than: timedelta) -> int:
    """Turn old channel messages into mid-term memory; how many (system role)."""
    cursor = await connection.execute(
        "UPDATE memory_item SET tier = 'mid_term' WHERE id = ANY(ARRAY("
        " SELECT id FROM memory_item WHERE tier = 'short_term' AND source = 'channel' AND created_at < now() - %s"
        " ORDER BY id LIMIT 1000 FOR UPDATE SKIP LOCKED))",
        (older_than,),
    )
    return cursor.rowcount
