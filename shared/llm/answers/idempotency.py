"""Requests that carry an idempotency key: answered once, and a repetition gets the stored answer.

A row is taken with one statement. While its owner answers it renews the row's lease, so a request whose process died is
free again after ``LEASE_S``. A failure gives the row back: what failed may be tried again under the same key.
"""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Final

from shared.db.database import Database, Row
from shared.errors import IdempotencyConflict, IdempotencyInProgress
from shared.ids import new_id
from shared.llm.answers import store_idempotency
from shared.llm.answers.request_key import RequestKey

LEASE_S: Final = 60.0
KEPT_S: Final = 24 * 3600.0
MAX_ANSWER_BYTES: Final = 1_000_000
_NO_RETRY = {"x-should-retry": "false"}
_RETRY_AFTER_S: Final = 2
_SWEEP_LIMIT: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredAnswer:
    """A finished answer as it went out."""

    status: int
    headers: dict[str, str]
    body: bytes


class IdempotentRequests:
    """The table of requests with a key. A caller that goes away does not stop what it began to write."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._writing: set[asyncio.Task[None]] = set()

    async def begin(self, key: RequestKey) -> "str | StoredAnswer":
        """The owner's mark when the request is to be answered now, or the answer that it got before.

        Raises IdempotencyInProgress while it is being answered, and IdempotencyConflict when the key was used for
        another request or its answer was too large to store.
        """
        owner = new_id("own")
        row = await store_idempotency.take(self._database, key, owner, LEASE_S, KEPT_S)
        if row is None:
            return owner
        if row["fingerprint"] != key.fingerprint:
            raise IdempotencyConflict(
                "this idempotency key was used for another request; use a new one", headers=_NO_RETRY
            )
        if not row["finished"]:
            raise IdempotencyInProgress(
                "a request with this idempotency key is being answered", headers={"retry-after": str(_RETRY_AFTER_S)}
            )
        return _stored(row)

    async def renew(self, key: RequestKey, owner: str) -> None:
        """Say that the owner is alive."""
        await store_idempotency.renew(self._database, key, owner, LEASE_S)

    async def finish(self, key: RequestKey, owner: str, answer: StoredAnswer) -> None:
        """Store the answer. Of one larger than ``MAX_ANSWER_BYTES`` only that it was given."""
        body = answer.body if len(answer.body) <= MAX_ANSWER_BYTES else None
        await self._surely(store_idempotency.finish(self._database, key, owner, answer.status, answer.headers, body))

    async def release(self, key: RequestKey, owner: str) -> None:
        """Give the key back: there is no answer to repeat."""
        await self._surely(store_idempotency.release(self._database, key, owner))

    async def sweep(self) -> int:
        """Delete rows whose time is over, some thousands at most; how many."""
        return await store_idempotency.delete_expired(self._database, _SWEEP_LIMIT)

    async def _surely(self, writing: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(writing, name="idempotency")
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)
        await asyncio.shield(task)


def _stored(row: Row) -> StoredAnswer:
    if row["body"] is None:
        raise IdempotencyConflict(
            "the answer to this request was too large to be stored; use a new idempotency key", headers=_NO_RETRY
        )
    return StoredAnswer(status=row["status"], headers=row["headers"], body=bytes(row["body"]))
