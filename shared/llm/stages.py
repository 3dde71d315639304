"""What a chat call passes before it is admitted and after it is answered: experiments, sanitising, kept answers."""

from dataclasses import dataclass
from typing import Any

from shared.llm.answers.response_cache import CacheKey, ResponseCache, cache_key, wanted_ttl
from shared.llm.caller import Caller
from shared.llm.experiments.experiments import Experiments
from shared.llm.safety.policy import SanitizePolicy
from shared.llm.safety.sanitize import sanitize_inputs, sanitize_request
from shared.wire.chat import ChatRequest
from shared.wire.embeddings import EmbeddingRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A request as it goes out. ``asked`` is the model's name in the caller's words, ``variant`` an experiment's label.

    With a ``cache_key`` the answer may come from before and is kept for ``ttl_s``.
    """

    request: ChatRequest
    asked: str
    policy: SanitizePolicy
    variant: str | None
    cache_key: CacheKey | None
    ttl_s: int


class Stages:
    """The stages, in this order. ``policy`` is for calls whose blueprint has none of its own."""

    def __init__(self, experiments: Experiments, policy: SanitizePolicy, cache: ResponseCache) -> None:
        self._experiments = experiments
        self._policy = policy
        self._cache = cache

    async def prepare(self, request: ChatRequest, caller: Caller) -> Prepared:
        """Raises InvalidRequest, ContextLengthExceeded or Internal when the request may not go out."""
        varied, assignment = await self._experiments.apply(request, caller)
        policy = self._policy_for(caller)
        clean = sanitize_request(varied, policy)
        ttl_s = wanted_ttl(clean, caller)
        return Prepared(
            request=clean,
            asked=request.model,
            policy=policy,
            variant=assignment.label if assignment else None,
            cache_key=cache_key(clean, caller, policy) if ttl_s else None,
            ttl_s=ttl_s or 0,
        )

    def clean(self, request: EmbeddingRequest, caller: Caller) -> EmbeddingRequest:
        """Texts to embed as they may go out. Raises as ``prepare`` does."""
        return sanitize_inputs(request, self._policy_for(caller))

    async def kept(self, prepared: Prepared) -> dict[str, Any] | None:
        """The answer that was kept for this very question, if it may be used and there is one."""
        if prepared.cache_key is None:
            return None
        found = await self._cache.find(prepared.cache_key)
        return None if found is None else {**found, "model": prepared.asked}

    async def keep(self, prepared: Prepared, completion: dict[str, Any]) -> None:
        """Keep an answer whose request asked for that."""
        if prepared.cache_key is not None:
            await self._cache.keep(prepared.cache_key, completion, prepared.ttl_s)

    def _policy_for(self, caller: Caller) -> SanitizePolicy:
        return caller.sanitize.within(self._policy) if caller.sanitize else self._policy
