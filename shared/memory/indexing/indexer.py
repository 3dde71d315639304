"""Makes stored items findable: embeds first, then writes, so that no connection waits for the model.

A job may arrive twice, late or half done; whatever happens an item ends embedded once in each space.
What cannot be embedded now for no fault of its own stays pending: it is delivered again when a model is down, and left
to the sweep when a budget is spent.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeGuard, TypeVar

from shared.cloud.outbox import claim
from shared.db.database import Connection, Database, Row
from shared.errors import ApiError, InsufficientQuota, InvalidRequest
from shared.memory.embedding import store_spaces
from shared.memory.embedding.passages import MOST_PASSAGES, item_passages
from shared.memory.embedding.port import Vector
from shared.memory.embedding.spaces import Space, Spaces
from shared.memory.indexing import store_index
from shared.memory.model import IndexJob
from shared.memory.search.terms import LEXICON, item_terms
from shared.observability import Log

_MAX_FAILURE_CHARACTERS = 500
_PASSAGES_A_SLICE = 64
_CHARACTERS_A_PASSAGE = 500  # about

_log = Log("memory")
_Found = TypeVar("_Found")


@dataclass(slots=True)
class _Work:
    """What a batch came to in one space: vectors by item, why items failed, and why the others have to wait."""

    space: Space
    vectors: dict[str, list[Vector]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    waits_for: ApiError | None = None

    @property
    def is_down(self) -> bool:
        """Whether the model may answer when it is asked again soon; a spent budget is waited for by the sweep."""
        return self.waits_for is not None and not isinstance(self.waits_for, InsufficientQuota)

    def has_left(self, item_ids: Sequence[str]) -> bool:
        """Whether any of these items has to be delivered again."""
        return self.is_down or not self.failures.keys().isdisjoint(item_ids)


class Indexer:
    """Works through deliveries of index jobs."""

    def __init__(self, database: Database, spaces: Spaces) -> None:
        self._database = database
        self._spaces = spaces

    async def index(self, jobs: Sequence[IndexJob]) -> set[str]:
        """Index what the jobs name; the message ids to deliver again. One microDAO's trouble stays its own."""
        by_microdao: dict[str, list[IndexJob]] = defaultdict(list)
        for job in jobs:
            by_microdao[job.microdao_id].append(job)
        again: set[str] = set()
        for microdao_id, group in by_microdao.items():
            try:
                again |= await self._index_one(microdao_id, group)
            except Exception:
                _log.exception("items will be indexed again", microdao_id=microdao_id, jobs=len(group))
                again |= {job.message_id for job in group}
        return again

    async def _index_one(self, microdao_id: str, jobs: list[IndexJob]) -> set[str]:
        spaces = await self._spaces.written()
        item_ids = sorted({item_id for job in jobs for item_id in job.item_ids})
        async with self._database.tenant(microdao_id) as connection:
            rows = await store_index.read_waiting(connection, item_ids, [space.id for space in spaces], LEXICON)
        done: list[_Work] = []
        *slices, last = _slices(rows)
        for part in slices:
            active, *filling = [await self._embed(space, part, microdao_id) for space in spaces]
            done.append(active)
            async with self._database.tenant(microdao_id) as connection:
                await _write(connection, part, active, filling)
        active, *filling = [await self._embed(space, last, microdao_id) for space in spaces]
        done.append(active)
        async with self._database.tenant(microdao_id) as connection:
            for job in sorted(jobs, key=lambda one: one.job_id):  # in one order, or two indexers could lock each other
                if job.reindex_id or not any(work.is_down for work in done):
                    await claim(connection, job.job_id)
            await _write(connection, last, active, filling)
        return {
            job.message_id for job in jobs if not job.reindex_id and any(work.has_left(job.item_ids) for work in done)
        }

    async def _embed(self, space: Space, rows: list[Row], microdao_id: str) -> _Work:
        """The vectors that the space lacks."""
        work = _Work(space)
        passages = {row["id"]: item_passages(row) for row in rows if space.id in row["spaces"]}
        texts = [text for parts in passages.values() for text in parts]
        try:
            given = iter(await space.embed(texts, "passage", microdao_id) if texts else ())
            work.vectors = {item_id: [next(given) for _ in parts] for item_id, parts in passages.items()}
        except Exception as error:
            if _is_passing(error):
                _postpone(work, error, microdao_id)
            else:
                _log.exception("a batch could not be embedded; trying its items one by one", items=len(passages))
                await _embed_singly(work, passages, microdao_id)
        return work


def _slices(rows: Sequence[Row]) -> list[list[Row]]:
    """The rows in parts that take seconds each and are written one by one: who is cut short goes on from there."""
    slices: list[list[Row]] = [[]]
    weight = 0
    for row in rows:
        weight += min(MOST_PASSAGES, 1 + len(row["text"]) // _CHARACTERS_A_PASSAGE)
        if weight > _PASSAGES_A_SLICE and slices[-1]:
            slices.append([])
            weight = 0
        slices[-1].append(row)
    return slices


async def _embed_singly(work: _Work, passages: Mapping[str, list[str]], microdao_id: str) -> None:
    for item_id, parts in passages.items():
        try:
            work.vectors[item_id] = await work.space.embed(parts, "passage", microdao_id)
        except Exception as error:
            if _is_passing(error):
                _postpone(work, error, microdao_id)
                return
            work.failures[item_id] = f"{type(error).__name__}: {error}"[:_MAX_FAILURE_CHARACTERS]


def _is_passing(error: Exception) -> TypeGuard[ApiError]:
    """Whether a text is not to blame for an error: a provider is down, a budget is spent, a setting is wrong."""
    return isinstance(error, ApiError) and not isinstance(error, InvalidRequest)


def _postpone(work: _Work, error: ApiError, microdao_id: str) -> None:
    work.waits_for = error
    _log.warning("items wait for their model", microdao_id=microdao_id, space=work.space.id, reason=error.message)


async def _write(connection: Connection, rows: Sequence[Row], active: _Work, filling: Sequence[_Work]) -> None:
    # Another space may have become the active one since: then items are not ready that it lacks.
    await store_spaces.hold_still(connection)
    kept = await store_index.lock_items(connection, rows)
    for row in rows:
        if row["needs_postings"] and row["id"] in kept:
            await store_index.replace_postings(
                connection, row["number"], item_terms(row["text"], row["author"], row["occurred_at"]), LEXICON
            )
    for work in (active, *filling):
        await store_index.insert_embeddings(connection, work.space.id, _of(work.vectors, kept))
    for work in filling:
        await store_spaces.note_unembeddable(connection, work.space.id, _of(work.failures, kept))
    await store_index.mark_failed(connection, _of(active.failures, kept))
    await store_index.mark_ready(connection, sorted(kept - active.failures.keys()))
    if active.waits_for:
        await store_index.mark_waiting(connection, sorted(kept), active.waits_for.message[:_MAX_FAILURE_CHARACTERS])


def _of(found: Mapping[str, _Found], kept: set[str]) -> dict[str, _Found]:
    """What concerns these items."""
    return {item_id: one for item_id, one in found.items() if item_id in kept}
