"""The sweep removes old notifications, deliveries and follow-ups, and nothing that still has a way to go."""

import asyncio
import json
from dataclasses import replace

import pytest
from psycopg import sql

from functions.tool_executor.handler import run_message
from shared.bootstrap import Services
from shared.cloud.outbox import enqueue
from shared.db.database import Database, fetch_all
from shared.errors import NotFound
from shared.ids import new_id
from shared.settings import ROOT
from shared.tools.builtin import pruning
from shared.tools.builtin.notifying import QUEUE
from shared.tools.builtin.store_pruning import prune_notifications
from tests.integration.tool_executor import executed

SWEEP = json.loads((ROOT / "events/tool_executor.schedule.json").read_text(encoding="utf-8"))


async def sweep(services: Services) -> None:
    """What the schedule brings."""
    assert "requeued" in await executed(services, SWEEP)


async def add_note(
    database: Database,
    microdao: str,
    text: str,
    made: int,
    *,
    read: int | None = None,
    followup: str | None = None,
    channel: str | None = None,
) -> str:
    """A notification that was made, and read, so many days ago; its id."""
    row = {"id": new_id("note"), "microdao": microdao, "text": text, "made": made, "read": read}
    async with database.tenant(microdao) as connection:
        await connection.execute(
            "INSERT INTO notification (id, microdao_id, kind, recipient_kind, recipient, text, sent_by, followup_id,"
            " channel_id, created_at, read_at) VALUES (%(id)s, %(microdao)s, 'message', 'user', 'user:olena', %(text)s,"
            " 'agent:sofia', %(followup)s, %(channel)s, now() - make_interval(days => %(made)s, hours => 1),"
            " now() - make_interval(days => %(read)s, hours => 1))",
            {**row, "followup": followup, "channel": channel},
        )
    return str(row["id"])


async def add_delivery(database: Database, microdao: str, note: str, state: str, ended: int | None = None) -> str:
    """A delivery that ended so many days ago; its id."""
    delivery = new_id("whd")
    async with database.tenant(microdao) as connection:
        await connection.execute(
            "INSERT INTO webhook_delivery (id, microdao_id, notification_id, event, state, ended_at)"
            " VALUES (%s, %s, %s, 'notification.sent', %s, now() - make_interval(days => %s, hours => 1))",
            (delivery, microdao, note, state, ended),
        )
    return delivery


async def add_followup(database: Database, microdao: str, text: str, state: str, ended: int | None = None) -> str:
    """A follow-up that ended so many days ago; its id."""
    followup = new_id("fup")
    async with database.tenant(microdao) as connection:
        await connection.execute(
            "INSERT INTO followup (id, microdao_id, text, due_at, recipient_kind, recipient, created_by, state,"
            " ended_at) VALUES (%s, %s, %s, now() + interval '1 day', 'user', 'user:olena', 'agent:sofia', %s,"
            " now() - make_interval(days => %s, hours => 1))",
            (followup, microdao, text, state, ended),
        )
    return followup


async def left(database: Database, microdao: str, table: str = "notification", column: str = "text") -> list[str]:
    async with database.tenant(microdao) as connection:
        return [row[column] for row in await fetch_all(connection, f"SELECT {column} FROM {table} ORDER BY {column}")]


async def test_read_ones_go_after_a_month_and_all_after_three(
    services: Services, database: Database, microdao: str, other_microdao: str
):
    for tenant in (microdao, other_microdao):
        await add_note(database, tenant, "fresh", 0)
        await add_note(database, tenant, "unread", 89)
        await add_note(database, tenant, "unread for long", 90)
        await add_note(database, tenant, "read lately", 60, read=29)
        await add_note(database, tenant, "read for long", 60, read=30)
        await add_note(database, tenant, "old, read lately", 90, read=1)
    await sweep(services)
    for tenant in (microdao, other_microdao):
        assert await left(database, tenant) == ["fresh", "read lately", "unread"]


async def test_how_long_is_a_setting(services: Services, database: Database, microdao: str):
    strict = Services(replace(services.settings, notification_read_days=2, notification_days=5))
    for text, made, read in (("unread", 4, None), ("old", 5, None), ("read", 3, 1), ("read for long", 3, 2)):
        await add_note(database, microdao, text, made, read=read)
    await sweep(strict)
    await strict.close()
    assert await left(database, microdao) == ["read", "unread"]


async def test_deliveries_that_were_taken_go_and_what_waits_keeps_its_notification(
    services: Services, database: Database, microdao: str
):
    kept = {}
    for text, made, state, ended in (
        ("taken", 60, "delivered", 30),
        ("taken lately", 60, "delivered", 29),
        ("dead", 60, "dead", 59),
        ("old and dead", 91, "dead", 90),
        ("old and waiting", 91, "waiting", None),
    ):
        note = await add_note(database, microdao, text, made)
        kept[text] = await add_delivery(database, microdao, note, state, ended)
    await sweep(services)
    assert await left(database, microdao) == ["dead", "old and waiting", "taken", "taken lately"]
    expected = [kept[text] for text in ("dead", "old and waiting", "taken lately")]
    assert await left(database, microdao, "webhook_delivery", "id") == sorted(expected)


async def test_what_is_still_to_be_said_in_a_channel_stays(services: Services, database: Database, microdao: str):
    note = await add_note(database, microdao, "to be said", 91, channel="general")
    await add_note(database, microdao, "was said", 91, channel="general")
    async with database.tenant(microdao) as connection:
        job = await enqueue(connection, microdao, "tool", {"notification_id": note})
    await sweep(services)
    assert await left(database, microdao) == ["to be said"]
    async with database.tenant(microdao) as connection:
        await connection.execute("DELETE FROM outbox WHERE id = %s", (job,))
    await sweep(services)
    assert await left(database, microdao) == []


async def test_followups_that_are_over_go_with_their_notification_but_not_before(
    services: Services, database: Database, microdao: str
):
    await add_followup(database, microdao, "waiting", "waiting")
    await add_followup(database, microdao, "cancelled", "cancelled", 89)
    await add_followup(database, microdao, "cancelled for long", "cancelled", 90)
    for text, ended, made in (("fired", 89, 89), ("fired for long", 90, 90), ("fired, and told later", 90, 1)):
        followup = await add_followup(database, microdao, text, "fired", ended)
        await add_note(database, microdao, text, made, followup=followup)
    await sweep(services)
    assert await left(database, microdao, "followup") == ["cancelled", "fired", "fired, and told later", "waiting"]
    assert await left(database, microdao) == ["fired", "fired, and told later"]


async def test_a_sweep_is_bounded_and_rivals_share_the_work(
    services: Services, database: Database, microdao: str, monkeypatch: pytest.MonkeyPatch
):
    await sweep(services)
    monkeypatch.setattr(pruning, "_BATCH", 10)
    monkeypatch.setattr(pruning, "_MOST_BATCHES", 2)
    for number in range(50):
        await add_note(database, microdao, f"{number}", 91)
    assert await services.pruning.sweep() == 20
    assert len(await left(database, microdao)) == 30
    assert sum(await asyncio.gather(*(services.pruning.sweep() for _ in range(4)))) == 30
    assert await left(database, microdao) == []


async def test_a_batch_is_bounded_however_it_is_planned(database: Database, microdao: str):
    for number in range(30):
        await add_note(database, microdao, f"{number}", 91)
    async with database.system() as connection:
        for way in ("hashjoin", "mergejoin", "hashagg", "sort", "material"):  # so the table is gone through row by row
            await connection.execute(sql.SQL("SET LOCAL enable_{} = off").format(sql.SQL(way)))
        assert await prune_notifications(connection, read_days=30, days=90, queue=QUEUE, limit=10) == 10


async def test_the_job_of_a_delivery_that_was_removed_is_done(services: Services, database: Database, microdao: str):
    async with database.tenant(microdao) as connection:
        job = await enqueue(connection, microdao, "tool", {"delivery_id": "whd_gone"})
    message = {"job_id": job, "microdao_id": microdao, "delivery_id": "whd_gone"}
    await run_message(services, message)
    assert await left(database, microdao, "outbox", "id") == []
    with pytest.raises(NotFound):
        await run_message(services, message)
