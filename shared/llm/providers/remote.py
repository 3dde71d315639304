"""A provider behind HTTP: a dialect's pure functions joined to the transport."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from shared.errors import UnsupportedParameter
from shared.llm.providers.base import Answer, Delta, Dialect, End, Endpoint, Quirks, Vectors
from shared.llm.providers.http import HttpTransport, UpstreamRefused
from shared.wire.chat import ChatRequest
from shared.wire.embeddings import EmbeddingRequest
from shared.wire.sse import SseDecoder


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteProvider:
    """One configured service."""

    endpoint: Endpoint
    dialect: Dialect
    quirks: Quirks
    transport: HttpTransport

    def resolve(self, model: str) -> str | None:
        """Services take the route's name for a model as it is."""
        return model

    async def complete(self, request: ChatRequest, model: str) -> Answer:
        """The whole answer. Raises ApiError."""
        whole = request.model_copy(update={"stream": False})
        call = self.dialect.to_upstream(whole, model, self.endpoint, self.quirks)
        try:
            body = await self.transport.post(call, self.endpoint)
        except UpstreamRefused as refused:
            raise self.dialect.map_error(refused.failure, self.endpoint) from None
        return self.dialect.from_upstream(body, self.endpoint)

    async def stream(self, request: ChatRequest, model: str) -> AsyncGenerator[Delta | End, None]:
        """The answer in pieces, ``End`` last. Raises ApiError."""
        streamed = request.model_copy(update={"stream": True})
        call = self.dialect.to_upstream(streamed, model, self.endpoint, self.quirks)
        reader = self.dialect.stream_from_upstream(self.endpoint)
        decoder = SseDecoder()
        try:
            async with aclosing(self.transport.stream(call, self.endpoint)) as pieces:
                async for piece in pieces:
                    for event in decoder.feed(piece):
                        for delta in reader.feed(event):
                            yield delta
                    if reader.done:
                        break
        except UpstreamRefused as refused:
            raise self.dialect.map_error(refused.failure, self.endpoint) from None
        yield reader.end()

    async def embed(self, request: EmbeddingRequest, model: str) -> Vectors:
        """The vectors of the inputs. Raises ApiError."""
        embeddings = self.dialect.embeddings
        if embeddings is None:
            raise UnsupportedParameter(f"{self.endpoint.provider} has no embeddings", param="model")
        call = embeddings.to_upstream(request, model, self.endpoint, self.quirks)
        try:
            body = await self.transport.post(call, self.endpoint)
        except UpstreamRefused as refused:
            raise self.dialect.map_error(refused.failure, self.endpoint) from None
        return embeddings.from_upstream(body, request, self.endpoint)
