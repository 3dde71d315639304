"""Another embedding model (or lexicon) without downtime: a space fills in the background, then takes the other's place.

A run walks over all items by number and writes index jobs for those that lack something, so many at a time; items that
are stored meanwhile get their vectors in both spaces anyway. Who walks is whoever comes along: the sweep, and each
indexer when it has finished some of the run's jobs. When the end is reached and nothing is missing, the spaces change
places in one transaction; otherwise the next pass looks for what was left. Until then searches use the old space.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from psycopg.errors import UniqueViolation

from shared.clock import utc_now
from shared.cloud.outbox import Outbox
from shared.db.database import Connection, Database, Row
from shared.errors import ApiError, Conflict, InvalidRequest, NotFound
from shared.ids import new_id
from shared.memory.embedding import store_spaces
from shared.memory.embedding.port import Embedder
from shared.memory.embedding.spaces import Spaces
from shared.memory.indexing import store_reindex
from shared.memory.intake import enqueue_items
from shared.memory.search.terms import LEXICON
from shared.observability import Log

_WINDOW = 1000  # items that are looked at in one go
_MOST_JOBS = 64  # of one run in the queue, of up to 32 items each
_ATTEMPTS = 3  # for an item whose text the model does not take
_FIRST_WAIT_S = 2.0  # before the second pass; it doubles with each
_LONGEST_WAIT_S = 900.0
_DROPPED_AFTER_S = 600.0
"""Processes search a retired space for some seconds more, and indexers may write into one as long as a job takes."""

_log = Log("memory")


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a run is. Counts are of items; ``progress`` is 0 to 1; ``eta_s`` None when there is nothing to go by.

    ``space`` None: only postings are made anew, for another lexicon. ``failed`` items are such as the model does not
    take; they are found by their words.
    """

    id: str
    model: str
    space: int | None
    state: Literal["running", "done", "cancelled"]
    total: int
    done: int
    failed: int
    progress: float
    started_at: datetime
    finished_at: datetime | None
    eta_s: float | None


class Reindexing:
    """Starts, drives and ends runs; all tenants' memories at once. One run at a time."""

    def __init__(self, database: Database, outbox: Outbox, spaces: Spaces) -> None:
        self._database = database
        self._outbox = outbox
        self._spaces = spaces

    async def start(self, model: str | None = None) -> Progress:
        """Begin to embed everything with a model: the configured one, another, or once more the active one.

        Raises Conflict while a run goes on, NotFound for a model that cannot be used here, or what the model's first
        answer raises.
        """
        embedder = self._find(model or self._spaces.embedders.configured)
        await self._spaces.active()  # there is something to change
        dimensions = await self._dimensions(embedder)
        try:
            async with self._database.system() as connection:
                if await store_reindex.lock_running(connection):
                    raise _in_progress()
                space_id = await store_spaces.add_filling(connection, embedder.model, dimensions)
                run_id = await self._insert(connection, embedder.model, space_id)
        except UniqueViolation:
            raise _in_progress() from None
        _log.info("memories are embedded anew", model=embedder.model, space=space_id)
        self._spaces.reread()
        await self.advance()
        return await self.progress(run_id)

    async def progress(self, run_id: str | None = None) -> Progress:
        """Of the run that goes on, or else the last one. Raises NotFound before the first."""
        async with self._database.system() as connection:
            run = await store_reindex.read_latest(connection)
            if run is None or run_id not in (None, run["id"]):
                raise NotFound("the memory was never reindexed")
            counts = run if run["state"] != "running" else await _count(connection, run)
        return _progress(run, counts)

    async def cancel(self) -> Progress:
        """Give the run that goes on up; what it made is dropped some minutes later. Raises NotFound without a run."""
        async with self._database.system() as connection:
            run = await store_reindex.lock_running(connection)
            if run is None:
                raise NotFound("the memory is not being reindexed")
            counts = await _count(connection, run)
            if run["space_id"] is not None:
                await store_spaces.retire(connection, run["space_id"])
            await store_reindex.drop_jobs(connection, run["id"])
            await store_reindex.end_run(connection, run["id"], "cancelled", counts)
        self._spaces.reread()
        return await self.progress(run["id"])

    async def sweep(self) -> None:
        """Begin a run if configured model or lexicon have changed, drive the one that goes on, drop old spaces."""
        await self._start_if_changed()
        await self.advance()
        async with self._database.system() as connection:
            for space_id in await store_spaces.drop_retired(connection, _DROPPED_AFTER_S):
                _log.info("a retired space was dropped", space=space_id)

    async def advance(self) -> None:
        """Do what can be done now for the run that goes on, if any: queue items, or end it."""
        while await self._step():
            pass
        await self._outbox.committed()

    async def _step(self) -> bool:
        """One transaction's worth; whether there is more to do at once."""
        async with self._database.system() as connection:
            run = await store_reindex.take_running(connection)
            if run is None or run["resume_at"] > utc_now():
                return False
            jobs = await store_reindex.outstanding_jobs(connection, run["id"])
            if jobs >= _MOST_JOBS:
                return False
            upto, found = await store_reindex.next_items(connection, run, attempts=_ATTEMPTS, window=_WINDOW)
            for microdao_id, item_ids in found.items():
                await enqueue_items(connection, microdao_id, item_ids, reindex_id=run["id"])
            if upto is not None:
                await store_reindex.move_cursor(connection, run["id"], upto)
                return True
            if jobs == 0:
                await self._end(connection, run)
        return False

    async def _end(self, connection: Connection, run: Row) -> None:
        """The end is reached and no job is left: finish, or look for what is missing after a while."""
        if await store_reindex.lacks_any(connection, run, attempts=_ATTEMPTS):
            await _again(connection, run)
            return
        if run["space_id"] is not None:
            await store_spaces.hold_all_still(connection)
            if await store_reindex.lacks_any(connection, run, attempts=_ATTEMPTS):
                await _again(connection, run)
                return
        counts = await _count(connection, run)
        if run["space_id"] is not None:
            await store_spaces.activate(connection, run["space_id"])
        await store_reindex.end_run(connection, run["id"], "done", counts)
        self._spaces.reread()
        _log.info("memories are reindexed", model=run["model"], space=run["space_id"], items=counts["done"])

    async def _start_if_changed(self) -> None:
        async with self._database.system() as connection:
            latest = await store_reindex.read_latest(connection)
        if latest and latest["state"] == "running":
            return
        configured = self._spaces.embedders.configured
        try:
            active = await self._spaces.active()
            if active.embedder.model != configured and (latest is None or latest["configured"] != configured):
                await self.start()
            elif latest is None or latest["lexicon"] != LEXICON:
                async with self._database.system() as connection:
                    await self._insert(connection, active.embedder.model, None)
        except (ApiError, UniqueViolation):
            _log.exception("the memory cannot be reindexed now; the next sweep tries again", model=configured)

    async def _insert(self, connection: Connection, model: str, space_id: int | None) -> str:
        run = {"id": new_id("rix"), "model": model, "space_id": space_id, "lexicon": LEXICON}
        await store_reindex.insert_run(connection, run | {"configured": self._spaces.embedders.configured})
        return str(run["id"])

    def _find(self, model: str) -> Embedder:
        embedder = self._spaces.embedders.find(model)
        if embedder is None:
            raise NotFound(f"no embedding model {model!r} can be used here", param="model")
        return embedder

    async def _dimensions(self, embedder: Embedder) -> int:
        """The length of the model's vectors; who has something to embed pays if that costs anything."""
        async with self._database.system() as connection:
            payer = await store_reindex.read_payer(connection)
        if payer is None:
            raise InvalidRequest("there is no microDAO yet whose memory could be embedded")
        return await embedder.dimensions(payer)


async def _count(connection: Connection, run: Row) -> Row:
    return await store_reindex.count(connection, run, attempts=_ATTEMPTS)


async def _again(connection: Connection, run: Row) -> None:
    wait_s = min(_FIRST_WAIT_S * 2 ** min(run["passes"], 30), _LONGEST_WAIT_S)
    await store_reindex.begin_pass(connection, run["id"], wait_s)


def _progress(run: Row, counts: Row) -> Progress:
    total, failed = counts["total"], counts["failed"]
    done = counts["done"]
    is_over = run["state"] == "done"
    share = 1.0 if is_over or not total else min((done + failed) / total, 1.0)
    passed_s = (utc_now() - run["started_at"]).total_seconds()
    eta_s = passed_s * (1 - share) / share if run["state"] == "running" and share else None
    return Progress(
        id=run["id"],
        model=run["model"],
        space=run["space_id"],
        state=run["state"],
        total=total,
        done=done,
        failed=failed,
        progress=round(share, 4),
        started_at=run["started_at"],
        finished_at=run["finished_at"],
        eta_s=None if eta_s is None else round(eta_s, 1),
    )


def _in_progress() -> Conflict:
    return Conflict("the memory is being reindexed already; wait, or cancel it (DELETE /admin/memory/reindex)")
