"""The port to whatever turns texts into vectors. Vectors of different embedders are never compared with each other."""

import asyncio
from collections.abc import Sequence
from typing import Literal, Protocol

Vector = list[float]
Purpose = Literal["passage", "query"]
"""What a text is: something to be found, or a question. Some models embed the two differently."""


class LocalModel(Protocol):
    """A model in this process. Both methods block; vectors have length 1, so that their dot product is their cosine."""

    @property
    def name(self) -> str:
        """Model and version."""

    @property
    def dimensions(self) -> int:
        """Numbers in a vector."""

    @property
    def cosines(self) -> tuple[float, float]:
        """The cosine of texts that have nothing to do with each other, and of a question with its perfect answer."""

    def prepare(self) -> None:
        """Build what loading needs, if it is missing."""

    def warm(self) -> None:
        """Load what the first call would load. Raises when the model cannot be used at all."""

    def embed(self, texts: Sequence[str], purpose: Purpose = "passage") -> list[Vector]:
        """One vector per text, in order."""


class Embedder(Protocol):
    """Turns texts into vectors of length 1."""

    @property
    def model(self) -> str:
        """Model and version; vectors of equal models may be compared."""

    @property
    def cosines(self) -> tuple[float, float]:
        """The cosine of texts that have nothing to do with each other, and of a question with its perfect answer."""

    @property
    def is_at_hand(self) -> bool:
        """Whether it answers in milliseconds, so that a connection to the database may be held meanwhile."""

    async def dimensions(self, microdao_id: str = "") -> int:
        """Numbers in a vector, as the model makes them now. ``microdao_id`` pays, if the model costs anything."""

    async def prepare(self) -> None:
        """Build what loading needs, if it is missing."""

    async def warm(self) -> None:
        """Load what the first call would load. Raises when the model cannot be used at all."""

    async def embed(self, texts: Sequence[str], purpose: Purpose, microdao_id: str) -> list[Vector]:
        """One vector per text, in order. ``microdao_id`` pays, if the model costs anything."""


class LocalEmbedder:
    """A model in this process, asked in a thread, for so many texts at once that others get their turn."""

    _BATCH = 32

    def __init__(self, model: LocalModel) -> None:
        self._model = model
        self.model = model.name
        self.cosines = model.cosines
        self._is_loaded = False
        self._running = 0

    @property
    def is_at_hand(self) -> bool:
        """Loaded, and nobody else is being answered."""
        return self._is_loaded and not self._running

    async def dimensions(self, microdao_id: str = "") -> int:
        """Numbers in a vector."""
        return self._model.dimensions

    async def prepare(self) -> None:
        """Build the model's files if they are missing (some seconds)."""
        await asyncio.to_thread(self._model.prepare)

    async def warm(self) -> None:
        """Load the model. Raises when it cannot be used at all."""
        await asyncio.to_thread(self._model.warm)
        self._is_loaded = True

    async def embed(self, texts: Sequence[str], purpose: Purpose, microdao_id: str) -> list[Vector]:
        """One vector per text, in order."""
        batches = [texts[start : start + self._BATCH] for start in range(0, len(texts), self._BATCH)]
        self._running += 1
        try:
            vectors = [one for batch in batches for one in await asyncio.to_thread(self._model.embed, batch, purpose)]
        finally:
            self._running -= 1
        self._is_loaded = True
        return vectors
