"""Jobs as rows first, messages second.

``enqueue`` writes the row in the caller's transaction; ``Outbox.flush`` sends what was committed; the consumer calls
``claim`` in the transaction of its effect. A message lost on the way is sent again by ``Outbox.sweep``; a doubled one
finds its row gone.
"""

import asyncio
import math
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from psycopg.types.json import Jsonb

from shared.cloud.queue import Outgoing, Queue
from shared.db.database import Connection, Database, Row, fetch_all, fetch_one
from shared.ids import new_id
from shared.observability import Log

_BATCH = 100
GATHER_S = 0.005
"""Jobs committed at about the same time leave in one batch."""
_MAX_RESEND_WAIT_S = 3600.0
_log = Log("outbox")


async def enqueue(connection: Connection, microdao_id: str, queue: str, body: dict[str, Any]) -> str:
    """Write a job for ``queue`` (a logical name such as ``memory``) and return its id.

    The message will be ``{"job_id", "microdao_id", **body}``; put ids in ``body``, never content.
    """
    job = new_job(microdao_id, queue, body)
    await connection.execute(
        "INSERT INTO outbox (id, microdao_id, queue, body) VALUES (%s, %s, %s, %s)",
        (job["id"], microdao_id, queue, Jsonb(job["body"])),
    )
    return str(job["id"])


def new_job(microdao_id: str, queue: str, body: dict[str, Any]) -> dict[str, Any]:
    """The outbox row of a job, for a statement that writes it beside its effect."""
    job_id = new_id("job")
    message = {"job_id": job_id, "microdao_id": microdao_id, **body}
    return {"id": job_id, "microdao_id": microdao_id, "queue": queue, "body": message}


async def claim(connection: Connection, job_id: str) -> bool:
    """Take the job for this transaction: True for the one consumer that may apply the effect.

    Waits for a rival's open transaction: if that commits the job is gone, if it rolls back the job is ours.
    """
    return await fetch_one(connection, "DELETE FROM outbox WHERE id = %s RETURNING id", (job_id,)) is not None


class Outbox:
    """Moves committed jobs to their queues."""

    def __init__(self, database: Database, queues: Mapping[str, Queue], *, inline: bool = False) -> None:
        self._database = database
        self._queues = queues
        self._inline = inline
        self._wake = asyncio.Event()
        self._due_at = math.inf
        self._relay: asyncio.Task[None] | None = None

    async def committed(self, *, within_s: float = GATHER_S) -> None:
        """Tell the outbox that jobs were committed. They leave in the background, within that time.

        With ``inline`` (on Lambda, where nothing runs after the answer) they have left when this returns.
        """
        if self._inline:
            await self._flush_safely()
            return
        self._send_by(asyncio.get_running_loop().time() + within_s)

    async def flush(self) -> int:
        """Send every unsent job; the number sent."""
        total = 0
        while rows := await self._take_unsent():
            total += await self._send(rows)
            if len(rows) < _BATCH:
                break
        return total

    async def sweep(self, queue: str, *, older_than_s: float) -> int:
        """Send again the jobs of ``queue`` whose message was not acted on for ``older_than_s``; the number sent.

        The wait doubles with each send, up to an hour: a message may also be queued still, its consumer being slow.
        With 0 nothing is waited for. Jobs at work are left alone.
        """
        async with self._database.system() as connection:
            rows = await fetch_all(
                connection,
                "UPDATE outbox SET sent_at = NULL WHERE id IN ("
                " SELECT id FROM outbox WHERE queue = %s AND sent_at < now() - make_interval(secs =>"
                " least(%s * power(2::float8, least(greatest(sends, 1) - 1, 30)), %s))"
                " FOR UPDATE SKIP LOCKED) RETURNING id",
                (queue, older_than_s, _MAX_RESEND_WAIT_S),
            )
        sent = await self.flush()
        if rows:
            _log.info("jobs sent again", queue=queue, jobs=len(rows))
        return sent

    async def close(self) -> None:
        """Send what is left and stop the relay; it is never cut off in the middle of its work."""
        if self._relay is not None:
            await asyncio.gather(self._send_by(0.0), return_exceptions=True)

    def _send_by(self, due_at: float) -> "asyncio.Task[None]":
        """The task that will have sent everything by then, a moment of the loop's clock."""
        if due_at < self._due_at:
            self._due_at = due_at
            self._wake.set()
        if self._relay is None or self._relay.done():
            self._relay = asyncio.create_task(self._run_relay(), name="outbox-relay")
        return self._relay

    async def _run_relay(self) -> None:
        """Send what is due, and end when nothing is: an outbox that is left to itself leaves no task behind."""
        clock = asyncio.get_running_loop().time
        while self._due_at < math.inf:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(self._due_at):
                    await self._wake.wait()
            self._wake.clear()
            if self._due_at <= clock():
                self._due_at = math.inf
                await self._flush_safely()

    async def _flush_safely(self) -> None:
        try:
            await self.flush()
        except Exception:
            _log.exception("jobs stay in the outbox until the next sweep")

    async def _take_unsent(self) -> list[Row]:
        return await self._database.run(
            "UPDATE outbox SET sent_at = now(), sends = sends + 1 WHERE id = ANY(ARRAY("
            " SELECT id FROM outbox WHERE sent_at IS NULL AND queue = ANY(%s)"
            " ORDER BY id LIMIT %s FOR UPDATE SKIP LOCKED))"
            " RETURNING id, microdao_id, queue, body",
            (list(self._queues), _BATCH),
        )

    async def _send(self, rows: list[Row]) -> int:
        accepted: set[str] = set()
        try:
            for name in {row["queue"] for row in rows}:
                messages = [
                    Outgoing(row["id"], row["microdao_id"], row["body"]) for row in rows if row["queue"] == name
                ]
                accepted |= await self._queues[name].send(messages)
        finally:
            await self._release([row["id"] for row in rows if row["id"] not in accepted])
        return len(accepted)

    async def _release(self, job_ids: list[str]) -> None:
        if job_ids:
            async with self._database.system() as connection:
                await connection.execute(
                    "UPDATE outbox SET sent_at = NULL WHERE id IN ("
                    " SELECT id FROM outbox WHERE id = ANY(%s) FOR UPDATE SKIP LOCKED)",
                    (job_ids,),
                )
