"""What a refusal leaves behind."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from shared.db.database import Database
from shared.errors import Unauthorized
from shared.observability import configure_logging, correlated
from shared.policy import denials
from shared.policy.decision import Resource
from shared.policy.policy import Policy
from shared.policy.principal import Principal, agent_principal

NOWHERE = "postgresql://nobody@127.0.0.1:1/none"


async def refuse(policy: Policy, microdao: str, key_id: str = "key_1", resource_id: str = "key_2") -> None:
    guest = Principal(key_id, microdao, frozenset({"guest"}))
    with pytest.raises(Unauthorized, match=r"key\.write is permitted by no policy"):
        await policy.authorize(guest, "key.write", Resource("Key", resource_id, microdao))


async def rows(policy: Policy, microdao: str, **filters: Any) -> list[dict[str, Any]]:
    return await policy.denials.list(microdao, **filters)


async def test_the_row_is_there_before_the_refusal(policy: Policy, microdao: str) -> None:
    with correlated("req_1"):
        await refuse(policy, microdao)
    (row,) = await rows(policy, microdao)
    told = {name: row[name] for name in ("principal_id", "action", "resource_kind", "resource_id", "count", "policies")}
    assert told == {
        "principal_id": "key_1",
        "action": "key.write",
        "resource_kind": "Key",
        "resource_id": "key_2",
        "count": 1,
        "policies": [],
    }
    assert (row["agent_id"], row["request_id"]) == (None, "req_1")
    assert "permitted by no policy" in row["reason"]


async def test_an_agents_refusal_names_agent_tool_and_policy(policy: Policy, microdao: str) -> None:
    with pytest.raises(Unauthorized, match="tools-need-a-grant"):
        await policy.authorize(
            agent_principal("agent:sofia", microdao), "tool.invoke", Resource("Tool", "math", microdao)
        )
    caller = Principal("key_1", microdao, frozenset({"member"}))
    with pytest.raises(Unauthorized):
        await policy.authorize(caller, "tool.invoke", Resource("Tool", "math", microdao), {"agent_id": "agent:bob"})
    found = await rows(policy, microdao, tool="math", action="tool.invoke")
    assert [(row["principal_id"], row["agent_id"]) for row in found] == [
        ("key_1", "agent:bob"),
        ("agent:sofia", "agent:sofia"),
    ]
    assert found[0]["policies"] == ["tools-need-a-grant"]
    assert len(await rows(policy, microdao, agent_id="agent:bob")) == 1


async def test_what_is_allowed_or_only_asked_leaves_no_row(policy: Policy, microdao: str) -> None:
    owner = Principal("key_1", microdao, frozenset({"owner"}))
    assert (await policy.authorize(owner, "key.write", Resource("Key", "k", microdao))).allow
    guest = Principal("key_1", microdao, frozenset({"guest"}))
    assert not (await policy.decide(guest, "key.write", Resource("Key", "k", microdao))).allow
    assert await rows(policy, microdao) == []


async def test_a_flood_of_equal_refusals_is_a_row_a_minute(policy: Policy, microdao: str) -> None:
    await asyncio.gather(*(refuse(policy, microdao) for _ in range(300)))
    await asyncio.gather(*(refuse(policy, microdao) for _ in range(300)))
    found = await rows(policy, microdao)
    assert sum(row["count"] for row in found) == 600
    assert len(found) <= 2, "two when the minute ends meanwhile"


async def test_made_up_ids_do_not_flood_the_table(policy: Policy, microdao: str) -> None:
    for number in range(denials.MAX_KINDS + 50):
        await refuse(policy, microdao, resource_id=f"key_{number}")
    found = await rows(policy, microdao, limit=1000)
    assert sum(row["count"] for row in found) == denials.MAX_KINDS + 50
    if len({row["denied_at"].minute for row in found}) == 1:
        assert len(found) == denials.MAX_KINDS + 1
    await refuse(policy, microdao, key_id="key_other", resource_id="mine")
    assert (await rows(policy, microdao))[0]["resource_id"] == "mine", "another principal has rows of its own"


async def test_refusals_inside_a_transaction_of_each_connection_hold_nobody_up(
    database_url: str, microdao: str
) -> None:
    busy, side = Database(database_url, max_size=2), Database(database_url, max_size=1)
    policy = Policy(side)

    async def call() -> None:
        async with busy.tenant(microdao) as connection:
            await connection.execute("SELECT pg_sleep(0.05)")
            await refuse(policy, microdao)

    async with asyncio.timeout(10):
        await asyncio.gather(*(call() for _ in range(6)))
    assert sum(row["count"] for row in await rows(policy, microdao)) == 6
    await busy.close()
    await side.close()


async def test_the_callers_rollback_does_not_take_the_row_along(
    policy: Policy, database: Database, microdao: str
) -> None:
    async with database.tenant(microdao) as connection:
        await refuse(policy, microdao)
        await connection.rollback()
    assert len(await rows(policy, microdao)) == 1


async def test_without_a_database_the_refusal_stands_and_is_logged(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("INFO", "test")
    nowhere = Database(NOWHERE, checkout_timeout_s=0.2)
    await refuse(Policy(nowhere), "microdao:any")
    await nowhere.close()
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["message"] for line in lines][-2:] == ["denied", "denial not written"]


async def test_nothing_long_or_hidden_is_kept(
    policy: Policy, microdao: str, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging("INFO", "test")
    await refuse(policy, microdao, resource_id="\x1b[31m\u202e\n\0" + "x" * 5000)
    (line,) = capsys.readouterr().err.splitlines()
    assert json.loads(line)["resource"] == "[31m" + "x" * 196
    assert (await rows(policy, microdao))[0]["resource_id"] == "[31m" + "x" * 196


async def test_pages_and_since(policy: Policy, microdao: str) -> None:
    for number in range(3):
        await refuse(policy, microdao, resource_id=f"key_{number}")
    first = await rows(policy, microdao, limit=2)
    rest = await rows(policy, microdao, limit=2, before=first[-1]["id"])
    assert [row["resource_id"] for row in first + rest] == ["key_2", "key_1", "key_0"]
    assert await rows(policy, microdao, since=datetime.now(UTC) + timedelta(hours=1)) == []
    assert len(await rows(policy, microdao, since=datetime.now(UTC) - timedelta(hours=1))) == 3


async def test_the_sweep_forgets_what_is_old(policy: Policy, database: Database, microdao: str) -> None:
    await refuse(policy, microdao, resource_id="old")
    await refuse(policy, microdao, resource_id="new")
    async with database.tenant(microdao) as connection:
        await connection.execute(
            "UPDATE policy_denial SET last_denied_at = now() - interval '91 days' WHERE resource_id = 'old'"
        )
    await policy.denials.sweep()
    assert [row["resource_id"] for row in await rows(policy, microdao)] == ["new"]


async def age(database: Database, microdao: str, days: int) -> None:
    """Everything that was refused there was refused so many days ago."""
    async with database.tenant(microdao) as connection:
        await connection.execute(
            "UPDATE policy_denial SET last_denied_at = now() - make_interval(days => %s, secs => count)", (days,)
        )


async def test_a_sweep_is_bounded_begins_with_the_oldest_and_rivals_share_the_work(
    policy: Policy, database: Database, microdao: str, other_microdao: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await policy.denials.sweep()
    monkeypatch.setattr(denials, "_SWEEP_BATCH", 10)
    monkeypatch.setattr(denials, "_MOST_BATCHES", 2)
    for number in range(30):
        await refuse(policy, microdao, resource_id=f"key_{number}")
    for number in range(15):
        await refuse(policy, other_microdao, resource_id=f"key_{number}")
    await age(database, microdao, 92)
    await age(database, other_microdao, 91)
    assert await policy.denials.sweep() == 20
    assert (len(await rows(policy, microdao)), len(await rows(policy, other_microdao))) == (10, 15)
    assert sum(await asyncio.gather(*(policy.denials.sweep() for _ in range(4)))) == 25
    assert await rows(policy, microdao) + await rows(policy, other_microdao) == []


async def test_a_sweep_passes_over_what_another_holds(policy: Policy, database: Database, microdao: str) -> None:
    await refuse(policy, microdao, resource_id="held")
    await refuse(policy, microdao, resource_id="free")
    await age(database, microdao, 91)
    async with database.tenant(microdao) as connection:
        await connection.execute("SELECT 1 FROM policy_denial WHERE resource_id = 'held' FOR UPDATE")
        async with asyncio.timeout(10):
            await policy.denials.sweep()
    assert [row["resource_id"] for row in await rows(policy, microdao)] == ["held"]
    await policy.denials.sweep()
    assert await rows(policy, microdao) == []
