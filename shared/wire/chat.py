"""OpenAI's chat completion types. Requests are checked models; answers are plain dictionaries, cheap to pass on."""

from typing import Annotated, Any, Literal, NotRequired, TypedDict

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Text = Annotated[str, StringConstraints(max_length=1_000_000)]


class FunctionCall(BaseModel):
    """A function's name and its arguments as JSON text."""

    name: str = Field(max_length=64)
    arguments: Text = ""


class ToolCall(BaseModel):
    """One call that the assistant asks for."""

    id: str = Field(max_length=200)
    type: Literal["function"] = "function"
    function: FunctionCall


class ContentPart(BaseModel):
    """A part of a message: text, an image or another kind that a model may take."""

    model_config = ConfigDict(extra="allow")
    type: str
    text: Text | None = None


class ChatMessage(BaseModel):
    """One message. Unknown fields (``reasoning_content``, ``name``…) pass through."""

    model_config = ConfigDict(extra="allow")
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: Text | list[ContentPart] | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None


class FunctionSpec(BaseModel):
    """A function a model may call; ``parameters`` is a JSON schema."""

    model_config = ConfigDict(extra="allow")
    name: str = Field(pattern=r"^[a-zA-Z0-9_.-]{1,64}$")
    description: str | None = None
    parameters: dict[str, Any] | None = None


class ToolSpec(BaseModel):
    """A tool offered to the model."""

    type: Literal["function"]
    function: FunctionSpec


class StreamOptions(BaseModel):
    """What a stream should carry besides content."""

    model_config = ConfigDict(extra="allow")
    include_usage: bool = False


class ChatMetadata(BaseModel):
    """Who the call is for, and which session it goes on. Other keys pass through."""

    model_config = ConfigDict(extra="allow")
    agent_id: str | None = None
    microdao_id: str | None = None
    session_id: str | None = None
    channel_id: str | None = None


class ChatRequest(BaseModel):
    """The body of ``POST /v1/chat/completions``; provider parameters that it does not name pass through."""

    model_config = ConfigDict(extra="allow")
    model: str = Field(min_length=1, max_length=256)
    messages: list[ChatMessage] = Field(min_length=1, max_length=2048)
    stream: bool = False
    stream_options: StreamOptions | None = None
    tools: list[ToolSpec] | None = Field(default=None, max_length=512)
    tool_choice: Literal["none", "auto", "required"] | dict[str, Any] | None = None
    max_tokens: int | None = Field(default=None, ge=1, le=10_000_000)
    max_completion_tokens: int | None = Field(default=None, ge=1, le=10_000_000)
    temperature: float | None = Field(default=None, ge=0, le=2)
    n: Literal[1] | None = None
    metadata: ChatMetadata | None = None


class Usage(TypedDict):
    """Tokens of one call. ``prompt_tokens`` includes cached ones, ``completion_tokens`` includes reasoning.

    ``prompt_tokens_details`` has ``cached_tokens`` (read from the provider's cache) and, where a provider bills for it,
    ``cache_creation_tokens`` (written to the cache) with ``cache_creation_1h_tokens``, the part of those that is kept
    for an hour. Read, written and plain tokens are disjoint; together they are the prompt.
    """

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: NotRequired[dict[str, int]]
    completion_tokens_details: NotRequired[dict[str, int]]


def new_usage(
    prompt: int,
    completion: int,
    *,
    cached: int = 0,
    reasoning: int = 0,
    cache_creation: int = 0,
    cache_creation_1h: int = 0,
) -> Usage:
    """A usage record whose total is the sum of its parts. Cache creation is named only where there was any."""
    details = {"cached_tokens": cached}
    if cache_creation:
        details["cache_creation_tokens"] = cache_creation
    if cache_creation_1h:
        details["cache_creation_1h_tokens"] = cache_creation_1h
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": details,
        "completion_tokens_details": {"reasoning_tokens": reasoning},
    }


def completion(
    completion_id: str, created: int, model: str, message: dict[str, Any], finish_reason: str, usage: Usage
) -> dict[str, Any]:
    """A whole ``chat.completion`` with one choice."""
    return {
        "id": completion_id,
        "object": "chat.completion",
        "created": created,
        "model": model,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "refusal": None, **message},
                "logprobs": None,
                "finish_reason": finish_reason,
            }
        ],
        "usage": usage,
    }


def chunk(
    completion_id: str, created: int, model: str, delta: dict[str, Any], finish_reason: str | None = None
) -> dict[str, Any]:
    """A ``chat.completion.chunk`` with one choice."""
    return {
        "id": completion_id,
        "object": "chat.completion.chunk",
        "created": created,
        "model": model,
        "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}],
    }


def usage_chunk(completion_id: str, created: int, model: str, usage: Usage) -> dict[str, Any]:
    """The last chunk of a stream whose client asked for usage: no choices (Dify and LangChain.js rely on it)."""
    return {
        "id": completion_id,
        "object": "chat.completion.chunk",
        "created": created,
        "model": model,
        "choices": [],
        "usage": usage,
    }
