"""Answers kept because their requests asked for it: the same question again is answered from the table, at no cost.

A request asks with ``metadata.cache``: ``true`` (an hour) or ``{"ttl_s": seconds}``; a blueprint with ``cache_ttl_s``
asks for its agents. Only the very same question hits: tenant, model, messages, tools, parameters and what is taken out
of answers. Errors, cut answers and answers to confidential calls are never kept.
"""

import hashlib
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final

import orjson

from shared.db.database import Database
from shared.errors import ApiError, InvalidRequest
from shared.ids import uuid7
from shared.llm.answers import store_cache
from shared.llm.caller import Caller
from shared.llm.safety.policy import SanitizePolicy
from shared.observability import Log
from shared.wire.chat import ChatRequest, chunk, usage_chunk

DEFAULT_TTL_S: Final = 3600
MAX_TTL_S: Final = 7 * 24 * 3600
MAX_ANSWER_BYTES: Final = 256_000
_MAX_TENANT_BYTES: Final = 16_000_000
_SWEEP_LIMIT: Final = 10_000
_PIECE_CHARACTERS: Final = 64
_WHOLE: Final = frozenset({"stop", "tool_calls"})
_NOT_ASKED: Final = {
    *("metadata", "stream", "stream_options", "user", "store"),
    *("agent_id", "microdao_id", "session_id", "channel_id"),
}
"""Fields that do not change what is answered."""

_log = Log("llm")


@dataclass(frozen=True, slots=True)
class CacheKey:
    """One question of one tenant."""

    microdao_id: str
    model: str
    digest: bytes


def wanted_ttl(request: ChatRequest, caller: Caller) -> int | None:
    """For how many seconds the answer may be kept and reused; None when it may not. Raises InvalidRequest."""
    wish = (request.metadata.model_extra or {}).get("cache") if request.metadata else None
    if wish is None or wish is False:
        return None
    seconds = DEFAULT_TTL_S if wish is True else wish.get("ttl_s") if isinstance(wish, dict) else None
    if not isinstance(seconds, int) or isinstance(seconds, bool) or not 0 < seconds <= MAX_TTL_S:
        raise InvalidRequest(
            f"metadata.cache must be true or {{ttl_s: 1 to {MAX_TTL_S} (whole seconds)}}", param="metadata.cache"
        )
    return None if caller.confidential else seconds


def cache_key(request: ChatRequest, caller: Caller, policy: SanitizePolicy) -> CacheKey:
    """The key of a request as it would go out, after experiments and sanitising."""
    asked = request.model_dump(exclude=_NOT_ASKED, exclude_none=True)
    question = {"asked": asked, "policy": asdict(policy) if policy.answers else None}
    canonical = orjson.dumps(question, option=orjson.OPT_SORT_KEYS)
    return CacheKey(caller.microdao_id, request.model, hashlib.sha256(canonical).digest())


class ResponseCache:
    """The table of kept answers. ``max_tenant_bytes``: beyond it a tenant's oldest answers go."""

    def __init__(self, database: Database, *, max_tenant_bytes: int = _MAX_TENANT_BYTES) -> None:
        self._database = database
        self._max_tenant_bytes = max_tenant_bytes

    async def find(self, key: CacheKey) -> dict[str, Any] | None:
        """The kept answer as a new ``chat.completion`` that costs nothing and says ``daarion.cached``."""
        kept = await store_cache.find(self._database, key.microdao_id, key.digest)
        if kept is None:
            return None
        made: dict[str, Any] = {"id": f"chatcmpl-{uuid7().hex}", "object": "chat.completion"}
        return {**made, "created": int(time.time()), **kept, "daarion": {"cached": True, "cost_microusd": 0}}

    async def keep(self, key: CacheKey, completion: dict[str, Any], ttl_s: int) -> bool:
        """Keep an answer; False when it is not one to keep. A fault is logged: the answer itself was good."""
        kept = {name: completion[name] for name in ("model", "choices", "usage")}
        written = orjson.dumps(kept)
        if completion["choices"][0]["finish_reason"] not in _WHOLE or len(written) > MAX_ANSWER_BYTES:
            return False
        try:
            async with self._database.tenant(key.microdao_id) as connection:
                await store_cache.put(connection, key.microdao_id, key.model, key.digest, written, ttl_s)
                await store_cache.evict(connection, key.microdao_id, self._max_tenant_bytes)
        except ApiError as error:
            _log.warning("an answer could not be kept", code=error.code)
            return False
        return True

    async def sweep(self) -> int:
        """Delete answers whose time is over, some thousands at most; how many."""
        return await store_cache.delete_expired(self._database, _SWEEP_LIMIT)


def replay_chunks(completion: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A whole answer as the chunks of a stream, the usage chunk (with ``daarion``) last."""
    shape = (completion["id"], completion["created"], completion["model"])
    choice = completion["choices"][0]
    message = choice["message"]
    yield chunk(*shape, {"role": "assistant", "content": "", "refusal": None})
    for name, value in message.items():
        if name not in ("role", "tool_calls") and value:
            for piece in _pieces(value):
                yield chunk(*shape, {name: piece})
    if calls := message.get("tool_calls"):
        yield chunk(*shape, {"tool_calls": [{"index": index, **call} for index, call in enumerate(calls)]})
    end = chunk(*shape, {}, choice["finish_reason"])
    end["choices"][0]["logprobs"] = choice.get("logprobs")
    yield end
    yield usage_chunk(*shape, completion["usage"]) | {"daarion": completion["daarion"]}


def _pieces(value: Any) -> list[Any]:
    if not isinstance(value, str):
        return [value]
    return [value[start : start + _PIECE_CHARACTERS] for start in range(0, len(value), _PIECE_CHARACTERS)]
