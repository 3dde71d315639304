"""The built-in ``offline`` provider: deterministic, rule-based, free. It answers when no real model is set up.

It is no language model and says so. It chooses a tool by the request's words, fills simple arguments, tells what came
of it, quotes memories, and asks when it has nothing to go on. English, Ukrainian and Russian.
"""

import re
from collections.abc import AsyncGenerator, Iterator
from typing import Any

from shared.errors import Unavailable, UnsupportedParameter
from shared.ids import new_id
from shared.llm.providers.base import Answer, Delta, End, TextEmbedder, Vectors
from shared.llm.providers.offline.answer import Reply, decide
from shared.llm.providers.offline.json_mode import encoded
from shared.llm.providers.offline.requests import Call
from shared.llm.tokens import estimate_prompt_tokens, estimate_tokens
from shared.wire.chat import ChatRequest, Usage, new_usage
from shared.wire.embeddings import EmbeddingRequest

_WORD = re.compile(r"\s*\S+\s*")
_FRAGMENT = 24
"""Characters of a tool call's arguments in one delta."""

_BYTES_PER_TOKEN = 4


class OfflineProvider:
    """Answers from rules, and embeds with the model that ships with the platform."""

    def __init__(self, embedder: TextEmbedder | None = None) -> None:
        self._embedder = embedder

    def resolve(self, model: str) -> str | None:
        """There is one model, whatever it is called."""
        return model

    async def complete(self, request: ChatRequest, model: str) -> Answer:
        """The whole answer."""
        reply = decide(request)
        if isinstance(reply, Call):
            call = {"id": new_id("call"), "type": "function", "function": _function(reply)}
            return Answer(
                message={"content": None, "tool_calls": [call]},
                finish_reason="tool_calls",
                usage=_usage(request, reply),
            )
        text, finish_reason = _limited(request, reply)
        return Answer(message={"content": text}, finish_reason=finish_reason, usage=_usage(request, text))

    async def stream(self, request: ChatRequest, model: str) -> AsyncGenerator[Delta | End, None]:
        """The answer word by word, or the call with its arguments in fragments."""
        reply = decide(request)
        finish_reason = "tool_calls"
        if isinstance(reply, str):
            reply, finish_reason = _limited(request, reply)
        for delta in _deltas(reply):
            yield Delta(delta)
        yield End(finish_reason, _usage(request, reply))

    async def embed(self, request: EmbeddingRequest, model: str) -> Vectors:
        """The vectors of the texts. Raises UnsupportedParameter for token ids, and for another number of dimensions."""
        if self._embedder is None:
            raise Unavailable("this process has no embedding model of its own")
        texts = [one for one in request.inputs() if isinstance(one, str)]
        if not texts:
            raise UnsupportedParameter(f"{request.model} takes texts, not token ids", param="input")
        try:
            vectors = await self._embedder(texts)
        except (ImportError, RuntimeError) as error:
            raise Unavailable("the platform's own embedding model cannot be loaded here") from error
        if request.dimensions not in (None, len(vectors[0])):
            raise UnsupportedParameter(f"{request.model} has {len(vectors[0])} dimensions only", param="dimensions")
        return Vectors(vectors=vectors, usage=new_usage(sum(map(estimate_tokens, texts)), 0))


def _deltas(reply: Reply) -> Iterator[dict[str, Any]]:
    if isinstance(reply, str):
        yield from ({"content": piece} for piece in _WORD.findall(reply))
        return
    function = _function(reply)
    head = {"name": function["name"], "arguments": ""}
    yield {"tool_calls": [{"index": 0, "id": new_id("call"), "type": "function", "function": head}]}
    text = function["arguments"]
    for begin in range(0, len(text), _FRAGMENT):
        yield {"tool_calls": [{"index": 0, "function": {"arguments": text[begin : begin + _FRAGMENT]}}]}


def _function(call: Call) -> dict[str, str]:
    return {"name": call.tool, "arguments": encoded(call.args)}


def _limited(request: ChatRequest, text: str) -> tuple[str, str]:
    """The text within the request's token limit, and the finish reason."""
    limit = request.max_completion_tokens or request.max_tokens
    if limit is None or estimate_tokens(text) <= limit:
        return text, "stop"
    return text.encode()[: limit * _BYTES_PER_TOKEN].decode(errors="ignore"), "length"


def _usage(request: ChatRequest, reply: Reply) -> Usage:
    text = reply if isinstance(reply, str) else "".join(_function(reply).values())
    return new_usage(estimate_prompt_tokens(request), estimate_tokens(text))
