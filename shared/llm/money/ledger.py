"""The append-only record of attempts at models: a call's rows, its budgets and its usage event change together."""

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from shared.clock import rfc3339, utc_now
from shared.cloud.outbox import Outbox, new_job
from shared.db.database import Database
from shared.ids import new_id
from shared.llm.caller import Caller
from shared.llm.money import store_admission
from shared.llm.money.admission import Grant
from shared.llm.money.pricing import FREE, UnitPrices, cost_microusd, token_parts
from shared.observability import Log
from shared.usage.events import QUEUE, UsageEvent
from shared.wire.chat import Usage, new_usage

Outcome = Literal["succeeded", "failed", "cancelled", "cached"]
UsageSource = Literal["measured", "estimated", "none"]

_SUMMED = (
    "prompt_tokens",
    "completion_tokens",
    "cached_tokens",
    "reasoning_tokens",
    "cost_microusd",
    "latency_ms",
)

_METERED_WITHIN_S = 0.25
"""Nobody waits for the meter, and a message for every call would cost as much as the call."""

_CLOSE_WITHIN_S = 2.0

_log = Log("llm")


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerEntry:
    """One attempt, or an answer that was kept from before. ``variant`` is what an experiment made of the call."""

    caller: Caller
    model: str
    provider: str
    provider_model: str
    attempt: int
    outcome: Outcome
    error_code: str | None
    usage: Usage | None
    usage_source: UsageSource
    prices: UnitPrices
    latency_ms: int
    variant: str | None = None
    cost_microusd: int = field(init=False)
    """What the attempt cost at its own prices."""

    def __post_init__(self) -> None:
        cost = cost_microusd(self.usage, self.prices) if self.usage else 0
        object.__setattr__(self, "cost_microusd", cost)


class Ledger:
    """Writes entries. A caller that goes away does not stop a write under way, nor does ``close``."""

    def __init__(self, database: Database, outbox: Outbox) -> None:
        self._database = database
        self._outbox = outbox
        self._writing: set[asyncio.Task[None]] = set()
        self._expected: dict[str, asyncio.Future[None]] = {}

    def expect(self, grant: Grant) -> None:
        """A call was admitted and will be settled: ``close`` waits for that."""
        self._expected[grant.id] = asyncio.get_running_loop().create_future()

    async def settle(self, grant: Grant, entries: Sequence[LedgerEntry]) -> None:
        """Append every attempt, free what the grant held, charge its budgets, record the call's use: one round trip.

        The last entry decides the call; without entries nothing was called and all is given back. Settling a grant
        again changes nothing. Raises Unavailable when the database is down; the hold then stands until it expires.
        """
        expected = self._expected.pop(grant.id, None)
        try:
            await self._finish(self._settle(grant, entries))
        finally:
            if expected is not None:
                expected.set_result(None)

    async def write(self, entry: LedgerEntry) -> None:
        """Record a call that nothing was held for: an answer that was kept from before. Raises as ``settle`` does."""
        now = rfc3339(utc_now())
        await self.settle(Grant(id=new_id("call"), caller=entry.caller, model=entry.model, admitted_at=now), [entry])

    async def close(self) -> None:
        """Wait for the writes under way, and a little for the calls whose streams the end of the process cuts off."""
        try:
            async with asyncio.timeout(_CLOSE_WITHIN_S):
                while waiting := {*self._expected.values(), *self._writing}:
                    await asyncio.wait(waiting)
        except TimeoutError:
            _log.warning("calls were not settled before the end of the process", calls=len(self._expected))

    async def _finish(self, writing: Coroutine[Any, Any, None]) -> None:
        """Wait for a write that goes on even if the caller does not."""
        task = asyncio.create_task(writing, name="llm-ledger")
        self._writing.add(task)
        task.add_done_callback(self._written)
        await asyncio.shield(task)

    async def _settle(self, grant: Grant, entries: Sequence[LedgerEntry]) -> None:
        rows = [_ledger_row(f"{grant.id}_{entry.attempt}", entry) for entry in entries]
        call: dict[str, Any] = {"hold": grant.hold(), "entries": rows}
        if entries:
            event = _usage_event(f"use_{grant.id}", rows)
            call["event"] = event
            call["job"] = new_job(event.microdao_id, QUEUE, {"event_id": event.id})
        await store_admission.settle(self._database, call)
        if entries:
            await self._outbox.committed(within_s=_METERED_WITHIN_S)

    def _written(self, task: asyncio.Task[None]) -> None:
        self._writing.discard(task)
        if not task.cancelled() and (error := task.exception()):
            _log.warning("a model call could not be recorded", error=type(error).__name__)


def kept_entry(caller: Caller, model: str, *, variant: str | None, latency_ms: int) -> LedgerEntry:
    """The entry of a call that an answer from before was good for: nothing was called, nothing is charged."""
    return LedgerEntry(
        caller=caller,
        model=model,
        provider="cache",
        provider_model="cache",
        attempt=1,
        outcome="cached",
        error_code=None,
        usage=None,
        usage_source="none",
        prices=FREE,
        latency_ms=latency_ms,
        variant=variant,
    )


def _ledger_row(ledger_id: str, entry: LedgerEntry) -> dict[str, Any]:
    return {
        "id": ledger_id,
        "microdao_id": entry.caller.microdao_id,
        "agent_id": entry.caller.agent_id,
        "key_id": entry.caller.key_id,
        "session_id": entry.caller.session_id,
        "flow_id": entry.caller.flow_id,
        "variant": entry.variant,
        "model": entry.model,
        "provider": entry.provider,
        "provider_model": entry.provider_model,
        "attempt": entry.attempt,
        "outcome": entry.outcome,
        "error_code": entry.error_code,
        "usage_source": entry.usage_source,
        **_counts(entry.usage or new_usage(0, 0)),
        "input_usd_per_mtok": entry.prices.input,
        "cached_input_usd_per_mtok": entry.prices.cached_input,
        "cache_creation_usd_per_mtok": entry.prices.cache_creation,
        "cache_creation_1h_usd_per_mtok": entry.prices.cache_creation_1h,
        "output_usd_per_mtok": entry.prices.output,
        "cost_microusd": entry.cost_microusd,
        "latency_ms": entry.latency_ms,
    }


def _counts(usage: Usage) -> dict[str, int]:
    parts = token_parts(usage)
    reasoning = usage.get("completion_tokens_details", {}).get("reasoning_tokens", 0)
    return {
        "prompt_tokens": parts.prompt,
        "completion_tokens": parts.completion,
        "cached_tokens": parts.cached,
        "cache_creation_tokens": parts.created + parts.created_1h,
        "cache_creation_1h_tokens": parts.created_1h,
        "reasoning_tokens": min(max(reasoning, 0), parts.completion),
    }


def _usage_event(event_id: str, rows: Sequence[dict[str, Any]]) -> UsageEvent:
    """What the call used, all its attempts together; how it ended and who answered is the last one's."""
    final = rows[-1]
    return UsageEvent(
        id=event_id,
        microdao_id=final["microdao_id"],
        kind="llm",
        subject=final["model"],
        variant=final["variant"],
        provider=final["provider"],
        agent_id=final["agent_id"],
        flow_id=final["flow_id"],
        session_id=final["session_id"],
        failed=final["outcome"] == "failed",
        **{name: sum(row[name] for row in rows) for name in _SUMMED},
    )
