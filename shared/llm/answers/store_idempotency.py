"""The SQL of requests with an idempotency key. Each function is one statement, safe to repeat."""

from dataclasses import asdict
from typing import Any

from psycopg.types.json import Jsonb

from shared.db.database import Database, Row
from shared.llm.answers.request_key import RequestKey

# The row is taken when it is new, when its time is over, when it is the owner's already (the statement was sent again),
# and when it is the same request whose owner let the lease run out.
_TAKE = """
WITH taken AS (
    INSERT INTO idempotent_request AS known (microdao_id, key_id, idempotency_key, fingerprint, owner, lease_until,
        expires_at)
    VALUES (%(microdao_id)s, %(key_id)s, %(idempotency_key)s, %(fingerprint)s, %(owner)s,
        now() + make_interval(secs => %(lease_s)s), now() + make_interval(secs => %(kept_s)s))
    ON CONFLICT (microdao_id, key_id, idempotency_key) DO UPDATE SET fingerprint = EXCLUDED.fingerprint,
        owner = EXCLUDED.owner, lease_until = EXCLUDED.lease_until, expires_at = EXCLUDED.expires_at,
        finished = false, status = NULL, headers = NULL, body = NULL, created_at = now()
    WHERE known.expires_at <= now() OR (known.owner = EXCLUDED.owner AND NOT known.finished)
        OR (NOT known.finished AND known.lease_until <= now() AND known.fingerprint = EXCLUDED.fingerprint)
    RETURNING true)
SELECT true AS is_ours, NULL AS fingerprint, false AS finished, NULL AS status, NULL AS headers, NULL AS body FROM taken
UNION ALL
SELECT false, fingerprint, finished, status, headers, body FROM idempotent_request
WHERE (microdao_id, key_id, idempotency_key) = (%(microdao_id)s, %(key_id)s, %(idempotency_key)s)
    AND NOT EXISTS (SELECT FROM taken)
"""

_RENEW = """
UPDATE idempotent_request SET lease_until = now() + make_interval(secs => %(lease_s)s)
WHERE (microdao_id, key_id, idempotency_key, owner)
    = (%(microdao_id)s, %(key_id)s, %(idempotency_key)s, %(owner)s)
"""

_FINISH = """
UPDATE idempotent_request SET finished = true, status = %(status)s, headers = %(headers)s, body = %(body)s
WHERE (microdao_id, key_id, idempotency_key, owner)
    = (%(microdao_id)s, %(key_id)s, %(idempotency_key)s, %(owner)s)
"""

_RELEASE = """
DELETE FROM idempotent_request WHERE NOT finished
    AND (microdao_id, key_id, idempotency_key, owner)
    = (%(microdao_id)s, %(key_id)s, %(idempotency_key)s, %(owner)s)
"""

_DELETE_EXPIRED = """
WITH batch AS MATERIALIZED (
    SELECT microdao_id, key_id, idempotency_key FROM idempotent_request WHERE expires_at <= now()
    ORDER BY expires_at LIMIT %s FOR UPDATE SKIP LOCKED)
DELETE FROM idempotent_request r USING batch b
WHERE (r.microdao_id, r.key_id, r.idempotency_key) = (b.microdao_id, b.key_id, b.idempotency_key)
RETURNING r.owner
"""


async def take(database: Database, key: RequestKey, owner: str, lease_s: float, kept_s: float) -> Row | None:
    """Take the row for this owner; None when it is taken, otherwise the row that stands in the way."""
    params = {**asdict(key), "owner": owner, "lease_s": lease_s, "kept_s": kept_s}
    while True:
        rows = await database.run(_TAKE, params, microdao_id=key.microdao_id)
        if rows:
            return None if rows[0]["is_ours"] else rows[0]
        # A rival inserted the row after this statement began, so it was in the way but not to be seen.


async def renew(database: Database, key: RequestKey, owner: str, lease_s: float) -> None:
    """Set the lease's end anew."""
    params = {**asdict(key), "owner": owner, "lease_s": lease_s}
    await database.run(_RENEW, params, microdao_id=key.microdao_id)


async def finish(
    database: Database, key: RequestKey, owner: str, status: int, headers: dict[str, str], body: bytes | None
) -> None:
    """Store the answer, unless the row has another owner by now."""
    params: dict[str, Any] = {**asdict(key), "owner": owner, "status": status, "headers": Jsonb(headers), "body": body}
    await database.run(_FINISH, params, microdao_id=key.microdao_id)


async def release(database: Database, key: RequestKey, owner: str) -> None:
    """Delete the owner's row."""
    await database.run(_RELEASE, {**asdict(key), "owner": owner}, microdao_id=key.microdao_id)


async def delete_expired(database: Database, limit: int) -> int:
    """Delete rows whose time is over (system role); how many."""
    return len(await database.run(_DELETE_EXPIRED, (limit,)))
