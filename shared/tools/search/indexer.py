"""Gives tools their vectors, in each living embedding space: embeds first, then writes, so that no connection waits.

A job may arrive twice, late or half done; whatever happens each version ends with one vector a space. What fails stays
found by its words, and is tried again by the next delivery or the sweep.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from shared.cloud.outbox import Outbox, claim
from shared.db.database import Database, Row
from shared.errors import ApiError, InsufficientQuota, InvalidRequest
from shared.memory.embedding.port import Purpose, Vector
from shared.memory.embedding.spaces import Space, Spaces
from shared.memory.indexing.store_index import literal
from shared.observability import Log
from shared.tools.search import store_entries
from shared.tools.search.bank import BANK_HASH, REQUESTS, TOOLS
from shared.tools.search.frame import fit_frame, mean_view, unit
from shared.tools.search.model import IndexToolsJob
from shared.tools.search.text import tool_views
from shared.tools.search.words import add_words

QUEUE: Final = "memory"
"""The memory indexer's queue: it has the embedding model loaded."""

_A_SLICE: Final = 16
_A_JOB: Final = 64
_LOST_AFTER_S: Final = 900.0
_SWEPT: Final = 5000
_KEPT_CHANGES: Final = 256
_MAX_FAILURE_CHARACTERS: Final = 500
_PURPOSES: Final[tuple[Purpose, ...]] = ("query", "passage")

_log = Log("tools")


class ToolIndexer:
    """Works through deliveries of jobs, and queues again what was left."""

    def __init__(self, database: Database, outbox: Outbox, spaces: Spaces) -> None:
        self._database = database
        self._outbox = outbox
        self._spaces = spaces

    async def index(self, jobs: Sequence[IndexToolsJob]) -> set[str]:
        """Index what the jobs name; the message ids to deliver again. One microDAO's trouble stays its own."""
        by_microdao: dict[str, list[IndexToolsJob]] = defaultdict(list)
        for job in jobs:
            by_microdao[job.microdao_id].append(job)
        again: set[str] = set()
        for microdao_id, group in by_microdao.items():
            try:
                is_done = await self._index_one(microdao_id, group)
            except Exception:
                _log.exception("tools will be indexed again", microdao_id=microdao_id, jobs=len(group))
                is_done = False
            if not is_done:
                again |= {job.message_id for job in group}
        return again

    async def sweep(self) -> int:
        """Queue again the versions whose job was lost or that a new space lacks; how many."""
        async with self._database.system() as connection:
            rows = await store_entries.queue_again(connection, _LOST_AFTER_S, _SWEPT)
            rows += await store_entries.read_frameless(connection, BANK_HASH)
            await store_entries.enqueue_tools(connection, QUEUE, _batches(rows))
            await store_entries.prune_changes(connection, _KEPT_CHANGES)
        if rows:
            await self._outbox.committed()
        return len(rows)

    async def _index_one(self, microdao_id: str, jobs: Sequence[IndexToolsJob]) -> bool:
        tool_ids = sorted({tool_id for job in jobs for tool_id in job.tool_ids})
        await self._add_words(microdao_id, tool_ids)
        spaces = await self._spaces.written()
        try:
            for space in spaces:
                await self._fill(space, microdao_id, tool_ids)
        except ApiError as error:
            if isinstance(error, InvalidRequest):
                raise
            _log.warning("tools wait for their model", microdao_id=microdao_id, reason=error.message)
            if not isinstance(error, InsufficientQuota):  # a spent budget is waited for by the sweep
                return False
        async with self._database.tenant(microdao_id) as connection:
            for job in sorted(jobs, key=lambda one: one.job_id):  # in one order, or two indexers could lock each other
                await claim(connection, job.job_id)
            await store_entries.mark_done(connection, [space.id for space in spaces], tool_ids)
        return True

    async def _add_words(self, microdao_id: str, tool_ids: Sequence[str]) -> None:
        while True:
            async with self._database.tenant(microdao_id) as connection:
                if not await add_words(connection, tool_ids):
                    return

    async def _fill(self, space: Space, microdao_id: str, tool_ids: Sequence[str]) -> None:
        """Make the vectors that the space lacks, slice by slice: who is cut short goes on from there."""
        async with self._database.tenant(microdao_id) as connection:
            rows = await store_entries.read_vectorless(connection, space.id, tool_ids)
        await self._ensure_frame(space, microdao_id)
        for start in range(0, len(rows), _A_SLICE):
            await self._fill_slice(space, microdao_id, rows[start : start + _A_SLICE])

    async def _fill_slice(self, space: Space, microdao_id: str, rows: Sequence[Row]) -> None:
        hashes = list({row["text_hash"] for row in rows})
        async with self._database.system() as connection:
            known = await store_entries.read_same_text(connection, space.id, hashes)
        new = {row["text_hash"]: row for row in rows if row["text_hash"] not in known}
        made, failures = await _embed(space, list(new.values()), microdao_id)
        known |= made
        async with self._database.tenant(microdao_id) as connection:
            vectors = {row["entry"]: known[row["text_hash"]] for row in rows if row["text_hash"] in known}
            await store_entries.write_vectors(connection, space.id, vectors)
            await store_entries.mark_failed(
                connection, {row["entry"]: failures[row["text_hash"]] for row in rows if row["text_hash"] in failures}
            )

    async def _ensure_frame(self, space: Space, microdao_id: str) -> None:
        async with self._database.system() as connection:
            if await store_entries.has_frame(connection, space.id, BANK_HASH):
                return
        requests = await space.embed(REQUESTS, "query", microdao_id)
        views = [tool_views(name, description, {}) for name, description in TOOLS]
        tools = await _mean_views(space, views, microdao_id)
        frame = fit_frame(np.array(requests, np.float32), np.array(tools, np.float32))
        fields = {name: getattr(frame, name).tolist() for name in ("request_mean", "tool_mean", "direction")}
        async with self._database.system() as connection:
            await store_entries.write_frame(connection, space.id, BANK_HASH, fields)


async def _embed(space: Space, rows: Sequence[Row], microdao_id: str) -> tuple[dict[bytes, str], dict[bytes, str]]:
    """Vectors, and reasons why there is none, by the texts' hashes. Raises ApiError when no text is to blame."""
    if not rows:
        return {}, {}
    views = {row["text_hash"]: tool_views(row["name"], row["description"], row["parameters"]) for row in rows}
    try:
        made = await _mean_views(space, list(views.values()), microdao_id)
        return dict(zip(views, map(literal, made), strict=True)), {}
    except Exception as error:
        if isinstance(error, ApiError) and not isinstance(error, InvalidRequest):
            raise
        if len(rows) == 1:
            return {}, {rows[0]["text_hash"]: f"{type(error).__name__}: {error}"[:_MAX_FAILURE_CHARACTERS]}
    _log.warning("some tools could not be embedded; trying them one by one", tools=len(rows))
    vectors: dict[bytes, str] = {}
    failures: dict[bytes, str] = {}
    for row in rows:
        found, failed = await _embed(space, [row], microdao_id)
        vectors |= found
        failures |= failed
    return vectors, failures


async def _mean_views(space: Space, views: Sequence[Sequence[str]], microdao_id: str) -> list[Vector]:
    """One vector a tool: the mean of its views, each embedded as a request and as a passage (requests are worded like
    either)."""
    flat = [view for one in views for view in one]
    by_purpose: list[Any] = [
        unit(np.array(await space.embed(flat, purpose, microdao_id), np.float32)) for purpose in _PURPOSES
    ]
    both = sum(by_purpose)
    ends = np.cumsum([len(one) for one in views])
    return [mean_view(part).tolist() for part in np.split(both, ends[:-1])]


def _batches(rows: Sequence[Row]) -> list[tuple[str, list[str]]]:
    by_microdao: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        by_microdao[row["microdao_id"]].add(row["tool_id"])
    return [
        (microdao_id, ordered[start : start + _A_JOB])
        for microdao_id, tool_ids in by_microdao.items()
        for ordered in [sorted(tool_ids)]
        for start in range(0, len(ordered), _A_JOB)
    ]
