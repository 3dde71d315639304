"""Webhooks against a real server: signed, sent again until taken or given up, one attempt for duplicates."""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import pytest

from functions.tool_executor.handler import run_message
from shared.bootstrap import Services
from shared.cloud.outbox import Outbox
from shared.db.database import Database, Row, fetch_all
from shared.errors import NotFound
from shared.ids import new_id
from shared.policy.principal import agent_principal
from shared.settings import ROOT, Settings
from shared.tools.builtin import webhooks as webhooks_module
from shared.tools.builtin.webhooks import MOST_ATTEMPTS
from shared.tools.model import ToolCallRequest
from shared.tools.secrets import resealing as resealing_module
from tests.fakes.webhook_receiver import WebhookReceiver
from tests.integration.api_server import Api, running_api
from tests.integration.tool_executor import executed

SOFIA = "agent:sofia"
SECRET = "whsec_of-the-receivers-own-choice"


@pytest.fixture(scope="module")
async def listening() -> AsyncIterator[WebhookReceiver]:
    async with WebhookReceiver() as receiver:
        yield receiver


@pytest.fixture
def receiver(listening: WebhookReceiver) -> WebhookReceiver:
    listening.reset()
    return listening


@pytest.fixture(scope="module")
async def api(settings: Settings, listening: WebhookReceiver) -> AsyncIterator[Api]:
    """This machine is out of reach but for the receiver, and for a port where nobody listens."""
    async with running_api(replace(settings, private_hosts=f"127.0.0.1:{listening.port},127.0.0.1:9")) as api:
        yield api


@pytest.fixture
def services(api: Api) -> Services:
    return api.services


@pytest.fixture
async def admin(api: Api, microdao: str) -> AsyncIterator[httpx.AsyncClient]:
    async with holder_of(api, microdao, "admin") as client:
        yield client


def holder_of(api: Api, microdao: str, role: str) -> "KeyHolder":
    return KeyHolder(api, microdao, role)


class KeyHolder:
    """An API client with a fresh key of a role."""

    def __init__(self, api: Api, microdao: str, role: str) -> None:
        self._api, self._microdao, self._role = api, microdao, role

    async def __aenter__(self) -> httpx.AsyncClient:
        key = (await self._api.services.keys.create(self._microdao, [self._role], "test")).secret
        self._client = httpx.AsyncClient(base_url=self._api.url, headers={"authorization": f"Bearer {key}"})
        return self._client

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()


async def notify(services: Services, microdao: str, text: str = "Привіт 👋", *, confidential: bool = False) -> str:
    await services.toolbox.seed(microdao, SOFIA)
    args = {"to": "user:olena", "title": "News", "text": text}
    request = ToolCallRequest(microdao, SOFIA, "send_notification", args, SOFIA, confidential=confidential)
    outcome = await services.toolbox.execute(agent_principal(SOFIA, microdao), request)
    return str(outcome.result["id"])


async def rows(database: Database, microdao: str, query: str) -> list[Row]:
    async with database.tenant(microdao) as connection:
        return await fetch_all(connection, query)


async def deliver_once(services: Services, microdao: str) -> None:
    """What the queue brings: each job that waits, once."""
    for job in await rows(services.database, microdao, "SELECT body FROM outbox WHERE queue = 'tool'"):
        await run_message(services, job["body"])


async def delivery(services: Services, microdao: str) -> Row:
    (row,) = await services.webhooks.deliveries(microdao, state=None, before=None, limit=10)
    return row


async def jobs_left(services: Services, microdao: str) -> int:
    return len(await rows(services.database, microdao, "SELECT 1 FROM outbox WHERE queue = 'tool'"))


async def test_the_api(admin: httpx.AsyncClient, database: Database, microdao: str):
    assert (await admin.get("/admin/webhooks")).status_code == 404
    assert (await admin.delete("/admin/webhooks")).status_code == 404
    made = (await admin.put("/admin/webhooks", json={"url": "https://example.com/hook?a=b"})).json()
    assert re.fullmatch(r"whsec_[\w-]{43}", made["secret"])
    assert made["events"] == ["notification.sent", "followup.due"]
    changed = {"url": "https://example.com/other", "events": ["followup.due", "followup.due"]}
    kept = (await admin.put("/admin/webhooks", json=changed)).json()
    assert (kept["secret"], kept["events"]) == (None, ["followup.due"])
    shown = (await admin.get("/admin/webhooks")).json()
    assert shown == {name: value for name, value in kept.items() if name != "secret"}
    (row,) = await rows(database, microdao, "SELECT secret FROM webhook")
    assert made["secret"].encode() not in bytes(row["secret"]), "sealed"
    replaced = (await admin.put("/admin/webhooks", json={**changed, "secret": SECRET})).json()
    assert replaced["secret"] == SECRET
    assert (await admin.delete("/admin/webhooks")).json() == {"ok": True}
    assert (await admin.get("/admin/webhooks")).status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"url": "ftp://example.com/"},
        {"url": "https://127.1/hook"},
        {"url": "https://example.com:99010/hook"},
        {"url": "https:///hook"},
        {"url": "https://user:password@example.com/"},
        {"url": "https://example.com/#part"},
        {"url": "https://example.com/a b"},
        {"url": "https://example.com/", "events": []},
        {"url": "https://example.com/", "events": ["everything"]},
        {"url": "https://example.com/", "secret": "short"},
        {"url": "https://example.com/", "secret": "with spaces in its middle"},
        {"url": "https://example.com/", "colour": "red"},
        {"url": f"https://example.com/{'x' * 2000}"},
    ],
)
async def test_what_is_no_webhook(admin: httpx.AsyncClient, body: dict[str, Any]):
    assert (await admin.put("/admin/webhooks", json=body)).status_code == 400
    assert (await admin.get("/admin/webhooks")).status_code == 404


@pytest.mark.parametrize("role", ["member", "guest", "agent", "service"])
async def test_only_administrators_see_and_set_it(api: Api, microdao: str, role: str):
    async with holder_of(api, microdao, role) as client:
        assert (await client.get("/admin/webhooks")).status_code == 403
        assert (await client.put("/admin/webhooks", json={"url": "https://example.com/"})).status_code == 403
        assert (await client.delete("/admin/webhooks")).status_code == 403
        assert (await client.get("/admin/webhooks/deliveries")).status_code == 403
        assert (await client.post("/admin/webhooks/deliveries/whd_1/retry")).status_code == 403


async def test_a_notification_is_delivered_signed(services: Services, microdao: str, receiver: WebhookReceiver):
    await services.webhooks.put(microdao, receiver.url, secret=SECRET)
    before = time.time()
    notification_id = await notify(services, microdao)
    await deliver_once(services, microdao)
    (got,) = receiver.received
    row = await delivery(services, microdao)
    assert (row["state"], row["attempts"], row["status"], row["failure"]) == ("delivered", 1, 200, None)
    assert got.is_signed_with(SECRET)
    assert not got.is_signed_with(f"{SECRET}x")
    assert int(before) <= int(got.headers["x-daarion-signature"].split(",")[0][2:]) <= time.time()
    assert (got.headers["x-daarion-delivery"], got.headers["x-daarion-event"]) == (row["id"], "notification.sent")
    assert {**got.event, "created_at": ""} == {
        "id": row["id"],
        "type": "notification.sent",
        "microdao_id": microdao,
        "created_at": "",
        "data": {
            **{"id": notification_id, "kind": "message", "followup_id": None, "channel_id": None, "sent_by": SOFIA},
            **{"confidential": False, "title": "News", "text": "Привіт 👋", "to": "user:olena"},
        },
    }
    assert await jobs_left(services, microdao) == 0


async def test_the_golden_event_of_a_delivery_is_understood(
    services: Services, microdao: str, receiver: WebhookReceiver
):
    event = json.loads((ROOT / "events" / "tool_executor.sqs_webhook.json").read_text())
    failed = {"batchItemFailures": [{"itemIdentifier": event["Records"][0]["messageId"]}]}
    assert await executed(services, event) == failed, "no such delivery"
    await services.webhooks.put(microdao, receiver.url)
    await notify(services, microdao)
    waiting = await delivery(services, microdao)
    body = json.loads(event["Records"][0]["body"]) | {"microdao_id": microdao, "delivery_id": waiting["id"]}
    event["Records"][0]["body"] = json.dumps(body)
    assert await executed(services, event) == {"batchItemFailures": []}
    assert len(receiver.received) == 1


async def test_the_words_of_a_confidential_notification_stay_here(
    services: Services, microdao: str, receiver: WebhookReceiver
):
    await services.webhooks.put(microdao, receiver.url)
    await notify(services, microdao, "The password is swordfish", confidential=True)
    await deliver_once(services, microdao)
    (got,) = receiver.received
    assert b"swordfish" not in got.body
    assert b"News" not in got.body
    assert got.event["data"]["confidential"] is True


async def test_followups_that_are_due_are_told_and_only_events_that_were_asked_for(
    services: Services, microdao: str, receiver: WebhookReceiver
):
    await services.webhooks.put(microdao, receiver.url, ["followup.due"])
    await notify(services, microdao)
    request = ToolCallRequest(microdao, SOFIA, "followup.create", {"text": "Ask again", "due": "PT1H"}, SOFIA)
    made = await services.toolbox.execute(agent_principal(SOFIA, microdao), request)
    async with services.database.tenant(microdao) as connection:
        await connection.execute("UPDATE followup SET due_at = now()")
    await services.followups.fire_due()
    await deliver_once(services, microdao)
    (got,) = receiver.received
    assert got.event["type"] == "followup.due"
    assert (got.event["data"]["followup_id"], got.event["data"]["text"]) == (made.result["id"], "Ask again")


async def test_it_is_sent_again_until_it_is_taken_with_the_same_id_and_words(
    services: Services, microdao: str, receiver: WebhookReceiver
):
    await services.webhooks.put(microdao, receiver.url, secret=SECRET)
    receiver.statuses = [500, 302, 429]
    await notify(services, microdao)
    failures = []
    for _ in range(4):
        await deliver_once(services, microdao)
        failures.append((await delivery(services, microdao))["failure"])
    assert failures == ["answered 500", "answered 302", "answered 429", None]
    assert len({got.headers["x-daarion-delivery"] for got in receiver.received}) == 1
    assert len({got.body for got in receiver.received}) == 1
    assert all(got.is_signed_with(SECRET) for got in receiver.received)
    assert (await delivery(services, microdao))["attempts"] == 4
    assert await jobs_left(services, microdao) == 0


async def test_the_outbox_brings_the_next_attempt_later_each_time(
    services: Services, microdao: str, receiver: WebhookReceiver
):
    await services.webhooks.put(microdao, receiver.url)
    receiver.statuses = [500, 500]
    await notify(services, microdao)
    await deliver_once(services, microdao)
    (job,) = await rows(services.database, microdao, "SELECT id FROM outbox WHERE queue = 'tool'")
    queue = Outbox(services.database, {"tool": _Kept()}, inline=True)  # type: ignore[dict-item]
    waited = {}
    for sends, minutes in ((1, 1), (2, 2), (3, 4), (9, 60)):
        for moment in (minutes - 0.1, minutes + 0.1):
            async with services.database.tenant(microdao) as connection:
                await connection.execute(
                    "UPDATE outbox SET sends = %s, sent_at = now() - make_interval(secs => %s) WHERE id = %s",
                    (sends, 60 * moment, job["id"]),
                )
            await queue.sweep("tool", older_than_s=60)
            (row,) = await rows(services.database, microdao, "SELECT sends FROM outbox WHERE queue = 'tool'")
            waited[sends, moment > minutes] = row["sends"] > sends
    assert waited == {(sends, is_over): is_over for sends in (1, 2, 3, 9) for is_over in (False, True)}


class _Kept:
    """A queue that takes everything."""

    async def send(self, messages: list[Any]) -> set[str]:
        """All were taken."""
        return {message.id for message in messages}


async def test_it_is_given_up_after_so_many_attempts_and_can_be_sent_again_by_hand(
    services: Services, microdao: str, receiver: WebhookReceiver, admin: httpx.AsyncClient
):
    await services.webhooks.put(microdao, receiver.url)
    receiver.statuses = [503] * MOST_ATTEMPTS
    await notify(services, microdao)
    for _ in range(MOST_ATTEMPTS + 2):
        await deliver_once(services, microdao)
    listed = (await admin.get("/admin/webhooks/deliveries", params={"state": "dead"})).json()["deliveries"]
    kept = ("state", "attempts", "status", "failure")
    assert [listed[0][field] for field in kept] == ["dead", MOST_ATTEMPTS, 503, "answered 503"]
    assert listed[0]["ended_at"] is not None
    assert await jobs_left(services, microdao) == 0
    again = await admin.post(f"/admin/webhooks/deliveries/{listed[0]['id']}/retry")
    assert again.json() == {"ok": True}
    await deliver_once(services, microdao)
    assert (await delivery(services, microdao))["state"] == "delivered"
    assert (await admin.post(f"/admin/webhooks/deliveries/{listed[0]['id']}/retry")).status_code == 409
    assert (await admin.post("/admin/webhooks/deliveries/whd_unheard/retry")).status_code == 404


async def test_gone_is_final(services: Services, microdao: str, receiver: WebhookReceiver):
    await services.webhooks.put(microdao, receiver.url)
    receiver.statuses = [410]
    await notify(services, microdao)
    await deliver_once(services, microdao)
    assert (await delivery(services, microdao))["state"] == "dead"


async def test_nobody_listens_and_nobody_answers(
    services: Services, microdao: str, receiver: WebhookReceiver, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(webhooks_module, "_TIMEOUT_S", 0.2)
    await services.webhooks.put(microdao, "http://127.0.0.1:9/hook")
    await notify(services, microdao)
    await deliver_once(services, microdao)
    row = await delivery(services, microdao)
    assert (row["state"], row["status"]) == ("waiting", None)
    assert row["failure"] == "127.0.0.1:9 cannot be reached; nothing was sent"
    receiver.delay_s = 0.5
    await services.webhooks.put(microdao, receiver.url)
    await deliver_once(services, microdao)
    assert "did not answer in time" in (await delivery(services, microdao))["failure"]
    receiver.delay_s = 0.0
    await deliver_once(services, microdao)
    assert (await delivery(services, microdao))["state"] == "delivered"


@pytest.mark.parametrize("url", ["http://127.0.0.1:8080/hook", "http://169.254.169.254/latest", "http://[::1]/"])
async def test_the_platforms_own_network_is_out_of_reach(services: Services, microdao: str, url: str):
    await services.webhooks.put(microdao, url)
    await notify(services, microdao)
    await deliver_once(services, microdao)
    row = await delivery(services, microdao)
    assert (row["state"], row["status"], "not on the public internet" in row["failure"]) == ("waiting", None, True)


async def test_a_secret_that_no_key_opens_is_a_failure_with_its_reason(
    services: Services, microdao: str, receiver: WebhookReceiver
):
    await services.webhooks.put(microdao, receiver.url)
    await notify(services, microdao)
    async with services.database.tenant(microdao) as connection:
        await connection.execute("UPDATE webhook SET secret = 'sealed elsewhere'")
    await deliver_once(services, microdao)
    assert "set it again" in (await delivery(services, microdao))["failure"]
    await services.webhooks.put(microdao, receiver.url, secret=SECRET)
    await deliver_once(services, microdao)
    assert receiver.received[0].is_signed_with(SECRET)


async def test_its_secret_is_resealed_with_those_of_tools(
    services: Services,
    microdao: str,
    other_microdao: str,
    receiver: WebhookReceiver,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(resealing_module, "_BATCH", 1)  # so that one follows another
    for tenant in (microdao, other_microdao):
        await services.webhooks.put(tenant, receiver.url, secret=SECRET)
        await notify(services, tenant)
    before = await services.webhooks.get(microdao)
    old_key, settings = services.settings.secret_key, replace(services.settings, secret_key="new-key")
    rotating = replace(settings, previous_secret_keys=old_key)
    async with running_api(rotating) as api, holder_of(api, microdao, "operator") as operator:
        answer = (await operator.post("/admin/secrets/reseal", json={})).json()
        assert answer["resealed"] >= 2
    newest = Services(settings)  # the old key is gone
    try:
        for tenant in (microdao, other_microdao):
            await deliver_once(newest, tenant)
        assert [got.is_signed_with(SECRET) for got in receiver.received] == [True, True]
        assert await newest.webhooks.get(microdao) == before
    finally:
        await newest.close()


async def test_what_waits_for_a_webhook_that_is_removed_is_given_up(
    services: Services, microdao: str, receiver: WebhookReceiver
):
    await services.webhooks.put(microdao, receiver.url)
    await notify(services, microdao)
    await services.webhooks.delete(microdao)
    await notify(services, microdao, "Nobody is told")
    await deliver_once(services, microdao)
    row = await delivery(services, microdao)
    assert (row["state"], row["failure"]) == ("dead", "the webhook was removed")
    assert receiver.received == []
    assert await jobs_left(services, microdao) == 0


async def test_duplicates_at_once_make_one_attempt(services: Services, microdao: str, receiver: WebhookReceiver):
    await services.webhooks.put(microdao, receiver.url)
    receiver.delay_s = 0.3
    await notify(services, microdao)
    (job,) = await rows(services.database, microdao, "SELECT body FROM outbox WHERE queue = 'tool'")
    await asyncio.gather(*(run_message(services, job["body"]) for _ in range(6)))
    await run_message(services, job["body"])
    assert len(receiver.received) == 1
    assert (await delivery(services, microdao))["attempts"] == 1


async def test_an_attempt_that_died_midway_is_made_again_and_those_count_too(
    services: Services, microdao: str, receiver: WebhookReceiver
):
    await services.webhooks.put(microdao, receiver.url)
    await notify(services, microdao)
    await _die_midway(services, microdao, attempts=1, lease_s=30)
    await deliver_once(services, microdao)
    assert receiver.received == [], "whoever died is thought alive while the lease lasts"
    await _die_midway(services, microdao, attempts=MOST_ATTEMPTS - 1, lease_s=-1)
    receiver.statuses = [500]
    await deliver_once(services, microdao)
    row = await delivery(services, microdao)
    assert (row["state"], row["attempts"], len(receiver.received)) == ("dead", MOST_ATTEMPTS, 1)


async def test_what_kills_every_sender_is_given_up(services: Services, microdao: str, receiver: WebhookReceiver):
    await services.webhooks.put(microdao, receiver.url)
    await notify(services, microdao)
    await _die_midway(services, microdao, attempts=MOST_ATTEMPTS, lease_s=-1)
    await deliver_once(services, microdao)
    row = await delivery(services, microdao)
    assert (row["state"], "died midway" in row["failure"]) == ("dead", True)
    assert (receiver.received, await jobs_left(services, microdao)) == ([], 0)


async def _die_midway(services: Services, microdao: str, *, attempts: int, lease_s: float) -> None:
    async with services.database.tenant(microdao) as connection:
        await connection.execute(
            "UPDATE webhook_delivery SET attempts = %s, lease_until = now() + make_interval(secs => %s)",
            (attempts, lease_s),
        )


async def test_another_tenant_reaches_none_of_it(
    api: Api, services: Services, database: Database, microdao: str, receiver: WebhookReceiver
):
    other = f"microdao:{new_id('test')}"
    async with database.system() as connection:
        await connection.execute("INSERT INTO microdao (microdao_id, name) VALUES (%s, 'Other')", (other,))
    await services.webhooks.put(microdao, receiver.url)
    await notify(services, microdao)
    waiting = await delivery(services, microdao)
    async with holder_of(api, other, "owner") as stranger:
        assert (await stranger.get("/admin/webhooks")).status_code == 404
        assert (await stranger.get(f"/admin/webhooks?microdao_id={microdao}")).status_code == 404
        assert (await stranger.delete("/admin/webhooks")).status_code == 404
        assert (await stranger.get("/admin/webhooks/deliveries")).json()["deliveries"] == []
        assert (await stranger.post(f"/admin/webhooks/deliveries/{waiting['id']}/retry")).status_code == 404
    with pytest.raises(NotFound):
        await services.webhooks.deliver(other, waiting["id"], None)
    assert receiver.received == []
