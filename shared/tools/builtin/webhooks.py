"""The microDAO's webhook: what happens is posted there, signed, again and again until it is taken or given up.

The outbox row of a delivery stays until it has ended, so the outbox's own sweep brings the next attempt: after a
minute, then after twice as long each time, up to an hour.
"""

import asyncio
import json
import re
import secrets
import time
from collections.abc import Sequence
from typing import Any, Protocol
from urllib.parse import urlsplit

from shared.clock import rfc3339
from shared.cloud.outbox import Outbox, claim, enqueue
from shared.db.database import Connection, Database, Row
from shared.errors import Conflict, InvalidRequest, NotFound, Unavailable
from shared.tools.arguments import check_text
from shared.tools.builtin import store_webhooks
from shared.tools.builtin.notifying import EVENTS, QUEUE
from shared.tools.builtin.signing import SIGNATURE_HEADER, sign
from shared.tools.model import ToolFailed
from shared.tools.secrets.resealing import SealedRows
from shared.tools.web.addresses import host_fault

ALL_EVENTS = tuple(EVENTS.values())
WEBHOOK_SECRETS = SealedRows(store_webhooks.lock_sealed, store_webhooks.replace_sealed)
MOST_ATTEMPTS = 10
"""With the outbox's waits about four hours."""

_TIMEOUT_S = 10.0
_LEASE_S = 60.0
_GONE = 410
_URL = re.compile(r"https?://[^\s/?#@]+(?:[/?][^\s#]*)?")
_MOST_FAILURE_CHARACTERS = 300


class Poster(Protocol):
    """The way out."""

    async def post(self, microdao_id: str, url: str, headers: dict[str, str], body: bytes, deadline: float) -> int:
        """The status of the answer, by ``deadline`` of the running loop's clock. Raises ToolFailed for no answer."""


class Cipher(Protocol):
    """Keeps a microDAO's secrets unreadable in the database."""

    def seal(self, microdao_id: str, name: str, value: str) -> bytes:
        """The value as it may be stored."""

    def open(self, microdao_id: str, name: str, sealed: bytes) -> str:
        """What was sealed under this name for this microDAO. Raises Unavailable when no key opens it."""


class Webhooks:
    """The webhook of every microDAO; each call works in one."""

    def __init__(self, database: Database, outbox: Outbox, poster: Poster, cipher: Cipher) -> None:
        self._database = database
        self._outbox = outbox
        self._poster = poster
        self._cipher = cipher

    async def get(self, microdao_id: str) -> Row:
        """Its URL and events; the secret is not told again. Raises NotFound."""
        async with self._database.tenant(microdao_id) as connection:
            found = await store_webhooks.find_webhook(connection)
        if found is None:
            raise _no_webhook()
        return {name: value for name, value in found.items() if name != "secret"}

    async def put(
        self, microdao_id: str, url: str, events: Sequence[str] = ALL_EVENTS, secret: str | None = None
    ) -> tuple[Row, str | None]:
        """Set it, and the secret if one is given or there is none yet: then a new one is made and returned, this once.

        Raises InvalidRequest.
        """
        check_text(url, "url")
        if not _URL.fullmatch(url) or _place_fault(url):
            raise InvalidRequest("url must begin with https:// or http:// and name a host, no user", param="url")
        async with self._database.tenant(microdao_id) as connection:
            known = await store_webhooks.find_webhook(connection)
            new = secret or (None if known else f"whsec_{secrets.token_urlsafe(32)}")
            sealed = self._cipher.seal(microdao_id, store_webhooks.SEALED_AS, new) if new else None
            row = await store_webhooks.put_webhook(connection, microdao_id, url, list(dict.fromkeys(events)), sealed)
        if row is None:
            raise Conflict("the webhook was removed at the same moment; set it again")
        return row, new

    async def delete(self, microdao_id: str) -> None:
        """Remove it; what waits for it is given up. Raises NotFound."""
        async with self._database.tenant(microdao_id) as connection:
            if not await store_webhooks.delete_webhook(connection):
                raise _no_webhook()

    async def deliveries(self, microdao_id: str, *, state: str | None, before: str | None, limit: int) -> list[Row]:
        """What was, is or could not be delivered, newest first."""
        check_text(before or "", "before")
        async with self._database.tenant(microdao_id) as connection:
            return await store_webhooks.list_deliveries(connection, state=state, before=before, limit=limit)

    async def deliver_again(self, microdao_id: str, delivery_id: str) -> None:
        """Send a dead delivery again, with all its attempts. Raises NotFound, or Conflict for one that is not dead."""
        check_text(delivery_id, "delivery_id")
        async with self._database.tenant(microdao_id) as connection:
            if not await store_webhooks.revive_delivery(connection, delivery_id):
                if await store_webhooks.delivery_state(connection, delivery_id) is None:
                    raise _no_delivery(delivery_id)
                raise Conflict("only a delivery that is dead can be sent again")
            await enqueue(connection, microdao_id, QUEUE, {"delivery_id": delivery_id})
        await self._outbox.committed()

    async def deliver(self, microdao_id: str, delivery_id: str, job_id: str | None) -> None:
        """Make one attempt, unless another is under way. ``job_id``'s outbox row goes when the delivery has ended.

        Raises NotFound for a delivery that the microDAO does not have, nor had when the job was made.
        """
        async with self._database.tenant(microdao_id) as connection:
            leased = await store_webhooks.lease_delivery(connection, delivery_id, _LEASE_S)
            if leased is None:
                await _leave(connection, delivery_id, job_id)
                return
            webhook = await store_webhooks.find_webhook(connection)
            if webhook is None or leased["attempts"] > MOST_ATTEMPTS:
                why = "the webhook was removed" if webhook is None else "whoever sent it died midway, again and again"
                await _end(connection, leased, job_id, "dead", None, why)
                return
        status, failure = await self._attempt(microdao_id, webhook, leased)
        state = _state(status, failure, leased["attempts"])
        async with self._database.tenant(microdao_id) as connection:
            await _end(connection, leased, job_id, state, status, failure)

    async def _attempt(self, microdao_id: str, webhook: Row, leased: Row) -> tuple[int | None, str | None]:
        body = _body(microdao_id, leased)
        try:
            secret = self._cipher.open(microdao_id, store_webhooks.SEALED_AS, bytes(webhook["secret"]))
        except Unavailable as error:  # its key is gone: another attempt is worth while once the secret is set again
            return None, error.message[:_MOST_FAILURE_CHARACTERS]
        headers = {
            "content-type": "application/json",
            "user-agent": "daarion-webhooks",
            "x-daarion-delivery": leased["id"],
            "x-daarion-event": leased["event"],
            SIGNATURE_HEADER: sign(secret, body, int(time.time())),
        }
        deadline = asyncio.get_running_loop().time() + _TIMEOUT_S
        try:
            status = await self._poster.post(microdao_id, webhook["url"], headers, body, deadline)
        except ToolFailed as error:
            return None, error.message[:_MOST_FAILURE_CHARACTERS]
        return status, None if 200 <= status < 300 else f"answered {status}"


def _state(status: int | None, failure: str | None, attempts: int) -> str:
    if failure is None:
        return "delivered"
    return "dead" if status == _GONE or attempts >= MOST_ATTEMPTS else "waiting"


def _body(microdao_id: str, leased: Row) -> bytes:
    """The same bytes at each attempt; of a confidential notification only whom it is for."""
    told = ("title", "text") if not leased["confidential"] else ()
    data: dict[str, Any] = {
        "id": leased["notification_id"],
        **{name: leased[name] for name in ("kind", "followup_id", "channel_id", "sent_by", "confidential", *told)},
        "to": leased["recipient"],
    }
    created_at = rfc3339(leased["created_at"])
    event = {"id": leased["id"], "type": leased["event"], "microdao_id": microdao_id, "created_at": created_at}
    return json.dumps({**event, "data": data}, ensure_ascii=False).encode()


async def _leave(connection: Connection, delivery_id: str, job_id: str | None) -> None:
    """Another attempt is under way, or the delivery has ended, or was removed since, and its job with it."""
    state = await store_webhooks.delivery_state(connection, delivery_id)
    is_ours = state != "waiting" and job_id is not None and await claim(connection, job_id)
    if state is None and not is_ours:
        raise _no_delivery(delivery_id)


async def _end(
    connection: Connection, leased: Row, job_id: str | None, state: str, status: int | None, failure: str | None
) -> None:
    is_ours = await store_webhooks.end_attempt(
        connection, leased["id"], leased["attempts"], state=state, status=status, failure=failure
    )
    if is_ours and state != "waiting" and job_id is not None:
        await claim(connection, job_id)


def _no_webhook() -> NotFound:
    return NotFound("this microDAO has no webhook")


def _no_delivery(delivery_id: str) -> NotFound:
    return NotFound(f"no delivery {delivery_id!r} in this microDAO", param="delivery_id")


def _place_fault(url: str) -> str | None:
    """Why nothing can ever be posted there."""
    try:
        parts = urlsplit(url)
        return host_fault(parts.hostname or "") if parts.port != 0 else "there is no port 0"
    except ValueError as error:
        return str(error)
