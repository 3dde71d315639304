"""OpenAI's embeddings as an upstream (openapi.json, POST /embeddings)."""

from typing import Any

from shared.errors import UnsupportedParameter, UpstreamError
from shared.llm.providers.base import OWN_FIELDS, Endpoint, Quirks, UpstreamCall, Vectors
from shared.llm.providers.openai_parts import parse, read_usage, upstream_call
from shared.wire.embeddings import EmbeddingRequest, decode_base64


def to_upstream(request: EmbeddingRequest, model: str, endpoint: Endpoint, quirks: Quirks) -> UpstreamCall:
    """The provider's request. It is asked for plain numbers, which every service can send.

    Raises UnsupportedParameter for token ids where the service takes only text.
    """
    if not quirks.takes_token_lists and not isinstance(request.inputs()[0], str):
        raise UnsupportedParameter("this model takes texts, not token ids", param="input")
    body: dict[str, Any] = request.model_dump(exclude=set(OWN_FIELDS), exclude_none=True)
    body |= {"model": model, "encoding_format": "float"}
    return upstream_call("embeddings", body, endpoint)


def from_upstream(body: bytes, request: EmbeddingRequest, endpoint: Endpoint) -> Vectors:
    """The vectors in the order of the inputs. Raises UpstreamError when one is missing or is no vector."""
    document = parse(body, endpoint)
    try:
        entries = sorted(document["data"], key=lambda entry: int(entry["index"]))
        vectors = [_vector(entry["embedding"]) for entry in entries]
    except (KeyError, TypeError, ValueError):
        raise UpstreamError(f"{endpoint.provider} sent an answer that is not a list of embeddings") from None
    if len(vectors) != len(request.inputs()) or not all(vectors):
        raise UpstreamError(f"{endpoint.provider} did not send one embedding per input")
    return Vectors(vectors=vectors, usage=read_usage(document.get("usage")))


def _vector(embedding: Any) -> list[float]:
    """Some services send base64 whatever they are asked for."""
    return decode_base64(embedding) if isinstance(embedding, str) else [float(number) for number in embedding]
