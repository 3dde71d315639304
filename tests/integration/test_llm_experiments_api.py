"""Experiments over the API and in the database: definitions, the choice for a call, results by variant."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from functions.chat.app import create_app
from shared.bootstrap import Services
from shared.db.database import Database
from shared.ids import new_id
from shared.llm.caller import Caller
from shared.llm.experiments.experiments import REFRESH_S, Experiments
from shared.settings import Settings
from shared.usage.events import UsageEvent, record
from shared.wire.chat import ChatRequest

PATH = "/admin/experiments"
TONE = {
    "name": "tone",
    "model": "offline",
    "variants": [
        {"name": "control", "weight": 1},
        {"name": "brief", "weight": 1, "instructions": "Be brief.", "temperature": 0},
    ],
}


@pytest.fixture
async def services(settings: Settings) -> AsyncIterator[Services]:
    opened = Services(settings)
    yield opened
    await opened.close()


async def client_of(services: Services, microdao: str, role: str) -> httpx.AsyncClient:
    key = await services.keys.create(microdao, [role], "test")
    transport = httpx.ASGITransport(create_app(services))
    return httpx.AsyncClient(
        transport=transport, base_url="http://test", headers={"authorization": f"Bearer {key.secret}"}
    )


@pytest.fixture
async def admin(services: Services, microdao: str) -> AsyncIterator[httpx.AsyncClient]:
    async with await client_of(services, microdao, "admin") as client:
        yield client


def request(**more: Any) -> ChatRequest:
    return ChatRequest.model_validate({"model": "offline", "messages": [{"role": "user", "content": "hi"}], **more})


async def test_life_of_an_experiment(admin):
    created = await admin.post(PATH, json=TONE)
    assert created.status_code == 201, created.text
    assert (await admin.get(f"{PATH}/tone")).json() == created.json()
    assert [one["name"] for one in (await admin.get(PATH)).json()["experiments"]] == ["tone"]
    changed = {key: value for key, value in TONE.items() if key != "name"} | {"active": False}
    answer = await admin.put(f"{PATH}/tone", json=changed)
    assert (answer.status_code, answer.json()["active"]) == (200, False)
    assert (await admin.delete(f"{PATH}/tone")).json() == {"ok": True}
    for method, path in (("GET", "tone"), ("DELETE", "tone"), ("GET", "tone/results")):
        assert (await admin.request(method, f"{PATH}/{path}")).status_code == 404
    assert (await admin.put(f"{PATH}/tone", json=changed)).status_code == 404


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"model": None}, None),
        ({"blueprint": "sofia"}, None),
        ({"variants": []}, "variants"),
        ({"variants": [{"name": "a"}, {"name": "a"}]}, None),
        ({"variants": [{"name": "a", "weight": 0}]}, None),
        ({"variants": [{"name": "a/b"}]}, "variants.0.name"),
        ({"variants": [{"name": "a", "temperature": 3}]}, "variants.0.temperature"),
        ({"variants": [{"name": "a", "model": "no-such"}]}, "variants.0.model"),
        ({"colour": "red"}, "colour"),
        ({"name": "Tone!"}, "name"),
    ],
)
async def test_unsound_definitions(admin, change, param):
    refused = await admin.post(PATH, json=TONE | change)
    assert refused.status_code == 400, refused.text
    assert refused.json()["error"]["param"] == param


async def test_one_active_experiment_for_a_target(admin):
    assert (await admin.post(PATH, json=TONE)).status_code == 201
    assert (await admin.post(PATH, json=TONE)).status_code == 409
    rival = TONE | {"name": "length"}
    assert (await admin.post(PATH, json=rival)).status_code == 409
    assert (await admin.post(PATH, json=rival | {"active": False})).status_code == 201
    assert (await admin.post(PATH, json=TONE | {"name": "b", "model": None, "blueprint": "sofia"})).status_code == 201


async def test_who_may(services, microdao, admin):
    await admin.post(PATH, json=TONE)
    async with await client_of(services, microdao, "member") as member:
        assert (await member.get(PATH)).status_code == 403
        assert (await member.post(PATH, json=TONE)).status_code == 403
    other = f"microdao:{new_id('test')}"
    await services.tenants.create(other, "Other")
    async with await client_of(services, other, "admin") as stranger:
        assert (await stranger.get(f"{PATH}/tone")).status_code == 404
        assert (await stranger.get(f"{PATH}/tone?microdao_id={microdao}")).status_code == 404


async def test_an_operator_names_a_tenant_that_is_not_there(services, microdao):
    async with await client_of(services, microdao, "operator") as operator:
        refused = await operator.post(PATH, json=TONE | {"microdao_id": "microdao:nowhere"})
        assert (refused.status_code, refused.json()["error"]["param"]) == (404, "microdao_id")
        assert (await operator.post(PATH, json=TONE | {"microdao_id": microdao})).status_code == 201


async def test_calls_are_shared_out(services, admin, microdao):
    await admin.post(PATH, json=TONE)
    experiments = services.experiments
    chosen = {}
    for number in range(200):
        caller = Caller(microdao_id=microdao, session_id=f"sess_{number}")
        varied, assignment = await experiments.apply(request(), caller)
        chosen[number] = assignment.label
        assert (await experiments.apply(request(), caller))[1] == assignment
        is_brief = assignment.label == "tone/brief"
        assert (varied.messages[0].content == "Be brief.") == is_brief
        assert (varied.temperature == 0) == is_brief
    assert set(chosen.values()) == {"tone/control", "tone/brief"}
    untouched = request(model="smart")
    assert await experiments.apply(untouched, Caller(microdao_id=microdao)) == (untouched, None)


async def test_a_blueprint_s_calls_go_before_its_model_s(services, admin, microdao):
    await admin.post(PATH, json=TONE)
    await admin.post(PATH, json=TONE | {"name": "zz", "model": None, "blueprint": "sofia"})
    apply = services.experiments.apply
    assert (await apply(request(), Caller(microdao_id=microdao, blueprint="sofia")))[1].experiment == "zz"
    assert (await apply(request(), Caller(microdao_id=microdao, blueprint="other")))[1].experiment == "tone"


async def test_other_processes_see_a_change_soon(services, database, admin, microdao):
    now = [0.0]
    elsewhere = Experiments(database, clock=lambda: now[0])
    caller = Caller(microdao_id=microdao)
    assert (await elsewhere.apply(request(), caller))[1] is None
    await admin.post(PATH, json=TONE)
    assert (await services.experiments.apply(request(), caller))[1] is not None
    assert (await elsewhere.apply(request(), caller))[1] is None
    now[0] = REFRESH_S
    assert (await elsewhere.apply(request(), caller))[1] is not None


def event(microdao: str, variant: str, **more: Any) -> UsageEvent:
    figures = {"prompt_tokens": 10, "completion_tokens": 5, "cost_microusd": 7, "latency_ms": 100} | more
    return UsageEvent(id=new_id("use"), microdao_id=microdao, kind="llm", subject="offline", variant=variant, **figures)


async def test_results_by_variant(admin, database: Database, microdao: str):
    await admin.post(PATH, json=TONE)
    async with database.tenant(microdao) as connection:
        for one in (
            event(microdao, "tone/control"),
            event(microdao, "tone/control", failed=True, latency_ms=300),
            event(microdao, "other/brief"),
            event(microdao, "tone2/control"),
        ):
            await record(connection, one)
    answer = (await admin.get(f"{PATH}/tone/results")).json()
    control, brief = answer["variants"]
    assert control == {
        "variant": "control",
        "requests": 2,
        "errors": 1,
        "prompt_tokens": 20,
        "completion_tokens": 10,
        "cost_microusd": 14,
        "latency_ms_p50": 200.0,
        "latency_ms_p95": 290.0,
    }
    assert (brief["requests"], brief["cost_microusd"], brief["latency_ms_p50"]) == (0, 0, None)
