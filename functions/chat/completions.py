"""Shapes answers of agents and of raw models as chat completions, whole or streamed."""

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import asdict
from typing import Any

from shared.agents.turn import TextDelta, ToolUse, TurnEvent, TurnResult
from shared.errors import Internal
from shared.ids import new_id
from shared.wire import sse
from shared.wire.chat import chunk, completion, usage_chunk


async def agent_completion(events: AsyncGenerator[TurnEvent, None]) -> dict[str, Any]:
    """Run a turn to its end and shape it as one completion whose model is the session id."""
    result = await _last(events)
    message = dict(result.reply or {"content": None})
    body = completion(
        new_id("chatcmpl"), int(time.time()), result.session_id, message, result.finish_reason, result.usage
    )
    return body | {"daarion": turn_extras(result)}


async def agent_events(
    events: AsyncGenerator[TurnEvent, None], session_id: str, *, include_usage: bool
) -> AsyncGenerator[bytes, None]:
    """A turn as server-sent events: text as it comes, tool runs in the ``daarion`` field, the figures at the end."""
    shape = _ChunkShape(session_id, include_usage)
    begun = False
    async with aclosing(events) as turn:
        async for event in turn:
            if not begun:
                begun = True
                yield shape.encode({"role": "assistant", "content": "", "refusal": None})
            if isinstance(event, TextDelta):
                yield shape.encode({"content": event.text})
            elif isinstance(event, ToolUse):
                activity = {"name": event.name, "execution_id": event.execution_id, "status": event.status}
                yield shape.encode({}, daarion={"tool": activity})
            else:
                for part in _closing_chunks(shape, event):
                    yield part
    yield sse.DONE


async def model_events(
    chunks: AsyncGenerator[dict[str, Any], None], *, include_usage: bool
) -> AsyncGenerator[bytes, None]:
    """A raw model's chunks as server-sent events; usage only when the client asked for it."""
    async with aclosing(chunks) as upstream:
        async for part in upstream:
            if part["choices"]:
                yield sse.encode({**part, "usage": None} if include_usage else part)
            elif include_usage:
                yield sse.encode(part)
    yield sse.DONE


class _ChunkShape:
    """The fields that all chunks of one stream share."""

    def __init__(self, model: str, include_usage: bool) -> None:
        self.id = new_id("chatcmpl")
        self.created = int(time.time())
        self.model = model
        self.include_usage = include_usage

    def encode(self, delta: dict[str, Any], finish_reason: str | None = None, **extra: Any) -> bytes:
        """One chunk; with usage asked for, every chunk but the last says ``usage: null``."""
        body = chunk(self.id, self.created, self.model, delta, finish_reason) | extra
        return sse.encode(body | {"usage": None} if self.include_usage else body)


def _closing_chunks(shape: _ChunkShape, result: TurnResult) -> list[bytes]:
    calls = (result.reply or {}).get("tool_calls") or []
    delta = {"tool_calls": [{"index": index, **call} for index, call in enumerate(calls)]} if calls else {}
    parts = [shape.encode(delta, result.finish_reason, daarion=turn_extras(result))]
    if shape.include_usage:
        parts.append(sse.encode(usage_chunk(shape.id, shape.created, shape.model, result.usage)))
    return parts


def turn_extras(result: TurnResult) -> dict[str, Any]:
    """The ``daarion`` field of an agent's answer."""
    return {
        "session_id": result.session_id,
        "agent_id": result.agent_id,
        "memories": [asdict(one) for one in result.memories],
        "tools": [{"name": one.name, "execution_id": one.execution_id, "ms": one.ms} for one in result.tools],
        "cost_microusd": result.cost_microusd,
    }


async def _last(events: AsyncGenerator[TurnEvent, None]) -> TurnResult:
    async with aclosing(events) as turn:
        async for event in turn:
            if isinstance(event, TurnResult):
                return event
    raise Internal("The agent gave no answer.")
