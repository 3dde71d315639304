"""Retention of what agents keep for their end users: by the agent's policy, within its caps, and never two in one."""

from datetime import timedelta

import pytest

from shared.clock import utc_now
from shared.cloud.outbox import Outbox
from shared.db.database import Database, Row, fetch_all
from shared.memory.memory import Memory, open_memory
from shared.memory.model import ScopeRef
from shared.memory.retention.retention import Report
from shared.settings import Settings
from tests.memories import AGENT, age, ask, index_all, kept, new

BOB, OLENA, IHOR = "agent:bob", "user-olena", "user-ihor"


@pytest.fixture(scope="module")
async def outbox(database: Database):
    outbox = Outbox(database, {})
    yield outbox
    await outbox.close()


@pytest.fixture(scope="module")
def memory(settings: Settings, database: Database, outbox: Outbox) -> Memory:
    return open_memory(settings, database, outbox)


@pytest.fixture
async def microdao(database: Database, microdao: str) -> str:
    async with database.system() as connection:
        await connection.execute("INSERT INTO agent VALUES (%s, %s, 'Bob', 'sofia')", (microdao, BOB))
    return microdao


def of(user: str | None) -> ScopeRef | None:
    return ScopeRef("user", user) if user else None


async def store(memory: Memory, microdao: str, text: str, user: str | None, **fields) -> str:
    return (await memory.store(new(microdao, text, scope=of(user), **fields))).id


async def run(memory: Memory, microdao: str, agent: str | None = None, *, dry_run: bool = False) -> Report:
    return await memory.retention.run(microdao, agent, dry_run=dry_run, within_s=30)


async def reports(database: Database, microdao: str) -> list[Row]:
    async with database.tenant(microdao) as connection:
        return await fetch_all(
            connection, "SELECT scope_kind, scope_name, reason, items FROM memory_pruning ORDER BY id"
        )


async def test_an_agents_ages_hold_for_its_users(memory: Memory, database: Database, microdao: str):
    ids = {user: await store(memory, microdao, f"old {user}", user) for user in (OLENA, IHOR, None)}
    young = await store(memory, microdao, "young", OLENA)
    bobs = await store(memory, microdao, "old of Bob's", OLENA, agent_id=BOB)
    await age(database, microdao, 40, *ids.values(), bobs)
    await memory.retention.set_policy(microdao, AGENT, {"mid_term_max_age_days": 30})
    assert {one.unit.id for one in (await run(memory, microdao, AGENT, dry_run=True)).removals} == set(ids.values())
    assert {one.unit.id for one in (await run(memory, microdao)).removals} == set(ids.values())
    assert await kept(database, microdao) == {young, bobs}
    noted = await reports(database, microdao)
    assert {(row["scope_kind"], row["scope_name"]) for row in noted} == {("agent", AGENT)}, "and names no user"
    assert sum(row["items"] for row in noted) == 3
    assert len(await memory.retention.prunings(microdao, AGENT, None, 9)) == len(noted)
    assert await memory.retention.prunings(microdao, BOB, None, 9) == []


async def test_one_agents_run_is_of_it_and_its_users(memory: Memory, database: Database, microdao: str):
    sofias = {await store(memory, microdao, f"old {user}", user) for user in (OLENA, None)}
    bobs = {await store(memory, microdao, f"old {user}", user, agent_id=BOB) for user in (OLENA, None)}
    await age(database, microdao, 40, *sofias, *bobs)
    await memory.retention.set_policy(microdao, None, {"mid_term_max_age_days": 30})
    await run(memory, microdao, BOB)
    assert await kept(database, microdao) == sofias


@pytest.mark.parametrize("agent", [AGENT, None])
async def test_a_cap_is_of_an_agents_memory_and_its_users_together(
    memory: Memory, database: Database, microdao: str, agent: str | None
):
    ids = {}
    for number, user in enumerate((OLENA, IHOR, None, OLENA, IHOR, None)):
        ids[number] = await store(memory, microdao, f"text {number}", user, importance=number / 10)
    bobs = {await store(memory, microdao, f"text {number}", OLENA, agent_id=BOB, importance=0) for number in range(2)}
    await memory.retention.set_policy(microdao, None, {"max_items": 4})
    planned = await run(memory, microdao, agent, dry_run=True)
    assert {one.unit.id for one in planned.removals} == {ids[0], ids[1]}, "what is worth least, whosever it is"
    await run(memory, microdao, agent)
    assert await kept(database, microdao) == bobs | {ids[number] for number in range(2, 6)}
    assert (await run(memory, microdao, agent)).removals == []


async def test_what_expired_is_noted_as_the_agents(memory: Memory, database: Database, microdao: str):
    past = utc_now() - timedelta(days=1)
    for user in (OLENA, IHOR, None):
        await store(memory, microdao, f"gone {user}", user, expires_at=past)
    await memory.sweep()
    assert await kept(database, microdao) == set()
    assert await reports(database, microdao) == [
        {"scope_kind": "agent", "scope_name": AGENT, "reason": "expired", "items": 3}
    ]


async def test_a_summary_is_of_one_user(memory: Memory, database: Database, microdao: str):
    """Of one session into which two users and nobody in particular were heard."""
    said = {}
    for user, thing in ((OLENA, "xylophone"), (IHOR, "drum"), (None, "violin")):
        for number in range(3):
            text = f"The {thing} number {number} stands in the cellar of the school."
            said[await store(memory, microdao, text, user, session_id="sess_1")] = user
    await index_all(memory, database, microdao)
    await age(database, microdao, 40, *said)
    await memory.retention.set_policy(microdao, AGENT, {"consolidate_after_days": 30, "consolidate_min_items": 3})
    report = await run(memory, microdao)
    assert len(report.groups) == 3
    for group in report.groups:
        assert len({said[one] for one in group.ids}) == 1
    await index_all(memory, database, microdao)
    for user, things in ((OLENA, {"xylophone", "violin"}), (IHOR, {"drum", "violin"}), (None, {"violin"})):
        found = await memory.query(ask(microdao, "what stands in the cellar of the school?", user_id=user, k=20))
        assert {one.source for one in found} == {"summary"}
        for thing in ("xylophone", "drum", "violin"):
            assert any(thing in one.text for one in found) == (thing in things), (user, thing)
        assert {one.scope for one in found} == {ScopeRef("agent", AGENT), *([ScopeRef("user", user)] if user else [])}
    assert {(row["scope_kind"], row["scope_name"]) for row in await reports(database, microdao)} == {("agent", AGENT)}
    (hers,) = await memory.query(ask(microdao, "xylophone", user_id=OLENA, scopes=("user",)))
    await memory.forget(microdao, AGENT, next(one for one, user in said.items() if user == OLENA), OLENA)
    gone = await memory.query(ask(microdao, "xylophone", user_id=OLENA, scopes=("user",)))
    assert hers.id not in {one.id for one in gone}, "the summary went with what it was made of"
    assert len(await memory.query(ask(microdao, "drum", user_id=IHOR, scopes=("user",)))) == 1
