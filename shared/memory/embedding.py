"""The port to whatever turns texts into vectors. Vectors of different embedders are never compared with each other."""

import asyncio
from collections.abc import Sequence
from typing import Protocol

Vector = list[float]


class Embedder(Protocol):
    """Turns texts into vectors of length 1, so that their dot product is their cosine. The methods block."""

    @property
    def name(self) -> str:
        """Model and version; names the table that holds its vectors."""

    @property
    def dimensions(self) -> int:
        """Numbers in a vector."""

    def prepare(self) -> None:
        """Make the files that loading needs, if they are missing. Raises when the model cannot be used at all."""

    def warm(self) -> None:
        """Load what the first call would load. Raises when the model cannot be used at all."""

    def embed(self, texts: Sequence[str]) -> list[Vector]:
        """One vector per text, in order."""


async def embed(embedder: Embedder, texts: Sequence[str]) -> list[Vector]:
    """The vectors of ``texts``, computed in a thread."""
    return await asyncio.to_thread(embedder.embed, texts)
