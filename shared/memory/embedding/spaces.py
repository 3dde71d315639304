"""The embedding spaces: one table partition per model, of which one is searched and one may be filling beside it."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from shared.db.database import Database
from shared.errors import Unavailable
from shared.memory.embedding import store_spaces
from shared.memory.embedding.caches import RecentVectors
from shared.memory.embedding.embedders import Embedders
from shared.memory.embedding.port import Embedder, Purpose, Vector
from shared.observability import Log

_REMEMBERED_S = 5.0
"""How long a process may search a space after another one was activated; retired spaces are kept far longer."""

_log = Log("memory")


@dataclass(frozen=True, slots=True)
class Space:
    """A model's vectors: which partition they lie in, and who makes more of them."""

    id: int
    dimensions: int
    embedder: Embedder
    state: Literal["active", "filling"] = "active"

    async def embed(self, texts: Sequence[str], purpose: Purpose, microdao_id: str) -> list[Vector]:
        """One vector per text. Raises as the embedder does, or Unavailable when its vectors have another length now."""
        return [self._checked(one) for one in await self.embedder.embed(texts, purpose, microdao_id)]

    async def embed_query(self, recent: RecentVectors, text: str, microdao_id: str) -> Vector:
        """The vector of a question, remembered or new. Raises as :meth:`embed`."""
        return self._checked(await recent.embed(self.embedder, self.dimensions, text, "query", microdao_id))

    def _checked(self, vector: Vector) -> Vector:
        if len(vector) != self.dimensions:
            raise Unavailable(
                f"the model {self.embedder.model!r} now makes vectors of {len(vector)} numbers, those in memory have"
                f" {self.dimensions}: an operator must reindex the memory (POST /admin/memory/reindex)"
            )
        return vector


class Spaces:
    """Which spaces there are, as this process can use them."""

    def __init__(self, database: Database, embedders: Embedders) -> None:
        self._database = database
        self.embedders = embedders
        self.recent = RecentVectors()
        self._known: list[Space] = []
        self._read_at = self._changed_at = 0.0

    async def active(self) -> Space:
        """The space that queries search. Raises Unavailable when this process lacks its model."""
        for space in await self._spaces():
            if space.state == "active":
                return space
        raise Unavailable("memories are embedded with a model that is not configured here")

    async def written(self) -> list[Space]:
        """The spaces that every item should be in: the active one first, and the one that is filling, if any.

        Raises Unavailable when this process lacks the active one's model.
        """
        return [await self.active(), *(one for one in await self._spaces() if one.state == "filling")]

    def reread(self) -> None:
        """Forget which spaces there are: something has changed."""
        self._changed_at = time.monotonic()

    async def _spaces(self) -> list[Space]:
        now = time.monotonic()  # taken before reading: what changes meanwhile is read the next time
        if not self._known or self._read_at <= self._changed_at or now - self._read_at > _REMEMBERED_S:
            self._known = await self._read()
            self._read_at = now
        return self._known

    async def _read(self) -> list[Space]:
        rows = await self._database.run(store_spaces.LIVE)
        if not rows:
            await self._make_first()
            rows = await self._database.run(store_spaces.LIVE)
        usable = []
        for row in rows:
            if embedder := self.embedders.find(row["model"]):
                usable.append(Space(row["space_id"], row["dimensions"], embedder, row["state"]))
            else:
                _log.warning(
                    "memories have a model that is not configured here", model=row["model"], state=row["state"]
                )
        return usable

    async def _make_first(self) -> None:
        """The local model's: it is at hand whatever a provider does, and another one takes over when it is filled."""
        local = self.embedders.local
        dimensions = await local.dimensions()
        async with self._database.system() as connection:
            await store_spaces.make_first(connection, local.model, dimensions)
