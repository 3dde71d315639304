"""SQL of webhooks and of what is delivered to them."""

from collections.abc import Sequence

from shared.db.database import Connection, Row, fetch_all, fetch_one

SEALED_AS = "/webhook"
"""The name that the webhook's secret is sealed under; no tool's secret can have it."""

_WEBHOOK = "url, events, created_at, updated_at"
_DELIVERY = (
    "webhook_delivery.id, event, notification_id, state, attempts, status, failure, webhook_delivery.created_at,"
    " ended_at"
)


async def put_webhook(
    connection: Connection, microdao_id: str, url: str, events: Sequence[str], secret: bytes | None
) -> Row | None:
    """Set the microDAO's webhook; the sealed secret stays with None, and None is returned if there was none."""
    return await fetch_one(
        connection,
        "INSERT INTO webhook (microdao_id, url, events, secret)"
        " SELECT %(microdao_id)s, %(url)s, %(events)s::text[],"
        "  coalesce(%(secret)s::bytea, (SELECT secret FROM webhook))"
        " WHERE %(secret)s::bytea IS NOT NULL OR EXISTS (SELECT 1 FROM webhook)"
        " ON CONFLICT (microdao_id) DO UPDATE SET url = excluded.url, events = excluded.events,"
        f" secret = excluded.secret, updated_at = now() RETURNING {_WEBHOOK}",
        {"microdao_id": microdao_id, "url": url, "events": list(events), "secret": secret},
    )


async def find_webhook(connection: Connection) -> Row | None:
    """The microDAO's webhook, with the sealed secret."""
    return await fetch_one(connection, f"SELECT {_WEBHOOK}, secret FROM webhook")


async def delete_webhook(connection: Connection) -> bool:
    """Remove it; False when there was none."""
    return await fetch_one(connection, "DELETE FROM webhook RETURNING microdao_id") is not None


async def lock_sealed(connection: Connection, after: tuple[str, str], limit: int) -> list[Row]:
    """Sealed secrets of every microDAO's webhook, held for this transaction (system role), after that of ``after``."""
    return await fetch_all(
        connection,
        "SELECT microdao_id, %s AS name, secret AS sealed FROM webhook WHERE microdao_id > %s"
        " ORDER BY microdao_id LIMIT %s FOR UPDATE",
        (SEALED_AS, after[0], limit),
    )


async def replace_sealed(connection: Connection, microdao_id: str, name: str, sealed: bytes) -> None:
    """The same secret, sealed anew."""
    await connection.execute("UPDATE webhook SET secret = %s WHERE microdao_id = %s", (sealed, microdao_id))


async def lease_delivery(connection: Connection, delivery_id: str, lease_s: float) -> Row | None:
    """Hold a waiting delivery that nobody holds, counting the attempt: it with its notification."""
    return await fetch_one(
        connection,
        "UPDATE webhook_delivery SET attempts = attempts + 1, lease_until = now() + make_interval(secs => %s)"
        " FROM notification WHERE notification.id = notification_id AND webhook_delivery.id = %s"
        " AND state = 'waiting' AND (lease_until IS NULL OR lease_until < now())"
        " RETURNING webhook_delivery.id, event, attempts, notification_id, kind, recipient, title, text, sent_by,"
        " followup_id, channel_id, confidential, notification.created_at",
        (lease_s, delivery_id),
    )


async def delivery_state(connection: Connection, delivery_id: str) -> str | None:
    """How a delivery stands."""
    row = await fetch_one(connection, "SELECT state FROM webhook_delivery WHERE id = %s", (delivery_id,))
    return row["state"] if row else None


async def end_attempt(
    connection: Connection, delivery_id: str, attempt: int, *, state: str, status: int | None, failure: str | None
) -> bool:
    """Note how the ``attempt``-th attempt ended; False when somebody has taken the delivery over since."""
    row = await fetch_one(
        connection,
        "UPDATE webhook_delivery SET state = %(state)s, status = %(status)s, failure = %(failure)s, lease_until = NULL,"
        " ended_at = CASE WHEN %(state)s::text <> 'waiting' THEN now() END"
        " WHERE id = %(id)s AND attempts = %(attempt)s AND state = 'waiting' RETURNING id",
        {"id": delivery_id, "attempt": attempt, "state": state, "status": status, "failure": failure},
    )
    return row is not None


async def list_deliveries(connection: Connection, *, state: str | None, before: str | None, limit: int) -> list[Row]:
    """Newest first, from before delivery ``before``."""
    return await fetch_all(
        connection,
        f"SELECT {_DELIVERY} FROM webhook_delivery WHERE (%(state)s::text IS NULL OR state = %(state)s)"
        " AND (%(before)s::text IS NULL OR id < %(before)s) ORDER BY id DESC LIMIT %(limit)s",
        {"state": state, "before": before, "limit": limit},
    )


async def revive_delivery(connection: Connection, delivery_id: str) -> bool:
    """Let a dead delivery wait again with all its attempts; False for one that is not dead."""
    row = await fetch_one(
        connection,
        "UPDATE webhook_delivery SET state = 'waiting', attempts = 0, ended_at = NULL, lease_until = NULL"
        " WHERE id = %s AND state = 'dead' RETURNING id",
        (delivery_id,),
    )
    return row is not None
