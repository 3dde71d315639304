"""Keys over HTTP: nobody makes or revokes one above their own."""

from collections.abc import AsyncIterator

import aiohttp
import pytest

from shared.db.database import Database
from shared.errors import InvalidApiKey
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
