"""Keys over HTTP: nobody makes or revokes one above their own."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest

from shared.db.database import Database
from shared.errors import InvalidApiKey, InvalidRequest, NotFound
from shared.policy import store
from shared.policy.keys import KNOWN_FOR_S, Keys
from shared.settings import Settings
from tests.integration.api_server import Api, running_api


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[Api]:
    async with running_api(settings) as api:
        yield api


async def status(api: Api, method: str, path: str, key: str) -> int:
    headers = {"Authorization": f"Bearer {key}"}
    async with aiohttp.ClientSession(api.url) as session, session.request(method, path, headers=headers) as answer:
        return answer.status


@pytest.mark.parametrize(
    ("revoker", "revoked", "expected"),
    [
        ("admin", "owner", 403),
        ("admin", "operator", 403),
        ("owner", "operator", 403),
        ("admin", "admin", 200),
        ("owner", "owner", 200),
        ("operator", "operator", 200),
    ],
)
async def test_a_key_is_revoked_by_who_could_have_made_it(
    api: Api, microdao: str, revoker: str, revoked: str, expected: int
):
    mine = await api.services.keys.create(microdao, [revoker], "mine")
    theirs = await api.services.keys.create(microdao, [revoked], "theirs")
    assert await status(api, "DELETE", f"/admin/keys/{theirs.id}", mine.secret) == expected
    after = 401 if expected == 200 else 200
    assert await status(api, "GET", "/v1/models", theirs.secret) == after


async def test_a_key_that_another_process_revoked_passes_for_two_seconds_at_most(database: Database, microdao: str):
    now = 0.0
    here, there = Keys(database, "secret", lambda: now), Keys(database, "secret")
    key = await there.create(microdao, ["member"], "test")
    principal = await here.authenticate(key.secret)
    await there.revoke(microdao, key.id)
    now = KNOWN_FOR_S - 0.01
    assert await here.authenticate(key.secret) == principal
    now = KNOWN_FOR_S
    for _ in range(2):
        with pytest.raises(InvalidApiKey):
            await here.authenticate(key.secret)


async def test_a_key_looked_up_while_it_is_revoked_is_not_remembered(
    database: Database, microdao: str, monkeypatch: pytest.MonkeyPatch
):
    keys = Keys(database, "secret")
    key = await keys.create(microdao, ["member"], "test")
    find = store.find_key

    async def find_slowly(*arguments):
        row = await find(*arguments)
        await keys.revoke(microdao, key.id)
        return row

    monkeypatch.setattr(store, "find_key", find_slowly)
    await keys.authenticate(key.secret)  # it was good when it was looked up
    monkeypatch.undo()
    with pytest.raises(InvalidApiKey):
        await keys.authenticate(key.secret)


@pytest.mark.parametrize("key_id", ["a%0Ab", "a%E2%80%AEb", "it's", "key_0"])
async def test_a_key_that_does_not_exist_is_not_found(api: Api, microdao: str, key_id: str):
    admin = await api.services.keys.create(microdao, ["admin"], "mine")
    assert await status(api, "DELETE", f"/admin/keys/{key_id}", admin.secret) == 404


async def test_metrics_are_the_operators(api: Api, microdao: str):
    for roles, expected in ((["admin"], 403), (["owner"], 403), (["admin", "operator"], 200)):
        key = await api.services.keys.create(microdao, roles, "mine")
        assert await status(api, "GET", "/metrics", key.secret) == expected


async def ask(api: Api, method: str, path: str, key: str, body: dict[str, Any] | None = None) -> tuple[int, Any]:
    headers = {"Authorization": f"Bearer {key}"}
    async with (
        aiohttp.ClientSession(api.url) as session,
        session.request(method, path, headers=headers, json=body) as answer,
    ):
        return answer.status, await answer.json()


async def test_a_key_ends_when_it_should(database: Database, microdao: str):
    now = 0.0
    keys = Keys(database, "secret", lambda: now)
    ends = datetime.now(UTC) + timedelta(seconds=1)
    key = await keys.create(microdao, ["member"], "short", expires_at=ends)
    assert (await keys.authenticate(key.secret)).key_id == key.id
    await asyncio.sleep((ends - datetime.now(UTC)).total_seconds() + 0.1)
    now = 1.0  # less than a key is known for without being looked up again
    with pytest.raises(InvalidApiKey):
        await keys.authenticate(key.secret)
    with pytest.raises(NotFound):
        await keys.find(microdao, key.id)
    with pytest.raises(InvalidRequest):
        await keys.create(microdao, ["member"], "late", expires_at=ends)


async def test_a_change_of_roles_holds_at_once(api: Api, microdao: str):
    admin = (await api.services.keys.create(microdao, ["admin"], "admin")).secret
    key = await api.services.keys.create(microdao, ["member"], "theirs")
    assert await status(api, "GET", "/internal/tools", key.secret) == 200
    changed = await ask(api, "PATCH", f"/admin/keys/{key.id}", admin, {"roles": ["guest"], "name": "less"})
    assert (changed[0], changed[1]["roles"], changed[1]["name"]) == (200, ["guest"], "less")
    assert await status(api, "GET", "/internal/tools", key.secret) == 403


async def test_an_end_is_set_and_taken_back(api: Api, microdao: str):
    admin = (await api.services.keys.create(microdao, ["admin"], "admin")).secret
    key = await api.services.keys.create(microdao, ["member"], "theirs")
    path = f"/admin/keys/{key.id}"
    _, changed = await ask(api, "PATCH", path, admin, {"expires_at": "2999-01-01T00:00:00Z"})
    assert changed["expires_at"].startswith("2999-01-01")
    _, changed = await ask(api, "PATCH", path, admin, {"name": "same end"})
    assert changed["expires_at"].startswith("2999-01-01")
    _, changed = await ask(api, "PATCH", path, admin, {"expires_at": None})
    assert changed["expires_at"] is None
    assert (await ask(api, "PATCH", path, admin, {"expires_at": "2001-01-01T00:00:00Z"}))[0] == 400


@pytest.mark.parametrize(
    ("changer", "changed", "roles", "expected"),
    [
        ("admin", "owner", ["guest"], 403),
        ("admin", "member", ["owner"], 403),
        ("owner", "member", ["operator"], 403),
        ("owner", "operator", ["guest"], 403),
        ("owner", "member", ["owner"], 200),
        ("admin", "guest", ["member", "service"], 200),
    ],
)
async def test_nobody_changes_or_rotates_a_key_above_their_own(
    api: Api, microdao: str, changer: str, changed: str, roles: list[str], expected: int
):
    mine = await api.services.keys.create(microdao, [changer], "mine")
    theirs = await api.services.keys.create(microdao, [changed], "theirs")
    code, _ = await ask(api, "PATCH", f"/admin/keys/{theirs.id}", mine.secret, {"roles": roles})
    assert code == expected
    kept = frozenset(roles if expected == 200 else [changed])
    assert (await api.services.keys.find(microdao, theirs.id)).roles == kept
    if changed in ("owner", "operator"):
        assert await status(api, "POST", f"/admin/keys/{theirs.id}/rotate", mine.secret) == 403
        assert await status(api, "GET", "/v1/models", theirs.secret) == 200


async def test_a_rotated_key_has_another_secret_and_nothing_else(api: Api, microdao: str):
    admin = (await api.services.keys.create(microdao, ["admin"], "admin")).secret
    key = await api.services.keys.create(microdao, ["member"], "theirs")
    assert await status(api, "GET", "/v1/models", key.secret) == 200
    code, rotated = await ask(api, "POST", f"/admin/keys/{key.id}/rotate", admin)
    assert (code, rotated["id"]) == (200, key.id)
    assert await status(api, "GET", "/v1/models", key.secret) == 401
    assert (await api.services.keys.authenticate(rotated["key"])).key_id == key.id
    await api.services.keys.revoke(microdao, key.id)
    for method, path in (("POST", f"/admin/keys/{key.id}/rotate"), ("PATCH", f"/admin/keys/{key.id}")):
        assert (await ask(api, method, path, admin, {}))[0] == 404, "a revoked key stays so"


async def test_a_list_tells_when_a_key_was_used(api: Api, microdao: str):
    admin = await api.services.keys.create(microdao, ["admin"], "admin")
    idle = await api.services.keys.create(microdao, ["member"], "idle")
    await ask(api, "GET", "/admin/keys", admin.secret)
    _, page = await ask(api, "GET", "/admin/keys", admin.secret)
    used = {one["id"]: one["last_used_at"] for one in page["keys"]}
    assert used[admin.id] is not None
    assert used[idle.id] is None
