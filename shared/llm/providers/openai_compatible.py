"""OpenAI's chat completions as an upstream: OpenAI itself, DeepSeek, Ollama, vLLM and the like, told apart by quirks.

Source of the format: github.com/openai/openai-openapi, openapi.json, POST /chat/completions.
"""

from typing import Any

import orjson

from shared.errors import UpstreamError
from shared.ids import new_id
from shared.llm.providers import openai_embeddings
from shared.llm.providers.base import (
    OWN_FIELDS,
    Answer,
    CallNumbers,
    Delta,
    Dialect,
    EmbeddingDialect,
    End,
    Endpoint,
    Quirks,
    UpstreamCall,
)
from shared.llm.providers.openai_errors import map_error, map_event_error
from shared.llm.providers.openai_parts import parse, read_usage, upstream_call
from shared.wire.chat import ChatRequest, Usage

_REASONING_FIELDS = ("reasoning_content", "reasoning")
"""DeepSeek's name, which is ours, and that of vLLM 0.17 and later, Ollama and OpenRouter."""


_FINISH_REASONS = {name: name for name in ("stop", "length", "tool_calls", "content_filter", "function_call")} | {
    "insufficient_system_resource": "length"  # DeepSeek's, for an answer that it had to cut short
}


def to_upstream(request: ChatRequest, model: str, endpoint: Endpoint, quirks: Quirks) -> UpstreamCall:
    """The provider's request. Parameters that we do not know pass through as they came."""
    body: dict[str, Any] = request.model_dump(exclude=set(OWN_FIELDS), exclude_unset=True)
    body["model"] = model
    _apply_quirks(body, quirks)
    if request.stream:
        asked = request.stream_options.model_dump(exclude_unset=True) if request.stream_options else {}
        body |= {"stream": True, "stream_options": asked | {"include_usage": True}}
    return upstream_call("chat/completions", body, endpoint)


def from_upstream(body: bytes, endpoint: Endpoint) -> Answer:
    """The provider's answer. Raises UpstreamError when it is not a chat completion."""
    document = parse(body, endpoint)
    try:
        choice = document["choices"][0]
        message = {name: value for name, value in choice["message"].items() if name != "role" and value is not None}
        message = {"content": None} | _with_one_reasoning(message)
        if calls := message.pop("tool_calls", None):
            message["tool_calls"] = [_whole_call(call) for call in calls]
    except (KeyError, IndexError, TypeError, AttributeError):
        raise UpstreamError(f"{endpoint.provider} sent an answer that is not a chat completion") from None
    return Answer(
        message=message,
        finish_reason=_finish_reason(choice.get("finish_reason"), has_calls=bool(calls)),
        usage=read_usage(document.get("usage")),
        logprobs=choice.get("logprobs"),
    )


class OpenAIStreamReader:
    """Reads ``chat.completion.chunk`` events."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.done = False
        self._endpoint = endpoint
        self._numbers = CallNumbers()
        self._has_calls = False
        self._finish_reason: str | None = None
        self._usage: Usage | None = None

    def feed(self, event: bytes) -> list[Delta]:
        """The deltas in one event."""
        if event.strip() == b"[DONE]":
            self.done = True
            return []
        document = parse(event, self._endpoint)
        if error := document.get("error"):
            raise map_event_error(error, self._endpoint)
        self._usage = read_usage(document.get("usage")) or self._usage
        try:
            return self._deltas(document.get("choices") or [])
        except (KeyError, TypeError, AttributeError):
            raise UpstreamError(f"{self._endpoint.provider} sent a chunk that cannot be read") from None

    def end(self) -> End:
        """How it ended; a stream without a finish reason and without ``[DONE]`` broke off."""
        if self._finish_reason is None and not self.done:
            raise UpstreamError(f"{self._endpoint.provider} broke off its answer")
        return End(_finish_reason(self._finish_reason, has_calls=self._has_calls), self._usage)

    def _deltas(self, choices: list[dict[str, Any]]) -> list[Delta]:
        if not choices:
            return []
        choice = choices[0]
        self._finish_reason = choice.get("finish_reason") or self._finish_reason
        delta = {name: value for name, value in (choice.get("delta") or {}).items() if value not in (None, "", [])}
        delta.pop("role", None)
        delta = _with_one_reasoning(delta)
        calls = delta.pop("tool_calls", None) or []
        found = [Delta(delta, choice.get("logprobs"))] if delta else []
        return found + [Delta({"tool_calls": [part]}) for call in calls for part in self._call_parts(call)]

    def _call_parts(self, call: dict[str, Any]) -> list[dict[str, Any]]:
        """A call's first delta carries its id, type and name; arguments follow in deltas of their own."""
        self._has_calls = True
        function = call.get("function") or {}
        name, arguments = function.get("name") or "", _argument_text(function.get("arguments"))
        index, starts = self._numbers.place(call.get("index"), call.get("id") or "", name)
        parts: list[dict[str, Any]] = []
        if starts:
            head = {"name": name, "arguments": ""}
            parts.append({"index": index, "id": call.get("id") or new_id("call"), "type": "function", "function": head})
        if arguments:
            parts.append({"index": index, "function": {"arguments": arguments}})
        return parts


DIALECT = Dialect(
    to_upstream=to_upstream,
    from_upstream=from_upstream,
    stream_from_upstream=OpenAIStreamReader,
    map_error=map_error,
    embeddings=EmbeddingDialect(
        to_upstream=openai_embeddings.to_upstream, from_upstream=openai_embeddings.from_upstream
    ),
)


def _apply_quirks(body: dict[str, Any], quirks: Quirks) -> None:
    limits = [body.pop(name, None) for name in ("max_completion_tokens", "max_tokens")]
    if limit := next((value for value in limits if value is not None), None):
        body[quirks.max_tokens_field] = limit
    for message in body["messages"]:
        if message["role"] == "developer" and not quirks.has_developer_role:
            message["role"] = "system"
        message.pop("thinking_blocks", None)  # Anthropic's, from a turn that another route answered
        reasoning = [message.pop(name, None) for name in _REASONING_FIELDS]
        if kept := reasoning[0] or reasoning[1]:
            message |= dict.fromkeys(quirks.reasoning_fields, kept)


def _with_one_reasoning(message: dict[str, Any]) -> dict[str, Any]:
    """A message or delta with its reasoning under our name alone, whichever of the names it came by."""
    found = [message[name] for name in _REASONING_FIELDS if isinstance(message.get(name), str)]
    rest = {name: value for name, value in message.items() if name not in _REASONING_FIELDS}
    return {"reasoning_content": found[0], **rest} if found else rest


def _whole_call(call: dict[str, Any]) -> dict[str, Any]:
    function = {"name": call["function"]["name"], "arguments": _argument_text(call["function"].get("arguments"))}
    return {"id": call.get("id") or new_id("call"), "type": "function", "function": function}


def _argument_text(arguments: Any) -> str:
    """Arguments as JSON text; some local servers send the object itself."""
    if arguments is None or isinstance(arguments, str):
        return arguments or ""
    return orjson.dumps(arguments).decode()


def _finish_reason(reason: str | None, *, has_calls: bool) -> str:
    """Ollama and others say ``stop`` after tool calls; clients wait for ``tool_calls``. Unknown words are ``stop``."""
    if has_calls and reason in (None, "stop"):
        return "tool_calls"
    return _FINISH_REASONS.get(reason or "stop", "stop")
