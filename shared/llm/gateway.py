"""The door to every model: logical model in, OpenAI's answer out, each attempt accounted.

Routes are tried in order, once each, and only before the first piece of an answer has gone out: after that a failure is
the caller's to see, since text that was sent cannot be taken back.
"""

import random
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any

from shared.cloud.outbox import Outbox
from shared.db.database import Database
from shared.errors import ApiError, ModelNotFound, Unavailable
from shared.ids import uuid7
from shared.llm.attempt import Attempt
from shared.llm.caller import Caller
from shared.llm.http import HttpTransport
from shared.llm.ledger import Ledger
from shared.llm.models import LogicalModel, ModelTable, Route, load_model_table
from shared.llm.pricing import PriceTable, load_price_table
from shared.llm.providers.base import Provider
from shared.llm.providers.registry import open_providers
from shared.llm.routing import order_routes, usable_routes
from shared.settings import Settings
from shared.wire.chat import ChatRequest, chunk, completion, usage_chunk

__all__ = ["Caller", "Gateway", "LogicalModel", "open_gateway"]

DEFAULT_MODEL = "default"
"""An alias: whatever ``Gateway.default_model`` says."""

OFFLINE_MODEL = "offline"

_ROLE: dict[str, Any] = {"role": "assistant", "content": "", "refusal": None}


@dataclass(frozen=True, slots=True)
class _Call:
    """What every object of one answer has in common."""

    model: str
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid7().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    def chunk(self, delta: dict[str, Any], finish_reason: str | None = None, logprobs: Any = None) -> dict[str, Any]:
        made = chunk(self.id, self.created, self.model, delta, finish_reason)
        if logprobs is not None:
            made["choices"][0]["logprobs"] = logprobs
        return made


class Gateway:
    """Every model call of a process. One gateway per event loop."""

    def __init__(
        self,
        table: ModelTable,
        providers: Mapping[str, Provider],
        prices: PriceTable,
        ledger: Ledger,
        transport: HttpTransport,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._table = table
        self._providers = providers
        self._prices = prices
        self._ledger = ledger
        self._transport = transport
        self._draw = draw

    async def complete(self, request: ChatRequest, caller: Caller) -> dict[str, Any]:
        """A ``chat.completion`` whose ``model`` is the one asked for, with ``daarion`` (see ``stream``) beside it.

        Raises ModelNotFound, InvalidRequest, ContextLengthExceeded, RateLimitExceeded, UpstreamError, LlmTimeout or
        Unavailable.
        """
        call = _Call(request.model)
        for attempt in self._attempts(request, caller):
            try:
                async with attempt:
                    answer = await attempt.answer()
            except ApiError:
                if attempt.is_final:
                    raise
                continue
            made = completion(call.id, call.created, call.model, answer.message, answer.finish_reason, attempt.usage)
            made["choices"][0]["logprobs"] = answer.logprobs
            return made | {"daarion": _account(attempt)}
        raise Unavailable("no route answered")

    async def stream(self, request: ChatRequest, caller: Caller) -> AsyncGenerator[dict[str, Any], None]:
        """``chat.completion.chunk`` objects, the usage chunk (no choices) last.

        The usage chunk carries ``daarion: {"cost_microusd", "provider", "provider_model"}``. The first chunk comes with
        the first content, so that an error before it can still be an HTTP status. Closing the iterator early closes the
        upstream and accounts for what came. Raises as ``complete`` does.
        """
        call = _Call(request.model)
        for attempt in self._attempts(request, caller):
            is_open = False
            try:
                async with attempt, aclosing(attempt.deltas()) as deltas:
                    async for part in deltas:
                        if not is_open:
                            yield call.chunk(_ROLE)
                            is_open = True
                        yield call.chunk(part.delta, logprobs=part.logprobs)
            except ApiError:
                if attempt.is_final:
                    raise
                continue
            if not is_open:
                yield call.chunk(_ROLE)
            yield call.chunk({}, attempt.finish_reason)
            yield usage_chunk(call.id, call.created, call.model, attempt.usage) | {"daarion": _account(attempt)}
            return
        raise Unavailable("no route answered")

    def models(self) -> list[LogicalModel]:
        """The logical models that can be called now, each with the routes that can serve it, resolved."""
        found = [replace(model, routes=tuple(self._usable(model))) for model in self._table.models.values()]
        return [model for model in found if model.routes]

    def knows(self, model: str) -> bool:
        """Whether a call to this logical model has a route."""
        if model == DEFAULT_MODEL:
            return True
        return model in self._table.models and bool(self._usable(self._table.models[model]))

    def default_model(self) -> str:
        """The configured default while a real model can serve it, otherwise ``offline``."""
        routes = self._usable(self._table.models[self._table.default])
        is_real = any(route.provider != OFFLINE_MODEL for route in routes)
        return self._table.default if is_real else OFFLINE_MODEL

    async def close(self) -> None:
        """Finish the ledger's writes and close the connections."""
        await self._ledger.close()
        await self._transport.close()

    def _attempts(self, request: ChatRequest, caller: Caller) -> Iterator[Attempt]:
        model = self._find(self.default_model() if request.model == DEFAULT_MODEL else request.model)
        routes = order_routes(self._usable(model), self._draw)
        if not routes:
            needed = ", ".join(dict.fromkeys(route.provider for route in model.routes))
            raise ModelNotFound(f"the model {model.id!r} needs a provider that is not set up here: {needed}")
        for number, route in enumerate(routes, start=1):
            yield Attempt(
                request,
                caller,
                model.id,
                route,
                number,
                provider=self._providers[route.provider],
                prices=self._prices,
                ledger=self._ledger,
                is_last=number == len(routes),
            )

    def _find(self, name: str) -> LogicalModel:
        model = self._table.models.get(name)
        if model is None:
            raise ModelNotFound(f"the model {name!r} does not exist; GET /v1/models lists those that do")
        return model

    def _usable(self, model: LogicalModel) -> list[Route]:
        return usable_routes(model.routes, self._resolve)

    def _resolve(self, route: Route) -> str | None:
        provider = self._providers.get(route.provider)
        return provider.resolve(route.model) if provider else None


def open_gateway(settings: Settings, database: Database, outbox: Outbox) -> Gateway:
    """The gateway of this process. Raises SettingError when models.yaml or prices.yaml is wrong."""
    transport = HttpTransport(settings.llm_timeout_s)
    return Gateway(
        load_model_table(settings.models_file),
        open_providers(settings, transport),
        load_price_table(settings.prices_file),
        Ledger(database, outbox),
        transport,
    )


def _account(attempt: Attempt) -> dict[str, Any]:
    return {
        "cost_microusd": attempt.cost_microusd,
        "provider": attempt.route.provider,
        "provider_model": attempt.route.model,
    }
