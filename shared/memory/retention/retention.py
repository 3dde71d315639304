"""Retention as a service: policies, one run on request, the schedule's round, and the report of what was removed."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from shared.clock import utc_now
from shared.cloud.outbox import Outbox
from shared.db.database import Connection, Database, Row
from shared.errors import InvalidRequest, NotFound
from shared.memory.intake import no_agent
from shared.memory.retention import store_retention
from shared.memory.retention.consolidation import Consolidated, Consolidation, Group
from shared.memory.retention.policy import RetentionPolicy, effective_policy
from shared.memory.retention.pruner import Pruner, Pruning
from shared.memory.retention.pruning import Removal
from shared.memory.retention.scopes import read_scopes
from shared.memory.retention.summaries import Summaries
from shared.observability import Log

_MOST_REMOVED = 5000
"""Units a run: one microDAO must not keep the others waiting."""
_REPORTS_KEPT_DAYS = 90

_log = Log("memory")


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a run did, or would do. Not ``is_complete``: there is more to do, and the next run goes on.

    ``postponed``: groups left for later by the code of the error, such as a spent budget.
    """

    dry_run: bool
    is_complete: bool
    removals: Sequence[Removal]
    groups: Sequence[Group]
    postponed: Mapping[str, int] = field(default_factory=dict)


class Retention:
    """Keeps memory within the limits that were asked for."""

    def __init__(self, database: Database, outbox: Outbox, summaries: Summaries) -> None:
        self._database = database
        self._outbox = outbox
        self._summaries = summaries
        self._pruner = Pruner(database)
        self._consolidation = Consolidation(database, outbox, summaries)

    async def policy(self, microdao_id: str, agent_id: str | None) -> tuple[dict[str, Any], RetentionPolicy]:
        """What was asked for at this level, and what holds with all it inherits. Raises NotFound (microDAO, agent)."""
        async with self._database.tenant(microdao_id) as connection:
            await _check_place(connection, microdao_id, agent_id)
            shared = await store_retention.read_settings(connection, None)
            own = await store_retention.read_settings(connection, agent_id) if agent_id else shared
        return own, effective_policy(shared, own)

    async def set_policy(self, microdao_id: str, agent_id: str | None, settings: Mapping[str, Any]) -> None:
        """Ask for this instead of what was asked for before. Raises NotFound (microDAO, agent) or InvalidRequest."""
        self._check(agent_id, settings)
        async with self._database.tenant(microdao_id) as connection:
            await _check_place(connection, microdao_id, agent_id)
            await store_retention.write_settings(connection, agent_id, settings)

    async def run(self, microdao_id: str, agent_id: str | None, *, dry_run: bool, within_s: float) -> Report:
        """Prune, then consolidate, the whole microDAO or one agent's memory. Raises NotFound (microDAO, agent).

        Bounded in time and number. A dry run changes nothing and says what a run would do at this moment.
        """
        until = time.monotonic() + within_s
        now = utc_now()
        async with self._database.tenant(microdao_id) as connection:
            await _check_place(connection, microdao_id, agent_id)
            scopes = await read_scopes(connection, agent_id)
        pruning = Pruning(microdao_id, scopes, is_of_all=agent_id is None, dry_run=dry_run, now=now)
        is_pruned = await self._prune(pruning, until)
        chosen = [removal.unit.id for removal in pruning.removals]
        groups = await self._consolidation.plan(microdao_id, scopes, now, chosen) if is_pruned else []
        if dry_run:
            done = Consolidated(groups)
        else:
            done = await self._consolidation.run(microdao_id, groups, until)
        return Report(
            dry_run=dry_run,
            is_complete=is_pruned and done.is_complete,
            removals=pruning.removals,
            groups=done.groups,
            postponed=done.postponed,
        )

    async def prunings(self, microdao_id: str, agent_id: str | None, before: str | None, limit: int) -> list[Row]:
        """What was removed, the newest first, from before a cursor on. Raises NotFound (microDAO, agent)."""
        async with self._database.tenant(microdao_id) as connection:
            await _check_place(connection, microdao_id, agent_id)
            return await store_retention.list_reports(connection, agent_id, before, limit)

    async def maintain(self, within_s: float) -> dict[str, Any]:
        """The schedule's round over all microDAOs with a policy, those first that wait longest; totals and whether
        it is ``complete``. What time does not allow is the next call's."""
        until = time.monotonic() + within_s
        done: list[str] = []  # complete, or stuck for now; the others' turn comes again while there is time
        totals: Counter[str] = Counter({"microdaos": 0, "removed": 0, "consolidated": 0, "failed": 0})
        is_complete = True
        while (left_s := until - time.monotonic()) > 0:
            async with self._database.system() as connection:
                microdao_id = await store_retention.next_microdao(connection, done)
            if microdao_id is None:
                break
            went_on = await self._maintain_one(microdao_id, left_s, totals)
            if went_on is not None:
                done.append(microdao_id)
                is_complete &= went_on
        else:
            is_complete = False
        totals["microdaos"] = len(done)
        async with self._database.system() as connection:
            await store_retention.delete_old_reports(connection, _REPORTS_KEPT_DAYS)
        return {**totals, "complete": is_complete}

    async def _maintain_one(self, microdao_id: str, within_s: float, totals: Counter[str]) -> bool | None:
        """Whether the microDAO is done with; None when the next visit can go on. Its trouble stays its own."""
        try:
            report = await self.run(microdao_id, None, dry_run=False, within_s=within_s)
        except Exception:
            _log.exception("retention failed; it is tried again in the next round", microdao_id=microdao_id)
            totals["failed"] += 1
            return False
        totals["removed"] += sum(removal.unit.items for removal in report.removals)
        totals["consolidated"] += len(report.groups)
        if report.is_complete or not (report.removals or report.groups):
            return report.is_complete
        return None

    async def _prune(self, pruning: Pruning, until: float) -> bool:
        while len(pruning.removals) < _MOST_REMOVED and time.monotonic() < until:
            if not await self._pruner.step(pruning):
                return True
        return False

    def _check(self, agent_id: str | None, settings: Mapping[str, Any]) -> None:
        totals = [name for name in settings if name.startswith("total_")]
        if agent_id is not None and totals:
            raise InvalidRequest(f"{totals[0]} is a limit of the whole microDAO, not of an agent", param=totals[0])
        model = settings.get("consolidate_model")
        if model is not None and not self._summaries.knows(model):
            raise InvalidRequest(f"there is no model {model!r} here", param="consolidate_model")


async def _check_place(connection: Connection, microdao_id: str, agent_id: str | None) -> None:
    found = await store_retention.read_place(connection, agent_id)
    if not found["microdao"]:
        raise NotFound(f"no microDAO {microdao_id!r}", param="microdao_id")
    if agent_id is not None and not found["agent"]:
        raise no_agent(agent_id)
