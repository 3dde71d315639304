"""What memory refuses to keep, and what a query need not read."""

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import pytest

from shared.cloud.outbox import Outbox
from shared.db.database import Database, fetch_one
from shared.errors import InvalidRequest, TooLarge
from shared.memory.memory import Memory, open_memory
from shared.memory.model import MemoryQuery, NewMemory
from tests import memories

TEXT = "Murka sleeps on the sofa."


@pytest.fixture
async def memory(settings, database: Database) -> AsyncIterator[Memory]:
    outbox = Outbox(database, {})
    yield open_memory(settings, database, outbox)
    await outbox.close()


def new(microdao: str, **fields: Any) -> NewMemory:
    return memories.new(microdao, TEXT, **fields)


def ask(microdao: str, **fields: Any) -> MemoryQuery:
    return memories.ask(microdao, "cat", **fields)


BEYOND = ["9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00+14:00"]


@pytest.mark.parametrize("moment", BEYOND)
@pytest.mark.parametrize("name", ["occurred_at", "expires_at"])
async def test_moments_that_no_date_can_hold_are_not_kept(memory, microdao, name, moment):
    with pytest.raises(InvalidRequest) as refused:
        await memory.store(new(microdao, **{name: datetime.fromisoformat(moment)}))
    assert refused.value.param == name


@pytest.mark.parametrize("moment", BEYOND)
@pytest.mark.parametrize("name", ["since", "until"])
async def test_moments_that_no_date_can_hold_are_not_asked_for(memory, microdao, name, moment):
    with pytest.raises(InvalidRequest) as refused:
        await memory.query(ask(microdao, **{name: datetime.fromisoformat(moment)}))
    assert refused.value.param == name


async def test_an_importance_too_small_for_the_column_is_none(memory, database: Database, microdao):
    stored = await memory.store(new(microdao, importance=2.7e-240))
    async with database.tenant(microdao) as connection:
        row = await fetch_one(connection, "SELECT importance FROM memory_item WHERE id = %s", (stored.id,))
    assert row == {"importance": 0.0}


async def indexed(memory: Memory, database: Database, microdao: str, item: NewMemory) -> None:
    await memory.store(item)
    await memories.index_all(memory, database, microdao)


@pytest.mark.parametrize("moment", ["9999-12-31T23:59:59+00:00", "0001-01-01T00:00:00+00:00"])
async def test_the_last_and_first_moments_are_found_again(memory, database, microdao, moment):
    when = datetime.fromisoformat(moment)
    await indexed(memory, database, microdao, new(microdao, occurred_at=when))
    (found,) = await memory.query(ask(microdao))
    assert found.occurred_at == when


async def test_a_context_has_a_size(memory, microdao):
    await memory.store(new(microdao, content={"text": TEXT, "context": {"page": "x" * 99_000}}))
    with pytest.raises(TooLarge) as refused:
        await memory.store(new(microdao, content={"text": TEXT, "context": {"page": "x" * 100_000}}))
    assert refused.value.param == "content"


async def test_a_query_may_leave_the_content_out(memory, database, microdao):
    content = {"text": TEXT, "context": {"page": 3}}
    await indexed(memory, database, microdao, new(microdao, content=content))
    (whole,) = await memory.query(ask(microdao))
    (bare,) = await memory.query(ask(microdao, with_content=False))
    assert (whole.content, whole.text) == (content, TEXT)
    assert (bare.content, bare.text) == ({}, TEXT)
