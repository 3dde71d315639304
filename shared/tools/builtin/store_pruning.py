"""SQL that removes old notifications, deliveries and follow-ups, of every microDAO (system role)."""

from shared.db.database import Connection

# A delivery goes with its notification. What still has a way to go (a delivery that waits, words to be said in a
# channel) keeps it.
_NOTIFICATIONS = """
DELETE FROM notification WHERE id = ANY(ARRAY(
    SELECT id FROM notification n
    WHERE (n.created_at < now() - make_interval(days => %(days)s)
        OR n.read_at < now() - make_interval(days => %(read_days)s))
      AND NOT EXISTS (SELECT 1 FROM webhook_delivery d WHERE d.notification_id = n.id AND d.state = 'waiting')
      AND NOT EXISTS (
        SELECT 1 FROM outbox o WHERE o.queue = %(queue)s AND o.body->>'notification_id' = n.id)
    LIMIT %(limit)s FOR UPDATE SKIP LOCKED))
"""

_DELIVERED = """
DELETE FROM webhook_delivery WHERE id = ANY(ARRAY(
    SELECT id FROM webhook_delivery
    WHERE state = 'delivered' AND ended_at < now() - make_interval(days => %(read_days)s)
    LIMIT %(limit)s FOR UPDATE SKIP LOCKED))
"""

# No earlier than its notification, which names it.
_FOLLOWUPS = """
DELETE FROM followup WHERE id = ANY(ARRAY(
    SELECT id FROM followup f
    WHERE f.state <> 'waiting' AND f.ended_at < now() - make_interval(days => %(days)s)
      AND NOT EXISTS (SELECT 1 FROM notification n WHERE n.followup_id = f.id)
    LIMIT %(limit)s FOR UPDATE SKIP LOCKED))
"""


async def prune_notifications(connection: Connection, *, read_days: int, days: int, queue: str, limit: int) -> int:
    """Remove those that were read ``read_days`` ago or made ``days`` ago; how many. ``queue`` is their jobs'."""
    params = {"read_days": read_days, "days": days, "queue": queue, "limit": limit}
    return (await connection.execute(_NOTIFICATIONS, params)).rowcount


async def prune_delivered(connection: Connection, *, read_days: int, limit: int) -> int:
    """Remove deliveries that were taken ``read_days`` ago; how many."""
    return (await connection.execute(_DELIVERED, {"read_days": read_days, "limit": limit})).rowcount


async def prune_followups(connection: Connection, *, days: int, limit: int) -> int:
    """Remove follow-ups that fired or were cancelled ``days`` ago; how many."""
    return (await connection.execute(_FOLLOWUPS, {"days": days, "limit": limit})).rowcount
