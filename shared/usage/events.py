"""Usage events: one per model call or tool run, written in the transaction that records its outcome."""

from dataclasses import dataclass
from typing import Literal

from shared.cloud.outbox import enqueue
from shared.db.database import Connection

QUEUE = "usage"


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageEvent:
    """What one call used. ``subject`` is the logical model's or the tool's name; ``id`` names the call itself."""

    id: str
    microdao_id: str
    kind: Literal["llm", "tool"]
    subject: str
    agent_id: str | None = None
    flow_id: str | None = None
    session_id: str | None = None
    failed: bool = False
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    cost_microusd: int = 0
    latency_ms: int = 0


async def record(connection: Connection, event: UsageEvent) -> None:
    """Write the event and the meter's job in the caller's transaction; the same event twice is written once."""
    cursor = await connection.execute(
        "INSERT INTO usage_event (id, microdao_id, kind, subject, agent_id, flow_id, session_id, failed, prompt_tokens,"
        " completion_tokens, cached_tokens, reasoning_tokens, cost_microusd, latency_ms)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
        (
            event.id,
            event.microdao_id,
            event.kind,
            event.subject,
            event.agent_id,
            event.flow_id,
            event.session_id,
            event.failed,
            event.prompt_tokens,
            event.completion_tokens,
            event.cached_tokens,
            event.reasoning_tokens,
            event.cost_microusd,
            event.latency_ms,
        ),
    )
    if cursor.rowcount:
        await enqueue(connection, event.microdao_id, QUEUE, {"event_id": event.id})
