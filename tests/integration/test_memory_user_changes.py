"""One memory that an agent keeps for an end user: read and changed for that one only."""

from collections.abc import AsyncIterator

import pytest

from shared.db.database import Database
from shared.settings import Settings
from tests.integration.api_server import Api, running_api
from tests.integration.user_memory import IHOR, ITEMS, OLENA, call, done, found, store
from tests.memories import index_all

TEA, COFFEE = "Tea is served at five.", "Coffee stands in the kitchen."


@pytest.fixture
async def api(settings: Settings, microdao: str) -> AsyncIterator[Api]:
    async with running_api(settings) as api:
        yield await api.for_member(microdao)


async def test_a_users_memory_is_read_and_changed_for_that_user_only(api: Api, database: Database, microdao: str):
    item_id = await store(api, TEA, OLENA)
    path, body = f"{ITEMS}/{item_id}", {"content": {"text": COFFEE}}
    for user in (None, IHOR):
        assert (await call(api, "GET", path, user_id=user))[0] == 404
        assert (await call(api, "PATCH", path, body, user_id=user))[0] == 404
    assert (await done(api, "GET", path, user_id=OLENA))["scope"] == {"kind": "user", "name": OLENA}
    assert (await done(api, "PATCH", path, body, user_id=OLENA))["text"] == COFFEE
    await index_all(api.services.memory, database, microdao)
    assert await found(api, COFFEE, OLENA) == [item_id]
    assert await found(api, COFFEE, IHOR) == await found(api, COFFEE) == []
    assert await store(api, TEA, OLENA) != item_id
    own = await store(api, TEA)
    assert (await done(api, "PATCH", f"{ITEMS}/{own}", body, user_id=OLENA))["text"] == COFFEE, "the agent's own, too"
    for method in ("GET", "PATCH"):
        assert (await call(api, method, path, body if method == "PATCH" else None, user_id=""))[0] == 400
