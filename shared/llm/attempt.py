"""One try at one route: counts what came, and leaves exactly one ledger row however it ends."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from types import TracebackType
from typing import Self

from shared.clock import utc_now
from shared.errors import ApiError, LlmTimeout, RateLimitExceeded, Unavailable, UpstreamError
from shared.llm.caller import Caller
from shared.llm.ledger import Ledger, LedgerEntry, Outcome, UsageSource
from shared.llm.models import Route
from shared.llm.pricing import PriceTable, UnitPrices
from shared.llm.providers.base import Answer, Delta, End, Provider
from shared.llm.tokens import estimate_prompt_tokens, estimate_tokens
from shared.observability import Log
from shared.wire.chat import ChatRequest, Usage, new_usage

_ROUTE_FAULTS = (UpstreamError, LlmTimeout, RateLimitExceeded, Unavailable)
"""Errors that another route may not have. Any other is the caller's own, and would be met everywhere."""

_log = Log("llm")


class Attempt:
    """An async context manager around the call to the provider.

    Leaving it writes the ledger row: succeeded, failed, or cancelled when the caller went away. Entering it raises
    Unavailable when the route's price is unknown; nothing was called then and no row is written. ``is_final`` says,
    once it is left, whether its outcome is the call's: no other route is tried after it.
    """

    def __init__(
        self,
        request: ChatRequest,
        caller: Caller,
        model: str,
        route: Route,
        number: int,
        *,
        provider: Provider,
        prices: PriceTable,
        ledger: Ledger,
        is_last: bool,
    ) -> None:
        self.route = route
        self.is_final = is_last
        self.finish_reason = "stop"
        self.cost_microusd = 0
        self._request = request
        self._caller = caller
        self._model = model
        self._number = number
        self._provider = provider
        self._prices = prices
        self._ledger = ledger
        self._has_started = False
        self._usage: Usage | None = None
        self._text: list[str] = []
        self._began = 0.0

    @property
    def usage(self) -> Usage:
        """Tokens as the provider counted them, or estimated."""
        return self._usage or new_usage(estimate_prompt_tokens(self._request), estimate_tokens("".join(self._text)))

    async def answer(self) -> Answer:
        """Call the provider for a whole answer."""
        answer = await self._provider.complete(self._request, self.route.model)
        self._usage = answer.usage
        self._count(answer.message)
        return answer

    async def deltas(self) -> AsyncGenerator[Delta, None]:
        """Call the provider for a stream; closing this closes the upstream."""
        async with aclosing(self._provider.stream(self._request, self.route.model)) as parts:
            async for part in parts:
                if isinstance(part, End):
                    self.finish_reason, self._usage = part.finish_reason, part.usage
                else:
                    self._has_started = True
                    self._count(part.delta)
                    yield part

    async def __aenter__(self) -> Self:
        self._unit_prices(0)
        self._began = time.monotonic()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.is_final = self.is_final or self._has_started or not isinstance(error, _ROUTE_FAULTS)
        entry = self._entry(error)
        self.cost_microusd = entry.cost_microusd
        if isinstance(error, ApiError):
            _log.warning("a model call failed", **_log_fields(entry))
        await self._ledger.write(entry)

    def _entry(self, error: BaseException | None) -> LedgerEntry:
        outcome = _outcome(error)
        usage, source = self._spent(outcome)
        return LedgerEntry(
            caller=self._caller,
            model=self._model,
            provider=self.route.provider,
            provider_model=self.route.model,
            attempt=self._number,
            outcome=outcome,
            error_code=(error.code if isinstance(error, ApiError) else "internal") if outcome == "failed" else None,
            usage=usage,
            usage_source=source,
            prices=self._unit_prices(usage["prompt_tokens"] if usage else 0),
            latency_ms=round((time.monotonic() - self._began) * 1000),
            is_final=self.is_final,
        )

    def _spent(self, outcome: Outcome) -> tuple[Usage | None, UsageSource]:
        """A failure before any content is not billed by providers; what was begun and broke off is estimated."""
        if self._usage is not None:
            return self._usage, "measured"
        if outcome == "failed" and not self._has_started:
            return None, "none"
        return self.usage, "estimated"

    def _unit_prices(self, prompt_tokens: int) -> UnitPrices:
        return self._prices.unit_prices(self.route.provider, self.route.model, utc_now(), prompt_tokens)

    def _count(self, message: dict[str, object]) -> None:
        """Keep the text of an answer's pieces, for the estimate of a call that reports no usage."""
        for value in message.values():
            if isinstance(value, str):
                self._text.append(value)
            elif isinstance(value, list):
                functions = [call.get("function") or {} for call in value if isinstance(call, dict)]
                self._text += [str(function.get(key, "")) for function in functions for key in ("name", "arguments")]


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
