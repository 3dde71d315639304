"""A model server on this machine (Ollama, llama.cpp, vLLM): where it is and which models it has."""

import time
from collections.abc import AsyncGenerator
from urllib.parse import urlsplit

import orjson

from shared.llm.providers.base import Answer, Delta, End, Endpoint, Quirks, Vectors
from shared.llm.providers.http import HttpTransport
from shared.llm.providers.openai_compatible import DIALECT
from shared.llm.providers.remote import RemoteProvider
from shared.llm.routing.models import ANY_MODEL
from shared.wire.chat import ChatRequest
from shared.wire.embeddings import EmbeddingRequest

OLLAMA_URL = "http://127.0.0.1:11434/v1"
NOT_WANTED = "none"
"""``LOCAL_LLM_BASE_URL=none`` switches the search for a local server off."""

LOCAL_QUIRKS = Quirks(reasoning_fields=("reasoning_content", "reasoning"))
"""Each server reads the reasoning of earlier answers under its own name and passes over the other."""

_PROBE_TIMEOUT_S = 0.2
_LOOK_AGAIN_S = 30.0
_SOME_MODEL = "default"
"""Sent to a configured server that lists nothing: llama.cpp and others serve their one model under any name."""


class LocalProvider:
    """A configured local server, or one found by itself. Its model list is read when first needed, then kept."""

    def __init__(self, base_url: str, transport: HttpTransport, *, is_configured: bool) -> None:
        self._base_url = base_url
        self._is_configured = is_configured
        self._models: list[str] = []
        self._look_at = 0.0
        endpoint = Endpoint(provider="local", base_url=base_url)
        self._remote = RemoteProvider(endpoint=endpoint, dialect=DIALECT, quirks=LOCAL_QUIRKS, transport=transport)

    def resolve(self, model: str) -> str | None:
        """``*`` is the first model of the list; a server nobody configured must be there to count."""
        models = self._known_models()
        if not models:
            return (_SOME_MODEL if model == ANY_MODEL else model) if self._is_configured else None
        if model == ANY_MODEL:
            return models[0]
        return model if model in models or self._is_configured else None

    async def complete(self, request: ChatRequest, model: str) -> Answer:
        """The whole answer. Raises ApiError."""
        return await self._remote.complete(request, model)

    def stream(self, request: ChatRequest, model: str) -> AsyncGenerator[Delta | End, None]:
        """The answer in pieces, ``End`` last. Raises ApiError."""
        return self._remote.stream(request, model)

    async def embed(self, request: EmbeddingRequest, model: str) -> Vectors:
        """The vectors of the inputs. Raises ApiError."""
        return await self._remote.embed(request, model)

    def _known_models(self) -> list[str]:
        if not self._models and time.monotonic() >= self._look_at:
            self._models = list_models(self._base_url)
            self._look_at = time.monotonic() + _LOOK_AGAIN_S
        return self._models


def local_base_url(configured: str) -> str:
    """The configured URL with ``/v1`` where it has no path; Ollama's own port when nothing is configured."""
    if not configured:
        return OLLAMA_URL
    return configured.rstrip("/") + ("" if urlsplit(configured).path.strip("/") else "/v1")


def list_models(base_url: str) -> list[str]:
    """The ids at ``{base_url}/models``; empty when no such server answers within 200 ms.

    Synchronous on purpose: a refused connection costs microseconds, and callers ask which models exist outside of I/O.
    """
    import http.client

    parts = urlsplit(base_url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "127.0.0.1", parts.port, timeout=_PROBE_TIMEOUT_S)
    try:
        connection.request("GET", f"{parts.path.rstrip('/')}/models", headers={"accept": "application/json"})
        document = orjson.loads(connection.getresponse().read(1_000_000))
        return [str(entry["id"]) for entry in document["data"]]
    except (OSError, http.client.HTTPException, orjson.JSONDecodeError, KeyError, TypeError):
        return []
    finally:
        connection.close()
