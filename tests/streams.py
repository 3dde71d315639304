"""Many streams at once through a real API process: none fails, its memory stays flat, every one is in the ledger."""

import asyncio
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import orjson
import psutil

from shared.db.database import Database, Row, fetch_all
from shared.policy.keys import Keys
from shared.settings import ROOT
from tests.e2e.conftest import free_port

WORDS = 64
QUESTION = " ".join(f"word{number}" for number in range(WORDS))
SECRET_KEY = "soak-secret-key"
_LEAVE_EVERY = 10
_SETTLED_WITHIN_S = 20.0


@dataclass
class Tally:
    """What the clients saw, and the server's resident memory over time, in bytes."""

    whole: int = 0
    left: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    faults: list[str] = field(default_factory=list)
    resident: list[int] = field(default_factory=list)

    def growth(self) -> float:
        """Memory at the end as a multiple of what it was once the server had warmed up."""
        third = len(self.resident) // 3
        return statistics.median(self.resident[-third:]) / statistics.median(self.resident[third : 2 * third])


async def stream_for(
    database: Database,
    database_url: str,
    microdao: str,
    *,
    streams: int,
    seconds: float = math.inf,
    calls: int = sys.maxsize,
) -> Tally:
    """Keep so many streams open for so long or so many calls, leave a tenth of them early, and check the ledger."""
    key = (await Keys(database, SECRET_KEY).create(microdao, ["member"], "soak")).secret
    tally = Tally()
    async with _provider() as provider_url, _api(database_url, provider_url) as (url, process):
        headers = {"authorization": f"Bearer {key}"}
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(url, headers=headers, connector=connector) as session:
            watcher = asyncio.create_task(_watch(process, tally))
            ends_at, numbers = time.monotonic() + seconds, iter(range(1, calls + 1))
            await asyncio.gather(*(_client(session, numbers, ends_at, tally) for _ in range(streams)))
            watcher.cancel()
        await _check_ledger(database, microdao, tally)
    return tally


async def _client(session: aiohttp.ClientSession, numbers: Iterator[int], ends_at: float, tally: Tally) -> None:
    body = {
        "model": "gpt-4.1-mini",
        "messages": [{"role": "user", "content": QUESTION}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    for number in numbers:
        if time.monotonic() >= ends_at:
            return
        try:
            await _one_stream(session, body, tally, leaves=number % _LEAVE_EVERY == 0)
        except Exception as error:
            tally.faults.append(repr(error))


async def _one_stream(session: aiohttp.ClientSession, body: dict[str, Any], tally: Tally, *, leaves: bool) -> None:
    async with session.post("/v1/chat/completions", json=body) as response:
        if response.status != 200:
            tally.faults.append((await response.text())[:200])
            return
        if leaves:
            await response.content.readuntil(b"word1 ")
            response.close()
            tally.left += 1
            return
        lines = (await response.read()).split(b"\n\n")
    usage = orjson.loads(lines[-3].removeprefix(b"data: "))["usage"]
    if lines[-2:] != [b"data: [DONE]", b""] or len(lines) < WORDS:
        tally.faults.append("an answer that is not whole")
    tally.whole += 1
    tally.prompt_tokens += usage["prompt_tokens"]
    tally.completion_tokens += usage["completion_tokens"]


async def _check_ledger(database: Database, microdao: str, tally: Tally) -> None:
    """One row a stream; those that were heard to the end with the very usage that the client was told."""
    deadline = time.monotonic() + _SETTLED_WITHIN_S
    while sum(row["calls"] for row in await _ledger(database, microdao)) < tally.whole + tally.left:
        assert time.monotonic() < deadline, "streams are missing in the ledger"
        await asyncio.sleep(0.1)
    rows = {row["outcome"]: row for row in await _ledger(database, microdao)}
    assert set(rows) <= {"succeeded", "cancelled"}
    assert sum(row["calls"] for row in rows.values()) == tally.whole + tally.left
    cancelled = rows["cancelled"]["calls"] if "cancelled" in rows else 0
    assert cancelled <= tally.left
    finished_anyway = rows["succeeded"]["calls"] - tally.whole
    assert finished_anyway == tally.left - cancelled
    assert rows["succeeded"]["prompt_tokens"] == tally.prompt_tokens + finished_anyway * WORDS
    per_answer = tally.completion_tokens // tally.whole
    assert rows["succeeded"]["completion_tokens"] == tally.completion_tokens + finished_anyway * per_answer
    async with database.tenant(microdao) as connection:
        assert await fetch_all(connection, "SELECT id FROM llm_reservation") == []
        [events] = await fetch_all(connection, "SELECT count(*) AS count FROM usage_event")
    assert events["count"] == tally.whole + tally.left


async def _ledger(database: Database, microdao: str) -> list[Row]:
    async with database.tenant(microdao) as connection:
        return await fetch_all(
            connection,
            "SELECT outcome, count(*)::int AS calls, sum(prompt_tokens)::int AS prompt_tokens,"
            " sum(completion_tokens)::int AS completion_tokens FROM llm_ledger GROUP BY outcome",
        )


async def _watch(process: psutil.Process, tally: Tally) -> None:
    while True:
        tally.resident.append(process.memory_info().rss)
        await asyncio.sleep(0.2)


@asynccontextmanager
async def _provider() -> AsyncIterator[str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.fakes.openai_server"),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # it complains of clients that leave
    )
    assert process.stdout is not None
    try:
        yield (await process.stdout.readline()).decode().strip()
    finally:
        process.kill()
        await process.wait()


@asynccontextmanager
async def _api(database_url: str, provider_url: str) -> AsyncIterator[tuple[str, psutil.Process]]:
    port = free_port()
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    own = {
        "DATABASE_URL": database_url,
        "DAARION_SECRET_KEY": SECRET_KEY,
        "OPENAI_API_KEY": "sk-fake",
        "OPENAI_BASE_URL": provider_url,
        "LOCAL_LLM_BASE_URL": "none",
    }
    server = (sys.executable, "-m", "uvicorn", "functions.chat.app:app", "--host", "127.0.0.1", "--port", str(port))
    quiet = ("--no-access-log", "--log-level", "warning", "--lifespan", "off")
    process = await asyncio.create_subprocess_exec(*server, *quiet, cwd=ROOT, env=kept | own)
    try:
        await _until_healthy(f"http://127.0.0.1:{port}/healthz", process)
        yield f"http://127.0.0.1:{port}", psutil.Process(process.pid)
    finally:
        process.terminate()
        await process.wait()


async def _until_healthy(url: str, process: asyncio.subprocess.Process) -> None:
    async with asyncio.timeout(60), aiohttp.ClientSession() as session:
        while True:
            assert process.returncode is None, "the API did not start"
            try:
                async with session.get(url) as response:
                    if response.status == 200:
                        return
            except aiohttp.ClientConnectionError:
                await asyncio.sleep(0.1)
