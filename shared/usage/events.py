"""Usage events: one per model call or tool run, written in the transaction that records its outcome."""

from dataclasses import asdict, dataclass
from typing import Literal

from psycopg.types.json import Jsonb

from shared.cloud.outbox import new_job
from shared.db.database import Connection

QUEUE = "usage"


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageEvent:
    """What one call used. ``subject`` is the logical model's or the tool's name; ``id`` names the call itself.

    ``calls`` is -1 on an event that takes an earlier one back. ``variant`` is ``experiment/variant`` where an
    experiment changed the call.
    """

    id: str
    microdao_id: str
    kind: Literal["llm", "tool"]
    subject: str
    variant: str | None = None
    provider: str | None = None
    agent_id: str | None = None
    flow_id: str | None = None
    session_id: str | None = None
    failed: bool = False
    calls: int = 1
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    cost_microusd: int = 0
    latency_ms: int = 0


async def record(connection: Connection, event: UsageEvent) -> None:
    """Write the event and the meter's job in the caller's transaction; the same event twice is written once."""
    job = new_job(event.microdao_id, QUEUE, {"event_id": event.id})
    await connection.execute("SELECT record_usage_event(%s, %s)", (Jsonb(asdict(event)), Jsonb(job)))
