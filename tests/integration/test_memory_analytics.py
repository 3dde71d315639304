"""Analytics: exact on a memory whose every figure is known, and over HTTP."""

from datetime import UTC, datetime, timedelta

import httpx
import pytest

from functions.chat.app import create_app
from shared.bootstrap import Services
from shared.clock import utc_now
from shared.cloud.outbox import Outbox
from shared.db.database import Database, fetch_all
from shared.errors import InvalidRequest, NotFound
from shared.ids import new_id
from shared.memory.analytics.analytics import Subject, Wanted
from shared.memory.memory import Memory, open_memory
from shared.usage.events import UsageEvent, record
from shared.usage.meter import Meter
from tests.memories import AGENT, ask, index_all, new

OTHER = "agent:other"
OLD = datetime(2026, 1, 1, 12, tzinfo=UTC)
BASE = "/internal/agent-memory/analytics"


@pytest.fixture(scope="module")
async def outbox(database: Database):
    """Jobs stay in it: the tests deliver them by hand."""
    outbox = Outbox(database, {})
    yield outbox
    await outbox.close()


@pytest.fixture(scope="module")
def memory(settings, database: Database, outbox: Outbox) -> Memory:
    return open_memory(settings, database, outbox)


@pytest.fixture
async def seeded(memory: Memory, database: Database, microdao: str) -> str:
    """Sofia's: three notes of January (two say the same, one is used) and one of today; another's: one; all's: one."""
    async with database.system() as connection:
        await connection.execute("INSERT INTO agent VALUES (%s, %s, 'Other', 'sofia')", (microdao, OTHER))
    said = (("apple tea", "mid_term"), (" Apple  TEA", "long_term"), ("plum", "mid_term"))
    notes = [await memory.store(new(microdao, text, tier=tier)) for text, tier in said]
    await index_all(memory, database, microdao)
    async with database.tenant(microdao) as connection:
        await connection.execute("UPDATE memory_item SET created_at = %s", (OLD,))
        await connection.execute(
            "UPDATE memory_item SET created_at = created_at + interval '1 day' WHERE id = %s", (notes[2].id,)
        )
    await memory.store(new(microdao, "pear"))
    await memory.store(new(microdao, "gone", expires_at=utc_now() - timedelta(seconds=1)))
    await memory.store(new(microdao, "apple tea", agent_id=OTHER))
    async with database.tenant(microdao) as connection:
        await connection.execute(
            "INSERT INTO memory_item"
            " (id, microdao_id, scope_id, agent_id, tier, content, text, content_hash, state, failure)"
            " SELECT %s, microdao_id, scope_id, %s, 'long_term', '{}', 'x', '', 'failed', 'ValueError: no'"
            " FROM memory_scope WHERE microdao_id = %s AND kind = 'microdao'",
            (new_id("mem"), OTHER, microdao),
        )
        await connection.execute("INSERT INTO memory_activity VALUES (%s, %s, '2026-01-02', 10, 4)", (microdao, AGENT))
        await connection.execute("INSERT INTO memory_activity VALUES (%s, %s, '2026-01-02', 5, 5)", (microdao, OTHER))
        await connection.execute(
            "INSERT INTO memory_use SELECT scope_id, number, 7, now() FROM memory_item WHERE id = %s", (notes[0].id,)
        )
        await connection.execute(
            "INSERT INTO memory_use SELECT scope_id, number, 9, %s FROM memory_item WHERE id = %s", (OLD, notes[2].id)
        )
    await _spend(database, microdao, "text-embedding", AGENT, 500)
    await _spend(database, microdao, "text-embedding", None, 40)
    await _spend(database, microdao, "cheap", AGENT, 9000)
    return microdao


async def _spend(database: Database, microdao: str, model: str, agent_id: str | None, cost: int) -> None:
    event = UsageEvent(
        id=new_id("use"), microdao_id=microdao, kind="llm", subject=model, agent_id=agent_id,
        prompt_tokens=3, latency_ms=1, cost_microusd=cost,
    )  # fmt: skip
    async with database.tenant(microdao) as connection:
        await record(connection, event)
        rows = await fetch_all(connection, "SELECT body FROM outbox WHERE queue = 'usage'")
    for row in rows:
        await Meter(database).apply(**row["body"])


def wanted(**fields) -> Wanted:
    now = utc_now()
    defaults = {
        "since": now - timedelta(days=1), "until": now + timedelta(days=1), "unused_for": timedelta(days=30),
        "embedding_models": ["text-embedding", "unused-embedding"], "usd_per_1t": 0.01,
    }  # fmt: skip
    return Wanted(**{**defaults, **fields})


JANUARY = {"since": datetime(2026, 1, 1, tzinfo=UTC), "until": datetime(2026, 1, 3, tzinfo=UTC)}


async def test_an_agents_figures(memory: Memory, seeded: str):
    report = await memory.analytics.report(Subject(microdao_id=seeded, agent_id=AGENT), wanted(**JANUARY))
    assert report["growth"] == [
        {"day": "2026-01-01", "tier": "long_term", "items": 1, "bytes": len('{"text": " Apple  TEA"}')},
        {"day": "2026-01-01", "tier": "mid_term", "items": 1, "bytes": len('{"text": "apple tea"}')},
        {"day": "2026-01-02", "tier": "mid_term", "items": 1, "bytes": len('{"text": "plum"}')},
    ]
    assert report["queries"] == [{"day": "2026-01-02", "queries": 10, "hits": 6, "misses": 4}]
    assert report["duplicates"] == {"looked_at": 4, "duplicates": 1, "rate": 0.25}
    assert report["stale"] == 2
    queue = report["queue"]
    assert (queue["pending"], queue["failed"], queue["failures"]) == (1, 0, [])
    assert 0 <= queue["oldest_pending_s"] < 60
    (space,) = report["embeddings"]
    assert (space["vectors"], space["state"]) == (3, "active")
    assert space["bytes"] == 3 * (2 * space["dimensions"] + 60)
    assert report["embedding_cost"] == []

    today = await memory.analytics.report(Subject(microdao_id=seeded, agent_id=AGENT), wanted())
    assert [(row["tier"], row["items"]) for row in today["growth"]] == [("mid_term", 1)]
    assert [(row["model"], row["requests"], row["cost_microusd"]) for row in today["embedding_cost"]] == [
        ("text-embedding", 1, 500)
    ]


async def test_a_microdaos_figures(memory: Memory, seeded: str):
    report = await memory.analytics.report(Subject(microdao_id=seeded), wanted(**JANUARY))
    assert report["queries"] == [{"day": "2026-01-02", "queries": 15, "hits": 6, "misses": 9}]
    assert report["duplicates"]["looked_at"] == 6
    assert report["duplicates"]["duplicates"] == 1, "another agent's words are no duplicate"
    assert (report["queue"]["pending"], report["queue"]["failed"]) == (2, 1)
    assert report["queue"]["failures"] == [{"reason": "ValueError: no", "items": 1}]
    today = await memory.analytics.report(Subject(microdao_id=seeded), wanted())
    assert sum(row["items"] for row in today["growth"]) == 3
    assert [row["cost_microusd"] for row in today["embedding_cost"]] == [540]
    assert today["embedding_cost"][0]["cost_1t"] == pytest.approx(0.054)


async def test_most_used_and_stale_are_paged(memory: Memory, seeded: str):
    subject = Subject(microdao_id=seeded, agent_id=AGENT)
    used = await memory.analytics.most_used(subject, None, 9)
    assert [(row["text"], row["hits"]) for row in used] == [("plum", 9), ("apple tea", 7)]
    assert await memory.analytics.most_used(subject, (9, used[0]["number"]), 9) == used[1:]
    stale = await memory.analytics.stale(subject, timedelta(days=30), None, 9)
    assert [(row["text"], row["hits"]) for row in stale] == [("Apple  TEA", 0), ("plum", 9)]
    after = stale[0]["created_at"], stale[0]["number"]
    assert await memory.analytics.stale(subject, timedelta(days=30), after, 9) == stale[1:]
    assert await memory.analytics.most_used(Subject(microdao_id=seeded, agent_id=OTHER), None, 9) == []


async def test_a_query_counts(memory: Memory, seeded: str):
    await memory.query(ask(seeded, "plum"))
    report = await memory.analytics.report(Subject(microdao_id=seeded, agent_id=AGENT), wanted())
    assert sum(row["queries"] for row in report["queries"]) == 1


async def test_isolation(memory: Memory, database: Database, seeded: str):
    elsewhere = f"microdao:{new_id('elsewhere')}"
    async with database.system() as connection:
        await connection.execute("INSERT INTO microdao VALUES (%s, 'Elsewhere')", (elsewhere,))
    report = await memory.analytics.report(Subject(microdao_id=elsewhere), wanted(**JANUARY))
    assert (report["growth"], report["queries"], report["stale"], report["queue"]["pending"]) == ([], [], 0, 0)
    assert [row["vectors"] for row in report["embeddings"]] == [0]
    assert await memory.analytics.most_used(Subject(microdao_id=elsewhere), None, 9) == []
    with pytest.raises(NotFound):
        await memory.analytics.report(Subject(microdao_id=elsewhere, agent_id=AGENT), wanted())
    with pytest.raises(InvalidRequest, match="366"):
        await memory.analytics.report(Subject(microdao_id=seeded), wanted(since=OLD, until=OLD + timedelta(days=367)))


async def test_over_http(services: Services, seeded: str):
    keys = {role: (await services.keys.create(seeded, [role], role)).secret for role in ("member", "guest")}
    transport = httpx.ASGITransport(create_app(services))
    headers = {"authorization": f"Bearer {keys['member']}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://test", headers=headers) as client:
        report = (await client.get(BASE, params={"agent_id": AGENT, "period": "2026-01-01..2026-01-03"})).json()
        assert [row["memory_type"] for row in report["growth"]] == ["long_term", "mid_term", "mid_term"]
        assert report["queries"] == [{"day": "2026-01-02", "queries": 10, "hits": 6, "misses": 4}]
        assert (report["stale"], report["agent_id"], report["since"]) == (2, AGENT, "2026-01-01T00:00:00Z")
        assert (await client.get(BASE)).json()["agent_id"] is None
        for path, texts in (("most-used", ["plum", "apple tea"]), ("stale", ["Apple  TEA", "plum"])):
            seen, after = [], {}
            while after is not None:
                query = {"agent_id": AGENT, "limit": 1, **after}
                page = (await client.get(f"{BASE}/{path}", params=query)).json()
                seen += [item["text"] for item in page["items"]]
                after = {"after": page["next"]} if page["next"] else None
            assert seen == texts
        for query in ("period=soon", "period=500d", "unused_days=0", "agent_id="):
            assert (await client.get(f"{BASE}?{query}")).status_code == 400, query
        for path in ("", "/most-used", "/stale"):
            assert (await client.get(f"{BASE}{path}?agent_id=agent:nobody")).status_code == 404
            assert (await client.get(f"{BASE}{path}?microdao_id=microdao:none")).status_code == 404
            guest = {"authorization": f"Bearer {keys['guest']}"}
            assert (await client.get(f"{BASE}{path}", headers=guest)).status_code == 403
        for path in ("/most-used?after=1", "/most-used?after=99999999999.1", "/stale?after=x", "/stale?after=MQ=="):
            assert (await client.get(f"{BASE}{path}")).status_code == 400, path
