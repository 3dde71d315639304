"""What every provider is to the gateway, and the plain data that passes between them."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol

from shared.errors import ApiError
from shared.wire.chat import ChatRequest, Usage
from shared.wire.embeddings import EmbeddingRequest

OWN_FIELDS: Final = frozenset(
    {"metadata", "agent_id", "microdao_id", "session_id", "channel_id", "stream", "stream_options"}
)
"""Fields of a request that say who it is for, or that we set ourselves. They never go to a provider."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quirks:
    """How one service differs from others of its dialect.

    ``reasoning_fields`` are the names under which it takes the reasoning of earlier answers back. ``max_tokens`` is
    sent when the caller states no limit, to a service that demands one.
    """

    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    has_developer_role: bool = False
    reasoning_fields: tuple[str, ...] = ()
    takes_token_lists: bool = False
    max_tokens: int = 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where a provider is and how it knows us. ``key_variable`` is named to the operator when the key is refused."""

    provider: str
    base_url: str
    api_key: str = ""
    key_variable: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamCall:
    """One HTTP request to a provider."""

    url: str
    headers: Mapping[str, str]
    body: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamFailure:
    """An HTTP answer that is not a success."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A whole answer: the assistant's message, why it ended, and what it used if the provider said so."""

    message: dict[str, Any]
    finish_reason: str
    usage: Usage | None = None
    logprobs: Any = None


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of a streamed answer, in OpenAI's ``delta`` form; never empty.

    ``usage`` is what the provider says was used so far, where it tells before the end: an answer that breaks off or is
    abandoned can then be accounted for by more than an estimate.
    """

    delta: dict[str, Any]
    logprobs: Any = None
    usage: Usage | None = None


@dataclass(frozen=True, slots=True)
class End:
    """The last part of a streamed answer."""

    finish_reason: str
    usage: Usage | None = None


class StreamReader(Protocol):
    """Turns a provider's events into deltas. It does no I/O: events are fed to it."""

    done: bool

    def feed(self, event: bytes) -> list[Delta]:
        """The deltas in the data of one event. Raises ApiError when the event says so or is garbage."""
        ...

    def end(self) -> End:
        """How the answer ended. Raises UpstreamError when the stream broke off before its end."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Vectors:
    """Embeddings, one per input and in its order, and what they used if the provider said so."""

    vectors: list[list[float]]
    usage: Usage | None = None


TextEmbedder = Callable[[Sequence[str]], Awaitable[list[list[float]]]]
"""What embeds texts in this process, given to the ``offline`` provider at start: one vector per text, in order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingDialect:
    """The wire format of a provider's embeddings: two pure functions."""

    to_upstream: Callable[[EmbeddingRequest, str, Endpoint, Quirks], UpstreamCall]
    from_upstream: Callable[[bytes, EmbeddingRequest, Endpoint], Vectors]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """A provider's wire format: four pure functions, and the embeddings of those that have any."""

    to_upstream: Callable[[ChatRequest, str, Endpoint, Quirks], UpstreamCall]
    from_upstream: Callable[[bytes, Endpoint], Answer]
    stream_from_upstream: Callable[[Endpoint], StreamReader]
    map_error: Callable[[UpstreamFailure, Endpoint], ApiError]
    embeddings: EmbeddingDialect | None = None


class Provider(Protocol):
    """Something that answers chat requests and may embed texts."""

    def resolve(self, model: str) -> str | None:
        """The provider's own name for a route's model; None while it cannot serve it."""
        ...

    async def complete(self, request: ChatRequest, model: str) -> Answer:
        """The whole answer. Raises ApiError."""
        ...

    def stream(self, request: ChatRequest, model: str) -> AsyncGenerator[Delta | End, None]:
        """The answer in pieces, ``End`` last. Closing it early closes the upstream. Raises ApiError."""
        ...

    async def embed(self, request: EmbeddingRequest, model: str) -> Vectors:
        """The vectors of the inputs. Raises ApiError; UnsupportedParameter where the provider has no such model."""
        ...


@dataclass(slots=True)
class CallNumbers:
    """Gives streamed tool calls their place in the answer, whatever the provider numbers them by.

    Some servers send every call as index 0, or none at all; a delta with a name and a new id, or no id, then starts a
    new call.
    """

    _ids: list[str] = field(default_factory=list)
    _places: dict[int, int] = field(default_factory=dict)

    def place(self, index: int | None, call_id: str, name: str) -> tuple[int, bool]:
        """The call's index in our answer, and whether this delta starts it."""
        number = index if index is not None and index >= 0 else None
        known = self._places.get(number) if number is not None else (len(self._ids) - 1 if self._ids else None)
        starts = known is None or (bool(name) and (not call_id or call_id != self._ids[known]))
        if not starts and known is not None:
            return known, False
        self._ids.append(call_id)
        if number is not None:
            self._places[number] = len(self._ids) - 1
        return len(self._ids) - 1, True
