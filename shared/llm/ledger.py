"""The append-only record of attempts at models, with the usage event of each call in the same transaction."""

import asyncio
from dataclasses import dataclass
from typing import Any, Literal

from shared.cloud.outbox import Outbox
from shared.db.database import Database
from shared.ids import derived_id, new_id
from shared.llm.caller import Caller
from shared.llm.pricing import UnitPrices, cost_microusd
from shared.llm.store import insert_ledger_row
from shared.observability import Log
from shared.usage.events import UsageEvent, record
from shared.wire.chat import Usage, new_usage

Outcome = Literal["succeeded", "failed", "cancelled"]
UsageSource = Literal["measured", "estimated", "none"]

_log = Log("llm")


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerEntry:
    """One attempt. ``is_final`` marks the attempt that decides the call: the winner or the last loser."""

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
    is_final: bool

    @property
    def cost_microusd(self) -> int:
        """What the attempt cost at its own prices."""
        return cost_microusd(self.usage, self.prices) if self.usage else 0


class Ledger:
    """Writes entries. A caller that goes away does not stop a write under way."""

    def __init__(self, database: Database, outbox: Outbox) -> None:
        self._database = database
        self._outbox = outbox
        self._writing: set[asyncio.Task[None]] = set()

    async def write(self, entry: LedgerEntry) -> None:
        """Append the entry and, if it is final, its usage event. Raises Unavailable when the database is down."""
        task = asyncio.create_task(self._write(entry), name="llm-ledger")
        self._writing.add(task)
        task.add_done_callback(self._written)
        await asyncio.shield(task)

    async def close(self) -> None:
        """Wait for the writes under way."""
        await asyncio.gather(*self._writing, return_exceptions=True)

    async def _write(self, entry: LedgerEntry) -> None:
        ledger_id = new_id("llm")
        async with self._database.tenant(entry.caller.microdao_id) as connection:
            await insert_ledger_row(connection, _ledger_row(ledger_id, entry))
            if entry.is_final:
                await record(connection, _usage_event(ledger_id, entry))
        if entry.is_final:
            await self._outbox.committed()

    def _written(self, task: asyncio.Task[None]) -> None:
        self._writing.discard(task)
        if not task.cancelled() and (error := task.exception()):
            _log.warning("a model call could not be recorded", error=type(error).__name__)


def _counts(usage: Usage | None) -> dict[str, int]:
    counted = usage or new_usage(0, 0)
    return {
        "prompt_tokens": counted["prompt_tokens"],
        "completion_tokens": counted["completion_tokens"],
        "cached_tokens": counted.get("prompt_tokens_details", {}).get("cached_tokens", 0),
        "reasoning_tokens": counted.get("completion_tokens_details", {}).get("reasoning_tokens", 0),
    }


def _ledger_row(ledger_id: str, entry: LedgerEntry) -> dict[str, Any]:
    return {
        "id": ledger_id,
        "microdao_id": entry.caller.microdao_id,
        "agent_id": entry.caller.agent_id,
        "key_id": entry.caller.key_id,
        "session_id": entry.caller.session_id,
        "flow_id": entry.caller.flow_id,
        "model": entry.model,
        "provider": entry.provider,
        "provider_model": entry.provider_model,
        "attempt": entry.attempt,
        "outcome": entry.outcome,
        "error_code": entry.error_code,
        "usage_source": entry.usage_source,
        **_counts(entry.usage),
        "input_usd_per_mtok": entry.prices.input,
        "cached_input_usd_per_mtok": entry.prices.cached_input,
        "output_usd_per_mtok": entry.prices.output,
        "cost_microusd": entry.cost_microusd,
        "latency_ms": entry.latency_ms,
    }


def _usage_event(ledger_id: str, entry: LedgerEntry) -> UsageEvent:
    return UsageEvent(
        id=derived_id("use", ledger_id),
        microdao_id=entry.caller.microdao_id,
        kind="llm",
        subject=entry.model,
        agent_id=entry.caller.agent_id,
        flow_id=entry.caller.flow_id,
        session_id=entry.caller.session_id,
        failed=entry.outcome == "failed",
        **_counts(entry.usage),
        cost_microusd=entry.cost_microusd,
        latency_ms=entry.latency_ms,
    )
