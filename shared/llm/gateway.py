"""The door to every model: logical model in, OpenAI's answer out, each attempt accounted.

A chat call passes experiments, sanitising, kept answers, admission, attempts, settlement. Attempts fail over from route
to route only before the first piece of an answer has gone out: after that a failure is the caller's to see, since text
that was sent cannot be taken back.
"""

import random
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any

from shared.clock import utc_now
from shared.cloud.outbox import Outbox
from shared.db.database import Database
from shared.llm.answers.response_cache import ResponseCache, replay_chunks
from shared.llm.answers.shape import StreamedAnswer, whole_answer
from shared.llm.attempts.attempt import Subject
from shared.llm.attempts.call import Call, Money
from shared.llm.attempts.capacity import Capacity
from shared.llm.attempts.tries import Plan, Tries, Upstreams
from shared.llm.caller import Caller, CallReport, ClientHints
from shared.llm.catalogue import Catalogue, ModelStatus, RouteStatus
from shared.llm.experiments.experiments import Experiments
from shared.llm.money.admission import Admission
from shared.llm.money.ledger import Ledger, kept_entry
from shared.llm.money.pricing import PriceTable, load_price_table
from shared.llm.money.worst_case import WorstCase, most_completion_tokens, worst_case
from shared.llm.providers.base import TextEmbedder
from shared.llm.providers.http import HttpTransport
from shared.llm.providers.registry import open_providers
from shared.llm.routing.health import Health
from shared.llm.routing.models import Kind
from shared.llm.routing.models_file import ModelFile
from shared.llm.safety.config import load_sanitize_policy
from shared.llm.stages import Prepared, Stages
from shared.llm.tokens import estimate_prompt_tokens, estimate_tokens, most_prompt_tokens, most_text_tokens
from shared.settings import Settings
from shared.wire.chat import ChatRequest
from shared.wire.embeddings import EmbeddingRequest, embedding_list

__all__ = ["CallReport", "Caller", "ClientHints", "Gateway", "ModelStatus", "RouteStatus", "open_gateway"]

_NO_HINTS = ClientHints()


@dataclass(frozen=True, slots=True, kw_only=True)
class Accounting:
    """Where calls are admitted and settled. ``completion_tokens``: held for an answer whose length nobody bounds."""

    admission: Admission
    ledger: Ledger
    completion_tokens: int


class Gateway:
    """Every model call of a process. One gateway per event loop."""

    def __init__(
        self,
        catalogue: Catalogue,
        stages: Stages,
        upstreams: Upstreams,
        accounting: Accounting,
        transport: HttpTransport,
    ) -> None:
        self._catalogue = catalogue
        self._stages = stages
        self._upstreams = upstreams
        self._accounting = accounting
        self._transport = transport

    async def complete(
        self,
        request: ChatRequest,
        caller: Caller,
        *,
        hints: ClientHints = _NO_HINTS,
        report: CallReport | None = None,
    ) -> dict[str, Any]:
        """A ``chat.completion`` whose ``model`` is the one asked for, with ``daarion`` (see ``stream``) beside it.

        ``report`` is filled in. Raises ModelNotFound, InvalidRequest, ContextLengthExceeded, UnsupportedParameter,
        InvalidApiKey, RateLimitExceeded, InsufficientQuota, Overloaded, UpstreamError, LlmTimeout or Unavailable.
        """
        report = report or CallReport()
        prepared = await self._stages.prepare(request, caller)
        if kept := await self._kept(prepared, caller, report):
            return kept
        async with self._chat_call(prepared, caller, hints, report) as call:
            while True:
                async with await call.tries.next() as attempt:
                    answer = await attempt.answer(prepared.request)
                    made = whole_answer(prepared.asked, answer, attempt.usage, prepared.policy)
                    break
            call.begins(attempt)
            account = call.account(attempt)
        await self._stages.keep(prepared, made)
        return made | {"daarion": account}

    async def stream(
        self,
        request: ChatRequest,
        caller: Caller,
        *,
        hints: ClientHints = _NO_HINTS,
        report: CallReport | None = None,
    ) -> AsyncGenerator[dict[str, Any], None]:
        """``chat.completion.chunk`` objects, the usage chunk (no choices) last.

        The usage chunk carries ``daarion: {"cost_microusd", "provider", "provider_model"}``, or ``cached`` in place of
        the two. The first chunk comes with the first content, so that an error before it can still be an HTTP status;
        ``report`` then has what is known at the start. Closing the iterator early closes the upstream and accounts for
        what came. Raises as ``complete`` does.
        """
        report = report or CallReport()
        prepared = await self._stages.prepare(request, caller)
        if kept := await self._kept(prepared, caller, report):
            for piece in replay_chunks(kept):
                yield piece
            return
        call = self._chat_call(prepared, caller, hints, report)
        async with aclosing(self._stream(prepared, call)) as pieces:
            async for piece in pieces:
                yield piece

    async def embed(
        self,
        request: EmbeddingRequest,
        caller: Caller,
        *,
        hints: ClientHints = _NO_HINTS,
        report: CallReport | None = None,
    ) -> dict[str, Any]:
        """OpenAI's list of ``embedding`` objects, with ``daarion`` beside it. Raises as ``complete`` does."""
        request = self._stages.clean(request, caller)
        model = self._catalogue.find(request.model, "embedding")
        plan = self._catalogue.plan(model, hints)
        subject = Subject(caller=caller, model=model.id, prompt_tokens=partial(_input_tokens, request))
        worst = self._worst_case(most_text_tokens(request.inputs()), 0, plan)
        async with self._call(subject, plan, worst, report or CallReport()) as call:
            while True:
                async with await call.tries.next() as attempt:
                    found = await attempt.vectors(request)
                    break
            call.begins(attempt)
            made = embedding_list(request.model, found.vectors, attempt.usage, request.encoding_format)
            return made | {"daarion": call.account(attempt)}

    def models(self) -> list[ModelStatus]:
        """The logical models that can be called now."""
        return self._catalogue.models()

    def knows(self, model: str, kind: Kind = "chat") -> bool:
        """Whether a call of this kind to this logical model has a route."""
        return self._catalogue.knows(model, kind)

    def default_model(self) -> str:
        """The configured default while a real model can serve it, otherwise ``offline``."""
        return self._catalogue.default_model()

    async def close(self) -> None:
        """Finish the ledger's writes and close the connections."""
        await self._accounting.ledger.close()
        await self._accounting.admission.close()
        await self._transport.close()

    async def _stream(self, prepared: Prepared, call: Call) -> AsyncGenerator[dict[str, Any], None]:
        out = StreamedAnswer(prepared.asked, prepared.policy, is_kept=prepared.cache_key is not None)
        async with call:
            while True:
                async with await call.tries.next() as attempt, aclosing(attempt.deltas(prepared.request)) as deltas:
                    async for part in deltas:
                        if not out.is_open:
                            call.begins(attempt)
                        for piece in out.pieces(part):
                            yield piece
                    break
            call.begins(attempt)
            for piece in out.ending(attempt.finish_reason):
                yield piece
            await call.settle()
            yield out.usage(attempt.usage, call.account(attempt))
        if prepared.cache_key is not None:
            await self._stages.keep(prepared, out.completion(attempt))

    def _chat_call(self, prepared: Prepared, caller: Caller, hints: ClientHints, report: CallReport) -> Call:
        request = prepared.request
        model = self._catalogue.find(request.model, "chat")
        plan = self._catalogue.plan(model, hints)
        subject = Subject(
            caller=caller,
            model=model.id,
            prompt_tokens=partial(estimate_prompt_tokens, request),
            variant=prepared.variant,
        )
        completion = most_completion_tokens(request, self._accounting.completion_tokens)
        return self._call(subject, plan, self._worst_case(most_prompt_tokens(request), completion, plan), report)

    def _call(self, subject: Subject, plan: Plan, worst: WorstCase, report: CallReport) -> Call:
        money = Money(admission=self._accounting.admission, ledger=self._accounting.ledger, worst_case=worst)
        return Call(subject, Tries(subject, plan, self._upstreams), money, report)

    def _worst_case(self, prompt_tokens: int, completion_tokens: int, plan: Plan) -> WorstCase:
        """Raises Unavailable when no route's price is known."""
        return worst_case(prompt_tokens, completion_tokens, plan.routes, self._upstreams.prices, utc_now())

    async def _kept(self, prepared: Prepared, caller: Caller, report: CallReport) -> dict[str, Any] | None:
        """The kept answer, noted in the ledger as one that cost nothing."""
        began = time.monotonic()
        kept = await self._stages.kept(prepared)
        if kept is not None:
            report.headers |= {"x-daarion-cache": "hit", "x-daarion-attempts": "0", "x-daarion-cost-usd": "0.000000"}
            latency_ms = round((time.monotonic() - began) * 1000)
            entry = kept_entry(caller, prepared.request.model, variant=prepared.variant, latency_ms=latency_ms)
            await self._accounting.ledger.write(entry)
        return kept


def open_gateway(
    settings: Settings,
    database: Database,
    outbox: Outbox,
    *,
    embedder: TextEmbedder | None = None,
    prices: PriceTable | None = None,
    experiments: Experiments | None = None,
    cache: ResponseCache | None = None,
) -> Gateway:
    """The gateway of this process; ``embedder`` serves embeddings offline. What is not given is made here.

    Raises SettingError when models.yaml, prices.yaml or sanitize.yaml is wrong.
    """
    models = ModelFile(settings.models_file)
    transport = HttpTransport(max(settings.llm_deadline_s, settings.llm_timeout_s))
    upstreams = Upstreams(
        providers=open_providers(settings, transport, embedder),
        prices=prices or load_price_table(settings.prices_file),
        capacity=Capacity(),
        health=Health(lambda: models.table().circuit, time.monotonic),
        timeout_s=settings.llm_timeout_s,
        draw=random.random,
    )
    policy = load_sanitize_policy(settings.sanitize_file)
    stages = Stages(experiments or Experiments(database), policy, cache or ResponseCache(database))
    accounting = Accounting(
        admission=Admission(database, ttl_s=settings.llm_reservation_ttl_s),
        ledger=Ledger(database, outbox),
        completion_tokens=settings.llm_default_completion_tokens,
    )
    catalogue = Catalogue(models.table, upstreams, deadline_s=settings.llm_deadline_s)
    return Gateway(catalogue, stages, upstreams, accounting, transport)


def _input_tokens(request: EmbeddingRequest) -> int:
    return sum(estimate_tokens(one) if isinstance(one, str) else len(one) for one in request.inputs())
