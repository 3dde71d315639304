"""Makes stored items findable: embeds first, then writes, so that no connection waits for the model.

A job may arrive twice, late or half done; whatever happens an item ends embedded once in each space.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from shared.cloud.outbox import claim
from shared.db.database import Connection, Database, Row
from shared.memory import store_index
from shared.memory.embedding.passages import item_passages
from shared.memory.embedding.port import Vector
from shared.memory.embedding.spaces import Space, Spaces
from shared.memory.model import IndexJob
from shared.memory.search.terms import LEXICON, item_terms
from shared.observability import Log

_MAX_FAILURE_CHARACTERS = 500
_BATCH = 32  # texts a call of the model

_log = Log("memory")


@dataclass(slots=True)
class _Work:
    """What a batch came to: vectors by space and item, and why items failed."""

    rows: list[Row]
    vectors: dict[int, dict[str, list[Vector]]] = field(default_factory=lambda: defaultdict(dict))
    failures: dict[str, str] = field(default_factory=dict)


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
        work = _Work(rows)
        for space in spaces:
            await self._embed(space, work, microdao_id)
        async with self._database.tenant(microdao_id) as connection:
            for job in sorted(jobs, key=lambda one: one.job_id):  # in one order, or two indexers could lock each other
                await claim(connection, job.job_id)
            await _write(connection, work)
        return {job.message_id for job in jobs if work.failures.keys() & set(job.item_ids)}

    async def _embed(self, space: Space, work: _Work, microdao_id: str) -> None:
        """Add the vectors that the space lacks. Raises when the model cannot be used at all."""
        passages = {row["id"]: item_passages(row) for row in work.rows if space.id in row["spaces"]}
        texts = [text for parts in passages.values() for text in parts]
        try:
            vectors = [
                vector
                for start in range(0, len(texts), _BATCH)
                for vector in await space.embedder.embed(texts[start : start + _BATCH], "passage", microdao_id)
            ]
        except Exception:
            _log.exception("a batch could not be embedded; trying its items one by one", items=len(passages))
            await self._embed_singly(space, work, passages, microdao_id)
            return
        given = iter(vectors)
        work.vectors[space.id] = {item_id: [next(given) for _ in parts] for item_id, parts in passages.items()}

    async def _embed_singly(self, space: Space, work: _Work, passages: dict[str, list[str]], microdao_id: str) -> None:
        for item_id, parts in passages.items():
            try:
                work.vectors[space.id][item_id] = await space.embedder.embed(parts, "passage", microdao_id)
            except Exception as error:
                work.failures[item_id] = f"{type(error).__name__}: {error}"[:_MAX_FAILURE_CHARACTERS]


async def _write(connection: Connection, work: _Work) -> None:
    kept = await store_index.lock_items(connection, [row["id"] for row in work.rows])
    for row in work.rows:
        if row["needs_postings"] and row["id"] in kept:
            await store_index.replace_postings(
                connection, row["number"], item_terms(row["text"], row["author"], row["occurred_at"]), LEXICON
            )
    for space_id, vectors in work.vectors.items():
        await store_index.insert_embeddings(
            connection, space_id, {item_id: parts for item_id, parts in vectors.items() if item_id in kept}
        )
    await store_index.mark_failed(connection, work.failures)
    await store_index.mark_ready(connection, sorted(kept - work.failures.keys()))
