"""Notifications and follow-ups: inboxes, channels, and reminders that fire once whatever dies."""

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from functions.tool_executor.handler import run_message, run_task
from shared.bootstrap import Services
from shared.db.database import Database, Row, fetch_all, fetch_one
from shared.ids import new_id
from shared.memory.model import Filters
from shared.policy.principal import agent_principal
from shared.settings import ROOT, Settings
from shared.tools.builtin.followups import Followups
from shared.tools.model import ToolCallRequest, ToolOutcome
from tests.integration.api_server import Api, running_api
from tests.integration.tool_executor import executed

SOFIA = "agent:sofia"
Call = Callable[..., Awaitable[ToolOutcome]]

_SWEEPER = """
import asyncio, sys
from shared.cloud.outbox import Outbox
from shared.db.database import Database
from shared.tools.builtin.followups import Followups

async def main(url):
    database = Database(url)
    print(await Followups(database, Outbox(database, {}, inline=True)).fire_due(), flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture(scope="module")
async def api(settings: Settings, models: Path) -> AsyncIterator[Api]:
    async with running_api(settings) as api:
        yield api


@pytest.fixture
def services(api: Api) -> Services:
    return api.services


@pytest.fixture
async def call(services: Services, microdao: str) -> Call:
    return await caller(services, microdao)


@pytest.fixture
async def client(api: Api, microdao: str) -> AsyncIterator[httpx.AsyncClient]:
    async with member(await api.for_member(microdao)) as client:
        yield client


async def caller(services: Services, microdao: str) -> Call:
    await services.toolbox.seed(microdao, SOFIA)

    async def call(tool: str, *, confidential: bool = False, **args: Any) -> ToolOutcome:
        request = ToolCallRequest(microdao, SOFIA, tool, args, SOFIA, confidential=confidential)
        return await services.toolbox.execute(agent_principal(SOFIA, microdao), request)

    return call


def member(api: Api) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=api.url, headers={"authorization": f"Bearer {api.key}"})


async def other_microdao(database: Database) -> str:
    microdao_id = f"microdao:{new_id('test')}"
    async with database.system() as connection:
        await connection.execute("INSERT INTO microdao (microdao_id, name) VALUES (%s, 'Other')", (microdao_id,))
        await connection.execute(
            "INSERT INTO agent (microdao_id, agent_id, name, blueprint_code) VALUES (%s, %s, 'Sofia', 'sofia')",
            (microdao_id, SOFIA),
        )
    return microdao_id


async def rows(database: Database, microdao: str, query: str) -> list[Row]:
    async with database.tenant(microdao) as connection:
        return await fetch_all(connection, query)


async def run_jobs(services: Services, database: Database, microdao: str) -> int:
    """Deliver each job of the tool queue by hand, twice, as a queue may."""
    jobs = await rows(database, microdao, "SELECT body FROM outbox WHERE queue = 'tool' ORDER BY id")
    for job in [*jobs, *jobs]:
        await run_message(services, job["body"])
    return len(jobs)


async def test_a_notification_lies_in_its_inbox_until_it_is_read(call: Call, client: httpx.AsyncClient):
    sent = await call("send_notification", to="user:olena", title=" Budget ", text=" It is approved. ")
    assert sent.result["to"] == "user:olena"
    listed = (await client.get("/internal/notifications", params={"to": "user:olena", "unread": True})).json()
    (note,) = listed["notifications"]
    assert {**note, "created_at": ""} == {
        "id": sent.result["id"],
        "kind": "message",
        "to": "user:olena",
        "title": "Budget",
        "text": "It is approved.",
        "sent_by": SOFIA,
        "followup_id": None,
        "channel_id": None,
        "confidential": False,
        "created_at": "",
        "read_at": None,
    }
    read = (await client.post(f"/internal/notifications/{note['id']}/read")).json()
    assert read["read_at"] is not None
    again = (await client.post(f"/internal/notifications/{note['id']}/read")).json()
    assert again == read, "the first time stays"
    unread = (await client.get("/internal/notifications", params={"to": "user:olena", "unread": True})).json()
    assert unread == {"notifications": [], "next": None}


async def test_inboxes_are_paged_and_read_up_to_what_was_seen(call: Call, client: httpx.AsyncClient):
    sent = [(await call("notify", to="sofia", text=f"Note {number}")).result["id"] for number in range(5)]
    await call("notify", to="user:olena", text="Not for Sofia")
    seen: list[str] = []
    query: dict[str, Any] = {"to": SOFIA, "limit": 2}
    while True:
        page = (await client.get("/internal/notifications", params=query)).json()
        seen += [note["id"] for note in page["notifications"]]
        if page["next"] is None:
            break
        query["before"] = page["next"]
    assert seen == sent[::-1]
    body = {"to": SOFIA, "up_to": sent[2]}
    assert (await client.post("/internal/notifications/read_all", json=body)).json() == {"read": 3}
    assert (await client.post("/internal/notifications/read_all", json={"to": SOFIA})).json() == {"read": 2}
    assert (await client.post("/internal/notifications/read_all", json={"to": SOFIA})).json() == {"read": 0}
    everything = (await client.get("/internal/notifications")).json()["notifications"]
    assert [note["read_at"] is None for note in everything] == [True, False, False, False, False, False]


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/internal/notifications?limit=0", None, 400),
        ("GET", "/internal/notifications?unread=perhaps", None, 400),
        ("GET", "/internal/notifications?to=%00", None, 400),
        ("GET", "/internal/notifications?microdao_id=microdao:another", None, 404),
        ("POST", "/internal/notifications/note_unheard/read", None, 404),
        ("POST", "/internal/notifications/%00/read", None, 400),
        ("POST", "/internal/notifications/read_all", {}, 400),
        ("POST", "/internal/notifications/read_all", {"to": "user:olena", "colour": "red"}, 400),
    ],
)
async def test_refusals(client: httpx.AsyncClient, method: str, path: str, body: dict[str, Any] | None, status: int):
    answer = await client.request(method, path, json=body)
    assert (answer.status_code, "error" in answer.json()) == (status, True)


async def test_guests_read_no_inbox(api: Api, microdao: str):
    key = (await api.services.keys.create(microdao, ["guest"], "test")).secret
    headers = {"authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(base_url=api.url, headers=headers) as guest:
        assert (await guest.get("/internal/notifications")).status_code == 403


async def test_another_tenant_sees_and_changes_nothing(
    api: Api, services: Services, database: Database, call: Call, client: httpx.AsyncClient
):
    sent = await call("send_notification", to="user:olena", text="Ours")
    await call("followup.create", text="Ours", due="P1D")
    other = await other_microdao(database)
    theirs = await caller(services, other)
    async with member(await api.for_member(other)) as stranger:
        assert (await stranger.get("/internal/notifications")).json()["notifications"] == []
        assert (await stranger.post(f"/internal/notifications/{sent.result['id']}/read")).status_code == 404
        body = {"to": "user:olena"}
        assert (await stranger.post("/internal/notifications/read_all", json=body)).json() == {"read": 0}
    assert (await theirs("followups.list")).result == {"followups": [], "total": 0}
    ours = (await call("followups.list")).result["followups"][0]["id"]
    assert (await theirs("followup.cancel", followup=ours)).status == "failed"
    (note,) = (await client.get("/internal/notifications", params={"unread": True})).json()["notifications"]
    assert note["text"] == "Ours"


async def test_what_is_sent_to_a_channel_is_said_there_once(
    services: Services, database: Database, microdao: str, call: Call
):
    sent = await call("send_notification", to="channel:general", title="Fair", text="The stand is booked.")
    assert await run_jobs(services, database, microdao) == 1
    said = await services.memory.channels.recent(microdao, SOFIA, Filters(channel_id="general"), max_tokens=100)
    assert [(row["author"], "Fair\nThe stand is booked." in row["text"]) for row in said] == [(SOFIA, True)]
    assert sent.result["to"] == "channel:general"
    assert await rows(database, microdao, "SELECT 1 FROM outbox WHERE queue = 'tool'") == []


async def test_the_golden_event_of_a_channel_message_is_understood(services: Services, microdao: str, call: Call):
    event = json.loads((ROOT / "events" / "tool_executor.sqs_notification.json").read_text())
    failed = {"batchItemFailures": [{"itemIdentifier": event["Records"][0]["messageId"]}]}
    assert await executed(services, event) == failed, "no such notification"
    sent = await call("send_notification", to="channel:general", text="The stand is booked.")
    body = json.loads(event["Records"][0]["body"]) | {"microdao_id": microdao, "notification_id": sent.result["id"]}
    event["Records"][0]["body"] = json.dumps(body)
    assert await executed(services, event) == {"batchItemFailures": []}
    assert await services.memory.channels.recent(microdao, SOFIA, Filters(channel_id="general"), max_tokens=100)


async def test_a_channel_message_of_an_agent_that_is_gone_is_dropped(
    services: Services, database: Database, microdao: str, call: Call
):
    await call("send_notification", to="channel:general", text="Late")
    async with database.tenant(microdao) as connection:
        await connection.execute("UPDATE notification SET sent_by = 'agent:gone'")
    await run_jobs(services, database, microdao)
    assert await rows(database, microdao, "SELECT 1 FROM outbox WHERE queue = 'tool'") == []


async def test_a_followup_waits_is_listed_and_can_be_cancelled(call: Call):
    await call("project.create", name="Fair")
    task = (await call("task.create", title="Book the stand")).result
    made = await call(
        "create_followup", text=" Ask again ", due="2030-03-01T09:00", time_zone="Europe/Kyiv", to="user:olena",
        project="fair", task="Book the stand", channel="channel:general",
    )  # fmt: skip
    assert {**made.result, "id": ""} == {
        "id": "",
        "text": "Ask again",
        "due_at": "2030-03-01T07:00:00.000Z",
        "to": "user:olena",
        "state": "waiting",
    }
    own = (await call("followup.create", text="Look", due="PT1H")).result
    assert own["to"] == SOFIA
    listed = (await call("followups.list")).result
    assert [one["text"] for one in listed["followups"]] == ["Look", "Ask again"]
    assert {**listed["followups"][1], "created_at": ""} == {
        **{"id": made.result["id"], "text": "Ask again", "state": "waiting", "project": "Fair", "created_by": SOFIA},
        **{"task": task["title"], "to": "user:olena", "channel": "general", "due_at": "2030-03-01T07:00:00.000Z"},
        "created_at": "",
    }
    assert (await call("followups.list", to="user:olena")).result["total"] == 1
    assert (await call("followups.list", due_before="P1D")).result["total"] == 1
    for _ in range(2):
        cancelled = await call("followup.cancel", followup=own["id"])
        assert cancelled.result == {"id": own["id"], "text": "Look", "state": "cancelled"}
    assert (await call("followups.list", state="cancelled")).result["total"] == 1


@pytest.mark.parametrize(
    ("args", "code", "complaint"),
    [
        ({"due": "tomorrow"}, "invalid_args", "is not understood"),
        ({"due": "2020-01-01T00:00:00Z"}, "invalid_args", "has passed"),
        ({"due": "PT0S"}, "invalid_args", "has passed"),
        ({"due": "P11Y"}, "invalid_args", "at most 10 years ahead"),
        ({"due": "2030-01-01T09:00"}, "invalid_args", "names no offset"),
        ({"due": "P1D", "to": "agent:nobody"}, "tool_failed", "agents are: agent:sofia"),
        ({"due": "P1D", "project": "Nowhere"}, "tool_failed", "no project"),
        ({"due": "P1D", "task": "Nothing"}, "tool_failed", "no task"),
    ],
)
async def test_followups_that_cannot_be(call: Call, args: dict[str, Any], code: str, complaint: str):
    failed = await call("followup.create", text="Look", **args)
    assert (failed.status, failed.error_code) == ("failed", code)
    assert complaint in str(failed.error_message)
    assert (await call("followups.list")).result["total"] == 0


async def test_a_due_followup_becomes_a_notification_and_is_said_in_its_channel(
    services: Services, database: Database, microdao: str, call: Call
):
    made = (await call("followup.create", text="Ask again", due="PT1H", to="user:olena", channel="general")).result
    await call("followup.create", text="Much later", due="P1D")
    async with database.tenant(microdao) as connection:
        await connection.execute("UPDATE followup SET due_at = now() WHERE text = 'Ask again'")
    for _ in range(2):
        await run_task(services, {"task": "sweep"})
    (note,) = await services.notifications.list(microdao, to=None, unread=None, before=None, limit=10)
    kept = ("kind", "recipient", "text", "followup_id", "channel_id", "sent_by")
    assert [note[field] for field in kept] == ["followup", "user:olena", "Ask again", made["id"], "general", SOFIA]
    await run_jobs(services, database, microdao)
    (said,) = await services.memory.channels.recent(microdao, SOFIA, Filters(channel_id="general"), max_tokens=100)
    assert "Ask again" in said["text"]
    fired = (await call("followups.list", state="fired")).result["followups"]
    assert [one["id"] for one in fired] == [made["id"]]
    late = await call("followup.cancel", followup=made["id"])
    assert "has fired already" in str(late.error_message)


async def test_many_sweepers_at_once_fire_each_followup_once(
    services: Services, database: Database, database_url: str, microdao: str, call: Call
):
    await _many_due(database, microdao, 230)
    await _many_due(database, await other_microdao(database), 40)
    sweepers = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", _SWEEPER, database_url, cwd=ROOT, stdout=asyncio.subprocess.PIPE
        )
        for _ in range(3)
    ]
    here = await asyncio.gather(*(services.followups.fire_due() for _ in range(4)))
    there = [int((await sweeper.communicate())[0]) for sweeper in sweepers]
    assert [sweeper.returncode for sweeper in sweepers] == [0, 0, 0]
    assert sum(here) + sum(there) == 270
    notes = await rows(database, microdao, "SELECT followup_id FROM notification")
    assert len(notes) == len({note["followup_id"] for note in notes}) == 230


async def test_a_sweeper_killed_midway_leaves_everything_to_the_next(
    services: Services, database: Database, database_url: str, microdao: str, call: Call
):
    await _many_due(database, microdao, 20)
    async with database.system() as holder:
        # The sweeper has marked all as fired and now stands before the first notification.
        await holder.execute("LOCK TABLE notification IN SHARE MODE")
        sweeper = subprocess.Popen([sys.executable, "-c", _SWEEPER, database_url], cwd=ROOT)  # noqa: ASYNC220
        try:
            await _until_blocked(database)
        finally:
            sweeper.send_signal(signal.SIGKILL)
            assert sweeper.wait(10) == -signal.SIGKILL
    assert await rows(database, microdao, "SELECT 1 FROM notification") == []
    deadline = time.monotonic() + 10
    while await rows(database, microdao, "SELECT 1 FROM followup WHERE state = 'waiting'"):
        await services.followups.fire_due()  # the server needs a moment to see that the client is gone
        assert time.monotonic() < deadline
    assert len(await rows(database, microdao, "SELECT 1 FROM notification")) == 20


async def test_a_followup_is_cancelled_or_fires_never_both(
    services: Services, database: Database, microdao: str, call: Call
):
    await _many_due(database, microdao, 40)
    ids = [row["id"] for row in await rows(database, microdao, "SELECT id FROM followup")]
    cancelling = asyncio.gather(*(call("followup.cancel", followup=one) for one in ids))
    await services.followups.fire_due()
    cancelled = {outcome.result["id"] for outcome in await cancelling if outcome.status == "succeeded"}
    notes = await rows(database, microdao, "SELECT followup_id FROM notification")
    assert cancelled | {note["followup_id"] for note in notes} == set(ids)
    assert cancelled & {note["followup_id"] for note in notes} == set()


async def test_a_big_backlog_is_fired_over_several_sweeps(services: Services, database: Database, microdao: str):
    await _many_due(database, microdao, 120)
    followups = Followups(database, services.outbox)
    assert await followups.fire_due() == 120
    assert await followups.fire_due() == 0


async def _many_due(database: Database, microdao: str, number: int) -> None:
    past = datetime.now(UTC) - timedelta(minutes=1)
    async with database.tenant(microdao) as connection:
        await connection.execute(
            "INSERT INTO followup (id, microdao_id, text, due_at, recipient_kind, recipient, created_by)"
            " SELECT 'fup_' || gen_random_uuid(), %s, 'Look', %s, 'agent', 'agent:sofia', 'agent:sofia'"
            " FROM generate_series(1, %s)",
            (microdao, past, number),
        )


async def _until_blocked(database: Database) -> None:
    deadline = time.monotonic() + 20
    while True:
        async with database.system() as connection:
            if await fetch_one(
                connection, "SELECT 1 FROM pg_locks WHERE relation = 'notification'::regclass AND NOT granted"
            ):
                return
        assert time.monotonic() < deadline, "the sweeper did not come so far"
        await asyncio.sleep(0.02)
