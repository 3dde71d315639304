"""Reindexing as operators meet it: over HTTP and on the command line."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import replace

import aiohttp
import pytest

from localstack.postgres import EmbeddedPostgres
from localstack.reindex_command import reindex
from shared.db.database import Database
from shared.errors import Conflict
from shared.settings import ROOT, Settings
from tests.embeddings import add_tenant, own_database
from tests.integration.api_server import Api, running_api
from tests.memories import AGENT, new, queued

TENANT = "microdao:operated"
PATH = "/admin/memory/reindex"


@pytest.fixture
async def database(postgres: EmbeddedPostgres) -> AsyncIterator[Database]:
    async with own_database(postgres) as database:
        await add_tenant(database, TENANT, AGENT)
        yield database


@pytest.fixture
def here(settings: Settings, database: Database) -> Settings:
    return replace(settings, database_url=database._pool.conninfo)


@pytest.fixture
async def api(here: Settings) -> AsyncIterator[Api]:
    async with running_api(here) as api:
        await api.services.memory.store(new(TENANT, "tea is served at five"))
        await work(api)
        key = await api.services.keys.create(TENANT, ["admin", "operator"], "test")
        yield replace(api, key=key.secret)


async def work(api: Api) -> None:
    """What the indexer would do."""
    await api.services.memory.index(await queued(api.services.database, TENANT))


async def call(api: Api, method: str, body: object = None, key: str = "") -> tuple[int, dict]:
    headers = {"Authorization": f"Bearer {key or api.key}"}
    async with (
        aiohttp.ClientSession(api.url) as session,
        session.request(method, PATH, headers=headers, json=body) as answer,
    ):
        return answer.status, await answer.json()


async def test_start_watch_and_cancel(api: Api):
    assert (await call(api, "GET"))[0] == 404
    assert (await call(api, "DELETE"))[0] == 404
    status, started = await call(api, "POST", {})
    assert (status, started["state"], started["total"], started["done"]) == (202, "running", 1, 0)
    status, error = await call(api, "POST", {"model": started["model"]})
    assert (status, error["error"]["code"]) == (409, "conflict")
    assert await call(api, "GET") == (200, (await call(api, "GET"))[1] | {"id": started["id"], "progress": 0.0})
    status, cancelled = await call(api, "DELETE")
    assert (status, cancelled["state"]) == (200, "cancelled")

    assert (await call(api, "POST", {"model": None}))[0] == 202
    await work(api)
    status, done = await call(api, "GET")
    assert (status, done["state"], done["progress"], done["done"], done["eta_s"]) == (200, "done", 1.0, 1, None)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"model": "no-such-model"}, 404),
        ({"model": "gpt-4.1"}, 404),
        ({"model": "text-embedding-3-small"}, 404),  # its provider is not set up
        ({"model": ""}, 400),
        ({"model": "a\0b"}, 400),
        ({"model": "x" * 201}, 400),
        ({"model": 5}, 400),
        ({"modell": "x"}, 400),
        ([], 400),
    ],
)
async def test_what_is_refused(api: Api, body: object, expected: int):
    assert (await call(api, "POST", body))[0] == expected
    assert (await call(api, "GET"))[0] == 404, "nothing was begun"


async def test_it_is_for_operators(api: Api):
    for roles in (["member"], ["admin"], ["owner"]):
        key = (await api.services.keys.create(TENANT, roles, "test")).secret
        for method in ("GET", "POST", "DELETE"):
            assert (await call(api, method, {}, key))[0] == 403


async def test_the_command_line_follows_it(api: Api, here: Settings):
    told: list[str] = []
    following = asyncio.to_thread(reindex, here, "", wait=True, as_json=False, tell=told.append)
    task = asyncio.create_task(following)
    while not told:  # noqa: ASYNC110 - another thread fills it
        await asyncio.sleep(0.02)
    with pytest.raises(Conflict):
        await asyncio.to_thread(reindex, here, "", wait=False, as_json=False, tell=told.append)
    await work(api)
    await asyncio.wait_for(task, 30)
    assert told[0].startswith("running    0%  0 of 1 items")
    assert told[-1].startswith("done  100%  1 of 1 items")


async def test_the_command(api: Api, here: Settings):
    async def run(*arguments: str) -> tuple[int | None, str, str]:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "localstack",
            "reindex",
            *arguments,
            cwd=ROOT,
            env={**os.environ, "DATABASE_URL": here.database_url, "DAARION_HOME": str(here.home.absolute())},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
        return process.returncode, out.decode(), err.decode()

    code, _, error = await run("--model", "no-such-model")
    assert (code, error) == (1, "daarion: no embedding model 'no-such-model' can be used here\n")
    code, out, _ = await run("--json")
    assert (code, json.loads(out)["state"]) == (0, "running")
    code, _, error = await run()
    assert code == 1
    assert "already" in error
