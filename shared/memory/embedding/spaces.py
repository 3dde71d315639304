"""The embedding spaces: one table partition per model, of which one is searched and one may be filling beside it."""

import time
from dataclasses import dataclass

from shared.db.database import Database
from shared.errors import Unavailable
from shared.memory import store_spaces
from shared.memory.embedding.port import Embedder

_REMEMBERED_S = 5.0
"""How long a process may search a space after another one was activated; retired spaces are kept far longer."""


@dataclass(frozen=True, slots=True)
class Space:
    """A model's vectors: which partition they lie in, and who makes more of them."""

    id: int
    dimensions: int
    embedder: Embedder


class Spaces:
    """Which spaces there are. ``default`` embeds for the first one; ``others`` are known by their model's name."""

    def __init__(self, database: Database, default: Embedder, others: tuple[Embedder, ...] = ()) -> None:
        self._database = database
        self._default = default
        self._embedders = {one.model: one for one in (*others, default)}
        self._known: dict[str, Space] = {}
        self._read_at = 0.0

    async def active(self) -> Space:
        """The space that queries search. Raises Unavailable when this process lacks its model."""
        return (await self._spaces())["active"]

    async def written(self) -> list[Space]:
        """The spaces that every item must be in: the active one and the one that is filling, if any."""
        return list((await self._spaces()).values())

    async def _spaces(self) -> dict[str, Space]:
        if time.monotonic() - self._read_at > _REMEMBERED_S:
            self._known = await self._read()
            self._read_at = time.monotonic()
        return self._known

    async def _read(self) -> dict[str, Space]:
        rows = await self._database.run(store_spaces.LIVE)
        if not rows:
            await self._make_first()
            rows = await self._database.run(store_spaces.LIVE)
        return {row["state"]: Space(row["space_id"], row["dimensions"], self._embedder(row["model"])) for row in rows}

    async def _make_first(self) -> None:
        dimensions = await self._default.dimensions()
        async with self._database.system() as connection:
            await store_spaces.make_first(connection, self._default.model, dimensions)

    def _embedder(self, model: str) -> Embedder:
        if model not in self._embedders:
            raise Unavailable(f"memories are embedded with {model!r}, which is not configured here")
        return self._embedders[model]
