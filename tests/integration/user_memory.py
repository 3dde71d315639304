"""Calls about what an agent keeps for its end users, for the tests that try each of them."""

import io
from typing import Any
from urllib.parse import quote

import aiohttp
import orjson
from yarl import URL

from shared.db.database import Database, fetch_all
from tests.integration.api_server import Api
from tests.memories import AGENT

MEMORY = "/internal/agent-memory"
ITEMS = f"{MEMORY}/agents/{AGENT}/items"
USERS = f"{MEMORY}/agents/{AGENT}/users"
DOCUMENTS = f"{MEMORY}/documents"
BOB, OLENA, IHOR = "agent:bob", "olena", "ihor"
SECRET = "xylophone"


async def call(api: Api, method: str, path: str, body: Any = None, **query: Any) -> tuple[int, dict[str, Any]]:
    """``path`` is sent as it is: who calls has quoted it."""
    headers = {"Authorization": f"Bearer {api.key}", "content-type": "application/json"}
    data = None if body is None else io.BytesIO(body if isinstance(body, bytes) else orjson.dumps(body))
    text = "&".join(f"{name}={quote(str(value), safe='')}" for name, value in query.items() if value is not None)
    url = URL(f"{api.url}{path}{'?' + text if text else ''}", encoded=True)
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.request(method, url, data=data) as answer,
    ):
        return answer.status, await answer.json()


async def done(api: Api, method: str, path: str, body: Any = None, **query: Any) -> dict[str, Any]:
    """The answer of a call that must succeed."""
    status, answer = await call(api, method, path, body, **query)
    assert status in (200, 201), answer
    return answer


def about(agent: str, user: str | None, **fields: Any) -> dict[str, Any]:
    return {"agent_id": agent, **({"user_id": user} if user is not None else {}), **fields}


async def store(api: Api, text: str, user: str | None = None, agent: str = AGENT, **fields: Any) -> str:
    answer = await done(api, "POST", f"{MEMORY}/store", about(agent, user, content={"text": text}, **fields))
    return str(answer["id"])


async def document(api: Api, text: str, user: str | None = None, agent: str = AGENT) -> str:
    return str((await done(api, "POST", DOCUMENTS, about(agent, user, text=text)))["id"])


async def found(api: Api, query: str, user: str | None = None, agent: str = AGENT, **fields: Any) -> list[str]:
    """The ids of what a query finds."""
    answer = await done(api, "POST", f"{MEMORY}/query", about(agent, user, query=query, k=50, **fields))
    return sorted(one["id"] for one in answer["memories"])


async def listed(api: Api, user: str | None = None, agent: str = AGENT, **query: Any) -> list[dict[str, Any]]:
    page = await done(api, "GET", f"{MEMORY}/agents/{agent}/items", user_id=user, **query)
    return list(page["items"])


async def users(api: Api, agent: str = AGENT, **query: Any) -> dict[str, int]:
    page = await done(api, "GET", f"{MEMORY}/agents/{agent}/users", **query)
    return {one["user_id"]: one["items"] for one in page["users"]}


async def rows_of(database: Database, microdao: str, *tables: str) -> list[int]:
    """How many rows the tenant has in each."""
    async with database.tenant(microdao) as connection:
        return [len(await fetch_all(connection, f"SELECT 1 FROM {table}")) for table in tables]
