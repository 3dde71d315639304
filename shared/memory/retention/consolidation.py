"""Turns old exchanges of a thread into one summary that is found in their place.

Read, write the summary with no transaction open, then commit: a crash in between leaves the exchanges as they were.
The summary's id is derived from its sources', which are locked and checked again: whoever comes second does nothing.
"""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from psycopg.types.json import Jsonb

from shared.clock import rfc3339
from shared.cloud.outbox import Outbox, new_job
from shared.db.database import Connection, Database, Row
from shared.errors import ApiError
from shared.ids import derived_id
from shared.llm.caller import Caller
from shared.memory import store
from shared.memory.intake import QUEUE, item_row
from shared.memory.model import NewMemory, ScopeRef
from shared.memory.retention import store_consolidation, store_retention
from shared.memory.retention.policy import days_before
from shared.memory.retention.scopes import Scope
from shared.memory.retention.summaries import Summaries, Told, Written
from shared.observability import Log

MOST_SOURCES = 32
_MOST_GROUPS = 64  # planned at once
_LEAST_S = 2.0
"""No summary is begun with less time than this."""

_log = Log("memory")


@dataclass(frozen=True, slots=True)
class Group:
    """Exchanges of one thread that one summary is to stand for, in order of time."""

    scope: Scope
    ids: tuple[str, ...]

    @property
    def summary_id(self) -> str:
        """The same sources always make the same item."""
        return derived_id("mem", "summary", *sorted(self.ids))


@dataclass(slots=True)
class Consolidated:
    """What became of groups. ``postponed``: how many were left for later, by the error's code."""

    groups: list[Group] = field(default_factory=list)
    postponed: Counter[str] = field(default_factory=Counter)
    is_complete: bool = True


def split(ids: Sequence[str], least: int) -> list[tuple[str, ...]]:
    """A thread's exchanges in runs of at most MOST_SOURCES; a rest of fewer than ``least`` waits. Pure."""
    runs = [tuple(ids[start : start + MOST_SOURCES]) for start in range(0, len(ids), MOST_SOURCES)]
    return [run for run in runs if len(run) >= least]


class Consolidation:
    """Makes summaries."""

    def __init__(self, database: Database, outbox: Outbox, summaries: Summaries) -> None:
        self._database = database
        self._outbox = outbox
        self._summaries = summaries

    async def plan(self, microdao_id: str, scopes: Sequence[Scope], now: datetime, seen: Sequence[str]) -> list[Group]:
        """The groups that are due, the oldest threads first, without the items ``seen``."""
        by_id = {scope.id: scope for scope in scopes}
        rules = [
            (scope.id, before, scope.policy.consolidate_min_items)
            for scope in scopes
            if (before := days_before(now, scope.policy.consolidate_after_days)) is not None
        ]
        if not rules:
            return []
        async with self._database.tenant(microdao_id) as connection:
            threads = await store_consolidation.find_threads(connection, rules, seen, _MOST_GROUPS)
        groups = [
            Group(scope, run)
            for thread in threads
            for scope in [by_id[thread["scope_id"]]]
            for run in split(thread["ids"], scope.policy.consolidate_min_items)
        ]
        return groups[:_MOST_GROUPS]

    async def run(self, microdao_id: str, groups: Sequence[Group], until: float) -> Consolidated:
        """Make the groups' summaries until a moment of the monotonic clock. What fails is left as it was."""
        done = Consolidated(is_complete=len(groups) < _MOST_GROUPS)
        failed: dict[int, str] = {}  # by scope: its next summary would fail as well, now
        for group in groups:
            if until - time.monotonic() < _LEAST_S:
                done.is_complete = False
                break
            if group.scope.id not in failed:
                try:
                    done.groups += [group] if await self._consolidate(microdao_id, group, until) else []
                    continue
                except ApiError as error:
                    failed[group.scope.id] = error.code
                    # Neither the texts nor what a provider says about them.
                    _log.warning("summaries are left for later", microdao_id=microdao_id, code=error.code)
            done.postponed[failed[group.scope.id]] += 1
        await self._outbox.committed()
        return done

    async def _consolidate(self, microdao_id: str, group: Group, until: float) -> bool:
        async with self._database.tenant(microdao_id) as connection:
            sources = await store_consolidation.read_sources(connection, group.ids)
        if len(sources) < len(group.ids):
            return False
        caller = Caller(microdao_id=microdao_id, agent_id=sources[0]["agent_id"], confidential=True)
        model = group.scope.policy.consolidate_model
        written = await self._summaries.write([_told(row) for row in sources], model, caller, until - time.monotonic())
        row = _summary_row(microdao_id, group, sources, written)
        async with self._database.tenant(microdao_id) as connection:
            return await _commit(connection, microdao_id, group, row, sources)


async def _commit(
    connection: Connection, microdao_id: str, group: Group, row: dict[str, Any], sources: Sequence[Row]
) -> bool:
    size = sum(source["bytes"] for source in sources)
    if len(await store_consolidation.lock_sources(connection, sources)) < len(group.ids):
        return False
    await store.insert_item(connection, row)
    await store_consolidation.stand_for(connection, group.summary_id, group.ids)
    entry = {**group.scope.reported_as, "reason": "consolidated"}
    await store_retention.write_report(
        connection, microdao_id, {**entry, "items": len(group.ids), "bytes": size, "ids": [group.summary_id]}
    )
    return True


def _told(row: Row) -> Told:
    return Told(row["text"], row["occurred_at"])


def _summary_row(microdao_id: str, group: Group, sources: Sequence[Row], written: Written) -> dict[str, Any]:
    first, last = sources[0], sources[-1]
    context = {
        "kind": "summary",
        "sources": list(group.ids),
        "since": rfc3339(first["occurred_at"]),
        "until": rfc3339(last["occurred_at"]),
        "written_by": written.writer,
    }
    item = NewMemory(
        microdao_id=microdao_id,
        agent_id=first["agent_id"],
        tier="mid_term",
        content={"text": written.text, "context": context},
        scope=ScopeRef(group.scope.kind, group.scope.name),
        importance=max(source["importance"] for source in sources),
        channel_id=first["channel_id"],
        session_id=first["session_id"],
        occurred_at=last["occurred_at"],
        source="summary",
    )
    job = new_job(microdao_id, QUEUE, {"item_ids": [group.summary_id]})
    more = {"job_id": job["id"], "job_body": Jsonb(job["body"]), "scope_id": group.scope.id}
    return item_row(item, id=group.summary_id, **more)
