"""Embeddings from a provider: through the LLM gateway, which admits, routes and accounts for every call."""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from shared.errors import UpstreamError
from shared.memory.embedding.port import Purpose, Vector
from shared.wire.embeddings import EmbeddingRequest

if TYPE_CHECKING:
    from shared.llm.gateway import Gateway

TEXTS_A_CALL = 64


class ProviderEmbedder:
    """A logical model of ``models.yaml``, ``kind: embedding``. ``gateway`` is asked for when it is first needed."""

    is_at_hand = False
    cosines = (0.0, 0.9)  # suits most embedders (docs/memory-search.md)

    def __init__(self, gateway: "Callable[[], Gateway]", model: str) -> None:
        self._gateway = gateway
        self.model = model

    async def dimensions(self, microdao_id: str = "") -> int:
        """Numbers in a vector, from the model's answer to a word. Raises as the gateway does."""
        return len((await self._embed(["memory"], microdao_id))[0])

    async def prepare(self) -> None:
        """There is nothing to build."""

    async def warm(self) -> None:
        """There is nothing to load: whether the provider answers shows with the first call."""

    async def embed(self, texts: Sequence[str], purpose: Purpose, microdao_id: str) -> list[Vector]:
        """One vector per text, in order; ``microdao_id`` pays. Raises as the gateway does."""
        vectors: list[Vector] = []
        for start in range(0, len(texts), TEXTS_A_CALL):
            vectors += await self._embed(texts[start : start + TEXTS_A_CALL], microdao_id)
        return vectors

    async def _embed(self, texts: Sequence[str], microdao_id: str) -> list[Vector]:
        from shared.llm.caller import Caller  # a process without a provider never loads the gateway

        request = EmbeddingRequest(model=self.model, input=list(texts))
        answer = await self._gateway().embed(request, Caller(microdao_id=microdao_id))
        return [_normalised(entry["embedding"], self.model) for entry in answer["data"]]


def _normalised(vector: Vector, model: str) -> Vector:
    length = math.sqrt(math.fsum(value * value for value in vector))
    if not 0 < length < math.inf:
        raise UpstreamError(f"{model} sent an embedding without a direction")
    return [value / length for value in vector]
