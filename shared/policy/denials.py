"""The log of what was refused: a row is there before the caller hears of it."""

import asyncio
import builtins
import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

import psycopg

from shared.db.batches import remove_in_batches
from shared.db.database import Connection, Database, Row
from shared.errors import ApiError
from shared.ids import new_id
from shared.observability import Log, correlation_id
from shared.policy import store_denials
from shared.policy.decision import Context, Decision, Resource
from shared.policy.principal import Principal

MAX_KINDS: Final = 100
"""Different refusals of one principal in a minute (and process) that get a row each; more go without the resource's id,
which callers can make up."""
KEPT_DAYS: Final = 90
WRITE_WITHIN_S: Final = 2.0
_MAX_CHARACTERS: Final = 200
_SWEEP_BATCH = 1_000
_MOST_BATCHES = 20
_log = Log("policy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Denial:
    """What was refused, to whom and why."""

    microdao_id: str
    principal_id: str
    agent_id: str | None
    action: str
    resource_kind: str
    resource_id: str
    reason: str
    policies: tuple[str, ...]
    request_id: str = field(default="", compare=False)

    @property
    def fingerprint(self) -> bytes:
        """Equal for equal refusals."""
        parts = (self.principal_id, self.agent_id or "", self.action, self.resource_kind, self.resource_id, self.reason)
        return hashlib.sha256("\0".join(parts).encode()).digest()


def denial_of(
    principal: Principal, action: str, resource: Resource, context: Context | None, decision: Decision
) -> Denial:
    """The refusal that this decision is."""
    agent_id = (context or {}).get("agent_id") or (principal.key_id if "agent" in principal.roles else None)
    return Denial(
        microdao_id=principal.microdao_id,
        principal_id=storable(principal.key_id),
        agent_id=storable(str(agent_id)) if agent_id else None,
        action=action,
        resource_kind=resource.kind,
        resource_id=storable(resource.id),
        reason=decision.reason,
        policies=decision.policies,
        request_id=storable(correlation_id.get()),
    )


def storable(identifier: str) -> str:
    """Callers choose ids: without control characters, and not too long."""
    return "".join(character for character in identifier if character.isprintable())[:_MAX_CHARACTERS]


@dataclass(slots=True)
class _Batch:
    """Equal refusals that wait to be written together."""

    count: int = 0
    written: asyncio.Task[None] | None = None


class DenialLog:
    """Writes refusals in transactions of their own, on connections that no caller's transaction holds.

    While one row is written, equal refusals gather and are written as one: a flood costs the database one statement
    at a time. What the database does not take in time is only logged; the refusal stands.
    """

    def __init__(self, database: Database, clock: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._clock = clock
        self._gathering: dict[Denial, _Batch] = {}
        self._writing: dict[Denial, asyncio.Task[None]] = {}
        self._minute = 0.0
        self._kinds: dict[tuple[str, str], set[Denial]] = {}

    async def record(self, denial: Denial) -> None:
        """Return when the row is there, or cannot be."""
        denial = self._bounded(denial)
        _log.warning(
            "denied",
            principal=denial.principal_id,
            action=denial.action,
            resource=denial.resource_id,
            reason=denial.reason,
        )
        batch = self._gathering.get(denial)
        if batch is None:
            batch = self._gathering[denial] = _Batch()
            batch.written = asyncio.create_task(self._write(denial, batch, self._writing.get(denial)))
            self._writing[denial] = batch.written
        batch.count += 1
        if batch.written is not None:
            await asyncio.shield(batch.written)

    async def list(
        self,
        microdao_id: str,
        *,
        agent_id: str | None = None,
        tool: str | None = None,
        action: str | None = None,
        since: datetime | None = None,
        before: str | None = None,
        limit: int = 100,
    ) -> builtins.list[Row]:
        """What was refused in a microDAO, newest first, before denial ``before``."""
        async with self._database.tenant(microdao_id) as connection:
            return await store_denials.list_page(
                connection, agent_id=agent_id, tool=tool, action=action, since=since, before=before, limit=limit
            )

    async def sweep(self) -> int:
        """Forget what is older than ``KEPT_DAYS``, some thousands of rows at most; how many. The next sweep goes on."""
        return await remove_in_batches(self._database, _delete_old, size=_SWEEP_BATCH, most=_MOST_BATCHES)

    def _bounded(self, denial: Denial) -> Denial:
        minute = self._clock() // 60
        if minute != self._minute:
            self._minute, self._kinds = minute, {}
        kinds = self._kinds.setdefault((denial.microdao_id, denial.principal_id), set())
        if denial not in kinds and len(kinds) >= MAX_KINDS:
            return replace(denial, resource_id="")
        kinds.add(denial)
        return denial

    async def _write(self, denial: Denial, batch: _Batch, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait({before})
        del self._gathering[denial]  # whoever comes now is of the next batch
        try:
            await store_denials.add(self._database, denial.microdao_id, _row(denial, batch.count), WRITE_WITHIN_S)
        except (ApiError, psycopg.Error) as error:
            _log.warning("denial not written", action=denial.action, count=batch.count, error=type(error).__name__)
        finally:
            if self._writing.get(denial) is batch.written:
                del self._writing[denial]


def _row(denial: Denial, count: int) -> dict[str, Any]:
    kept = ("principal_id", "agent_id", "action", "resource_kind", "resource_id", "reason", "request_id")
    return {
        "id": new_id("deny"),
        "fingerprint": denial.fingerprint,
        "policies": list(denial.policies),
        "count": count,
        **{name: getattr(denial, name) for name in kept},
    }


async def _delete_old(connection: Connection) -> int:
    return await store_denials.delete_old(connection, days=KEPT_DAYS, limit=_SWEEP_BATCH)
