"""Makes stored items findable by meaning: embeds first, then writes, so that no connection waits for the model.

A job may arrive twice, late or half done; whatever happens an item ends with one embedding.
"""

from collections import defaultdict
from collections.abc import Sequence

from shared.cloud.outbox import claim
from shared.db.database import Database
from shared.memory import store
from shared.memory.embedding import Embedder, Vector, embed
from shared.memory.model import IndexJob
from shared.observability import Log

_MAX_FAILURE_CHARACTERS = 500
_log = Log("memory")


class Indexer:
    """Works through deliveries of index jobs."""

    def __init__(self, database: Database, embedder: Embedder) -> None:
        self._database = database
        self._embedder = embedder

    async def index(self, jobs: Sequence[IndexJob]) -> set[str]:
        """Embed what the jobs name; the message ids to deliver again. One microDAO's trouble stays its own."""
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
        async with self._database.tenant(microdao_id) as connection:
            rows = await store.read_unembedded(connection, [job.item_id for job in jobs])
        vectors, failures = await self._embed({row["id"]: row["text"] for row in rows})
        async with self._database.tenant(microdao_id) as connection:
            for job in sorted(jobs, key=lambda one: one.job_id):  # in one order, or two indexers could lock each other
                await claim(connection, job.job_id)
            await store.insert_embeddings(connection, vectors)
            await store.mark_failed(connection, failures)
        return {job.message_id for job in jobs if job.item_id in failures}

    async def _embed(self, texts: dict[str, str]) -> tuple[dict[str, Vector], dict[str, str]]:
        """Vectors and reasons of failure by item id. Raises when the model cannot be used at all."""
        try:
            return dict(zip(texts, await embed(self._embedder, list(texts.values())), strict=True)), {}
        except Exception:
            _log.exception("a batch could not be embedded; trying its texts one by one", items=len(texts))
        vectors, failures = {}, {}
        for item_id, text in texts.items():
            try:
                (vectors[item_id],) = await embed(self._embedder, [text])
            except Exception as error:
                failures[item_id] = f"{type(error).__name__}: {error}"[:_MAX_FAILURE_CHARACTERS]
        return vectors, failures
