"""One try at one route: bounds its time, counts what came, and leaves exactly one ledger entry however it ends."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar

from shared.errors import ApiError, LlmTimeout
from shared.llm.attempts.watch import Watch
from shared.llm.caller import Caller
from shared.llm.money.ledger import LedgerEntry, Outcome, UsageSource
from shared.llm.money.pricing import UnitPrices
from shared.llm.providers.base import Answer, Delta, End, Provider, Vectors
from shared.llm.routing.models import Route
from shared.llm.tokens import estimate_tokens
from shared.observability import Log
from shared.wire.chat import ChatRequest, Usage, new_usage
from shared.wire.embeddings import EmbeddingRequest

_T = TypeVar("_T")
_log = Log("llm")


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What all attempts of a call have in common. ``prompt_tokens`` estimates the request; it is asked only at need."""

    caller: Caller
    model: str
    prompt_tokens: Callable[[], int]
    variant: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeLimits:
    """Seconds for a whole answer, for the first piece of a stream, between its pieces, and for all of a stream."""

    answer_s: float
    first_piece_s: float
    silence_s: float
    stream_s: float


class Attempt:
    """An async context manager around the call to the provider.

    ``on_exit`` gets the attempt and the error it ended with, and says whether that error is dealt with: another attempt
    follows. ``has_started`` is true once content came, after which no other attempt can.
    """

    def __init__(
        self,
        subject: Subject,
        route: Route,
        number: int,
        *,
        provider: Provider,
        limits: TimeLimits,
        unit_prices: Callable[[int], UnitPrices],
        on_exit: Callable[["Attempt", BaseException | None], bool],
    ) -> None:
        self.route = route
        self.number = number
        self.finish_reason = "stop"
        self.has_started = False
        self._subject = subject
        self._provider = provider
        self._limits = limits
        self._unit_prices = unit_prices
        self._on_exit = on_exit
        self._usage: Usage | None = None
        self._is_measured = False
        self._text: list[str] = []
        self._began = time.monotonic()

    @property
    def usage(self) -> Usage:
        """Tokens as the provider counted them, or estimated."""
        return self._usage if self._usage and self._is_measured else self._estimate()

    async def answer(self, request: ChatRequest) -> Answer:
        """Call the provider for a whole answer."""
        answer = await self._within_time(self._provider.complete(_capped(request, self.route), self.route.model))
        self._count(answer.message)
        self._measured(answer.usage)
        return answer

    async def vectors(self, request: EmbeddingRequest) -> Vectors:
        """Call the provider for embeddings."""
        vectors = await self._within_time(self._provider.embed(request, self.route.model))
        self._measured(vectors.usage)
        return vectors

    async def deltas(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        """Call the provider for a stream; closing this closes the upstream."""
        ends_at, silence_s = self._began + self._limits.stream_s, self._limits.first_piece_s
        stream = self._provider.stream(_capped(request, self.route), self.route.model)
        with Watch() as watch:
            async with aclosing(stream) as parts:
                while part := await self._next(parts, watch, min(silence_s, ends_at - time.monotonic())):
                    self.has_started, silence_s = True, self._limits.silence_s
                    self._usage = part.usage or self._usage
                    self._count(part.delta)
                    yield part

    async def _next(self, parts: AsyncGenerator[Delta | End, None], watch: Watch, seconds: float) -> Delta | None:
        """The next delta; None at the end, which is noted."""
        try:
            part = await watch.wait(anext(parts), seconds)
        except TimeoutError:
            raise self._late() from None
        if isinstance(part, Delta):
            return part
        self.finish_reason = part.finish_reason
        self._measured(part.usage)
        return None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        return self._on_exit(self, error)

    def entry(self, error: BaseException | None) -> LedgerEntry:
        """What goes into the ledger when the attempt ends with this error, or with none."""
        outcome = _outcome(error)
        usage, source = self._spent(outcome)
        entry = LedgerEntry(
            caller=self._subject.caller,
            model=self._subject.model,
            provider=self.route.provider,
            provider_model=self.route.model,
            attempt=self.number,
            outcome=outcome,
            error_code=(error.code if isinstance(error, ApiError) else "internal") if outcome == "failed" else None,
            usage=usage,
            usage_source=source,
            prices=self._unit_prices(usage["prompt_tokens"] if usage else 0),
            latency_ms=round((time.monotonic() - self._began) * 1000),
            variant=self._subject.variant,
        )
        if outcome == "failed":
            _log.warning("a model call failed", **_log_fields(entry))
        return entry

    async def _within_time(self, answer: Awaitable[_T]) -> _T:
        try:
            async with asyncio.timeout(self._limits.answer_s):
                return await answer
        except TimeoutError:
            raise self._late() from None

    def _late(self) -> LlmTimeout:
        return LlmTimeout(f"{self.route.provider} did not answer in time")

    def _measured(self, usage: Usage | None) -> None:
        self._is_measured = usage is not None
        self._usage = usage or self._usage

    def _spent(self, outcome: Outcome) -> tuple[Usage | None, UsageSource]:
        """A failure before any content is not billed by providers; what was begun and broke off is estimated."""
        if self._is_measured:
            return self._usage, "measured"
        if outcome == "failed" and not self.has_started:
            return None, "none"
        return self.usage, "estimated"

    def _estimate(self) -> Usage:
        """From the texts, and from what the provider told before the answer broke off where that is more."""
        said = self._usage or new_usage(0, 0)
        prompt = said["prompt_tokens"] or self._subject.prompt_tokens()
        completion = max(said["completion_tokens"], estimate_tokens("".join(self._text)))
        details = said.get("prompt_tokens_details", {})
        return new_usage(
            prompt,
            completion,
            cached=details.get("cached_tokens", 0),
            cache_creation=details.get("cache_creation_tokens", 0),
            cache_creation_1h=details.get("cache_creation_1h_tokens", 0),
        )

    def _count(self, message: dict[str, Any]) -> None:
        """Keep the text of an answer's pieces, for the estimate of a call that reports no usage."""
        for value in message.values():
            if isinstance(value, str):
                self._text.append(value)
            elif isinstance(value, list):
                functions = [call.get("function") or {} for call in value if isinstance(call, dict)]
                self._text += [str(function.get(key, "")) for function in functions for key in ("name", "arguments")]


def _capped(request: ChatRequest, route: Route) -> ChatRequest:
    """The request with the route's cap on its answer's tokens."""
    if route.max_tokens is None:
        return request
    asked = request.max_completion_tokens or request.max_tokens or route.max_tokens
    return request.model_copy(update={"max_completion_tokens": min(asked, route.max_tokens), "max_tokens": None})


def _outcome(error: BaseException | None) -> Outcome:
    if error is None:
        return "succeeded"
    return "cancelled" if isinstance(error, GeneratorExit | asyncio.CancelledError) else "failed"


def _log_fields(entry: LedgerEntry) -> dict[str, object]:
    return {
        "model": entry.model,
        "provider": entry.provider,
        "attempt": entry.attempt,
        "code": entry.error_code,
        "ms": entry.latency_ms,
    }
