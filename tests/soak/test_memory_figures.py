"""Figures of memory after hundreds of random operations, beside a plain model of what memory is."""

import itertools
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest

from localstack.postgres import EmbeddedPostgres
from shared.clock import utc_now
from shared.db.database import Database
from shared.errors import NotFound
from shared.memory.analytics.analytics import Subject, Wanted
from shared.memory.memory import Memory
from shared.memory.model import TIERS, Filters
from tests.embeddings import add_tenant, own_database, simple_memory
from tests.memories import AGENT, ask, new, queued

TENANT = "microdao:figures"
OLD = utc_now() - timedelta(days=60)
MISS_BELOW = 0.35
SESSIONS = (None, "one", "two", "three")
SUBJECT = Subject(microdao_id=TENANT, agent_id=AGENT)


@dataclass
class Item:
    """What the model knows of a memory."""

    tier: str
    content: dict[str, Any]
    session: str | None
    created: datetime
    expires: datetime | None = None
    state: str = "pending"
    hits: int = 0
    last_hit: datetime | None = None
    summary: str | None = None
    vectors: int = 0
    born: int = field(default_factory=itertools.count(1).__next__)
    """Which of those that were stored under its id: one that was forgotten and stored again has another moment."""

    @property
    def alive(self) -> bool:
        return self.expires is None or self.expires > utc_now()

    @property
    def bytes(self) -> int:
        return len(jsonb_text(self.content).encode())

    def stale(self, since: datetime) -> bool:
        is_used = self.last_hit is not None and self.last_hit >= since
        return self.alive and self.created < since and self.summary is None and not is_used


def jsonb_text(value: Any) -> str:
    """As Postgres writes a jsonb: shorter keys first."""
    if isinstance(value, Mapping):
        keys = sorted(value, key=lambda key: (len(key.encode()), key.encode()))
        return "{" + ", ".join(f"{json.dumps(key)}: {jsonb_text(value[key])}" for key in keys) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(jsonb_text, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


@dataclass
class World:
    """One memory, its model, and the operations on both."""

    memory: Memory
    database: Database
    chance: random.Random
    items: dict[str, Item] = field(default_factory=dict)
    saved: tuple[str, dict[str, Item]] | None = None
    queries: int = 0
    misses: int = 0

    def some_id(self) -> str | None:
        return self.chance.choice(sorted(self.items)) if self.items else None

    async def store(self) -> None:
        tier, session = self.chance.choice((*TIERS, "mid_term", "mid_term")), self.chance.choice(SESSIONS)
        text = f"{self.chance.choice(('apple', ' Apple', 'plum', 'pear'))} {self.chance.randrange(12)}"
        await self._store(Item(tier, {"text": text}, session, utc_now()))

    async def store_again(self) -> None:
        """With an expiry that has passed, or one far away, or none."""
        chosen = self.some_id()
        if chosen is None or self.items[chosen].content.get("context"):
            return
        ends = self.chance.choice((None, None, utc_now() - timedelta(seconds=1), utc_now() + timedelta(days=9)))
        there = self.items[chosen]
        await self._store(Item(there.tier, there.content, there.session, utc_now(), ends))

    async def _store(self, item: Item) -> None:
        text = item.content["text"]
        given = {"tier": item.tier, "session_id": item.session, "expires_at": item.expires}
        stored = await self.memory.store(new(TENANT, text, **given))
        there = self.items.setdefault(stored.id, item)
        there.expires = item.expires
        if there.summary and item.expires:  # what quotes it ends with it
            summary = self.items[there.summary]
            summary.expires = min(filter(None, (summary.expires, item.expires)))
        assert stored.state == there.state

    async def forget(self) -> None:
        if chosen := self.some_id():
            await self.memory.forget(TENANT, AGENT, chosen)
            self._remove([chosen])

    async def forget_session(self) -> None:
        named = self.chance.choice(SESSIONS[1:])
        gone = [key for key, item in self.items.items() if item.session == named and item.alive]
        assert await self.memory.forget_matching(TENANT, AGENT, Filters(session_id=named)) == len(gone)
        self._remove(gone)

    def _remove(self, gone: list[str], *, keeps_summaries: bool = False) -> None:
        while gone:
            removed = {key: self.items.pop(key) for key in gone}
            for item in self.items.values():
                if item.summary in removed:
                    item.summary, item.state = None, "pending"
            summaries = {item.summary for item in removed.values()} & self.items.keys()
            gone = [] if keeps_summaries else sorted(filter(None, summaries))

    async def sweep(self) -> None:
        await self.memory.sweep()
        self._remove([key for key, item in self.items.items() if not item.alive])

    async def index(self) -> None:
        while jobs := await queued(self.database, TENANT):
            assert await self.memory.index(jobs) == set()
        for item in self.items.values():
            item.state = "ready"
            item.vectors = 0 if item.summary else 1

    async def ask(self) -> None:
        found = await self.memory.query(ask(TENANT, f"apple {self.chance.randrange(12)}", k=3))
        self.queries += 1
        self.misses += not found or found[0].score < MISS_BELOW
        for one in found:
            item = self.items[one.id]
            assert item.alive
            assert item.summary is None
            item.hits += 1
            item.last_hit = utc_now()

    async def grow_old(self) -> None:
        chosen = self.chance.sample(sorted(self.items), len(self.items) // 2)
        await self.database.run("UPDATE memory_item SET created_at = %s WHERE id = ANY(%s)", (OLD, chosen))
        await self.database.run(
            "UPDATE memory_use SET last_hit_at = %s WHERE item IN (SELECT number FROM memory_item WHERE id = ANY(%s))",
            (OLD, chosen),
        )
        for item in map(self.items.__getitem__, chosen):
            item.created, item.last_hit = OLD, OLD if item.hits else None

    async def consolidate(self) -> None:
        report = await self.memory.retention.run(TENANT, None, dry_run=False, within_s=10)
        assert report.is_complete
        assert not report.removals
        for group in report.groups:
            rows = await self.database.run("SELECT content FROM memory_item WHERE id = %s", (group.summary_id,))
            sources = [self.items[key] for key in group.ids]
            used = [one.last_hit for one in sources if one.last_hit]
            self.items[group.summary_id] = Item(
                "mid_term",
                rows[0]["content"],
                sources[0].session,
                max(one.created for one in sources),
                born=0,
                hits=sum(one.hits for one in sources),
                last_hit=max(used, default=None),
            )
            for one in sources:
                one.summary, one.vectors = group.summary_id, 0

    async def save(self) -> None:
        snapshot = await self.memory.snapshots.save(TENANT, AGENT, "saved")
        kept = {key: item for key, item in self.items.items() if item.alive}
        assert snapshot["items"] == len(kept)
        if self.saved:
            await self.memory.snapshots.delete(TENANT, self.saved[0])
        self.saved = snapshot["id"], {key: Item(**vars(item)) for key, item in kept.items()}

    async def restore(self) -> None:
        if self.saved is None:
            return
        mode = self.chance.choice(("merge", "replace"))
        restored = await self.memory.snapshots.restore(TENANT, self.saved[0], AGENT, mode)
        before = {key: item.summary for key, item in self.items.items()}
        self._remove([key for key, item in self.items.items() if not item.alive], keeps_summaries=True)
        wanted = {key: item for key, item in self.saved[1].items() if item.alive}
        if mode == "replace":
            self._remove([key for key in self.items if key not in wanted], keeps_summaries=True)
        else:  # a summary that is gone stays away where anything it stood for is there
            quoted = {item.summary for key, item in wanted.items() if key in self.items}
            wanted = {key: item for key, item in wanted.items() if key in self.items or key not in quoted}
        added = 0
        for key, item in wanted.items():
            there = self.items.get(key)
            summary = item.summary if item.summary in wanted else None
            if there is None or (mode == "replace" and (before[key], there.born) != (summary, item.born)):
                state, born = "ready" if summary else "pending", item.born
                self.items[key] = Item(
                    item.tier, item.content, item.session, item.created, item.expires, state, summary=summary, born=born
                )
                added += there is None
            elif mode == "replace":
                there.expires = item.expires
                if summary:  # which may have been swept and be back
                    there.summary, there.state, there.vectors = summary, "ready", 0
        assert (restored.added, restored.kept + restored.changed) == (added, len(wanted) - added)

    async def check(self) -> None:
        alive = [item for item in self.items.values() if item.alive]
        stats = await self.memory.stats(TENANT, AGENT)
        assert stats.items == {tier: sum(item.tier == tier for item in alive) for tier in TIERS}
        assert stats.bytes == sum(item.bytes for item in alive)
        pending = sum(item.state == "pending" for item in alive)
        assert (stats.pending, stats.failed, stats.queries) == (pending, 0, self.queries)
        await self._check_report(alive, pending)
        used = await self.memory.analytics.most_used(SUBJECT, None, 999)
        assert {row["id"]: row["hits"] for row in used} == {
            key: item.hits for key, item in self.items.items() if item.alive and item.hits
        }
        assert [row["hits"] for row in used] == sorted((row["hits"] for row in used), reverse=True)

    async def _check_report(self, alive: list[Item], pending: int) -> None:
        now = utc_now()
        wanted = Wanted(
            since=OLD,
            until=OLD + timedelta(days=366),
            unused_for=timedelta(days=30),
            embedding_models=[],
            usd_per_1t=0.01,
        )
        report = await self.memory.analytics.report(SUBJECT, wanted)
        grown: Counter[tuple[str, str]] = Counter((f"{item.created:%Y-%m-%d}", item.tier) for item in alive)
        sizes: Counter[tuple[str, str]] = Counter()
        for item in alive:
            sizes[f"{item.created:%Y-%m-%d}", item.tier] += item.bytes
        assert {(row["day"], row["tier"]): row["items"] for row in report["growth"]} == grown
        assert {(row["day"], row["tier"]): row["bytes"] for row in report["growth"]} == sizes
        assert sum(row["queries"] for row in report["queries"]) == self.queries
        assert sum(row["misses"] for row in report["queries"]) == self.misses
        said = Counter("".join(item.content["text"].lower().split(" ")) for item in alive)
        assert report["duplicates"]["duplicates"] == len(alive) - len(said)
        assert report["stale"] == sum(item.stale(now - timedelta(days=30)) for item in alive)
        assert report["queue"]["pending"] == pending
        vectors = sum(item.vectors for item in self.items.values())
        assert sum(row["vectors"] for row in report["embeddings"]) == vectors


@pytest.fixture
async def memory(postgres: EmbeddedPostgres) -> AsyncIterator[Memory]:
    async with own_database(postgres) as database:
        await add_tenant(database, TENANT, AGENT)
        async with simple_memory(database) as memory:
            yield memory


@pytest.mark.parametrize("seed", range(3))
async def test_every_figure_is_right(memory: Memory, seed: int):
    world = World(memory, memory._database, random.Random(seed))
    await memory.retention.set_policy(TENANT, None, {"consolidate_after_days": 30, "consolidate_min_items": 2})
    seldom = [world.forget_session, world.sweep, world.save, world.restore]
    often = [world.index, world.grow_old, world.consolidate, world.store_again, world.ask]
    steps = 12 * [world.store] + 3 * often + 2 * [world.forget] + seldom
    done: list[str] = []
    for _ in range(200):
        step = world.chance.choice(steps)
        done.append(step.__name__)
        try:
            await step()
            await world.check()
        except (AssertionError, KeyError, NotFound) as error:
            raise AssertionError(f"after {done[-6:]}") from error
