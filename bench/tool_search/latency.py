"""How long a search takes once its request is embedded, and what an index costs."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from bench.tool_search.catalogue import ALL, Stack, run
from bench.tool_search.sets import BenchTool, Request, ToolSet
from shared.db.database import Row, fetch_all
from shared.tools.search.model import ToolQuery
from shared.tools.search.searcher import ToolSearch
from shared.tools.search.words import add_words

_TENTH = "agent:tenth"


def latency(stack: Stack, tools: ToolSet, microdao: str, count: int) -> list[dict[str, Any]]:
    """Rows for a catalogue of ``count`` tools, the set's over and over, whose vectors ``microdao`` has."""
    crowd = f"microdao:crowd-{count}"
    run(_fill(stack, tools, microdao, crowd, count))
    return [run(_measure(stack, crowd, agent, tools.requests, count)) for agent in (ALL, _TENTH)]


async def _measure(stack: Stack, microdao: str, agent: str, requests: Sequence[Request], count: int) -> dict[str, Any]:
    queries = [ToolQuery(microdao_id=microdao, agent_id=agent, text=one.text, k=10) for one in requests]
    search = stack.search()
    first, _ = await _timed(search, queries[0])
    for query in queries:
        await search.search(query)  # so that every clause's vector is at hand
    times = np.array([await _timed(search, query) for query in queries])
    p50, p95, p99 = np.percentile(times[:, 0], [50, 95, 99])
    async with stack.database.tenant(microdao) as connection:
        await connection.execute("UPDATE tool SET active = false WHERE name = (SELECT min(name) FROM tool)")
    changed, _ = await _timed(search, queries[0])
    found = await search.search(queries[0])
    return {
        "tools": count,
        "permitted": found.permitted,
        "p50 ms": round(p50, 1),
        "p95 ms": round(p95, 1),
        "p99 ms": round(p99, 1),
        "CPU p50 ms": round(np.median(times[:, 1]), 1),
        "first ms": round(first),
        "after a change ms": round(changed),
        "index MB": round(search.catalogues.size / 2**20, 1),
    }


async def _timed(search: ToolSearch, query: ToolQuery) -> tuple[float, float]:
    """Milliseconds by the clock and of this process's CPU: on a busy machine the clock counts others' work, too."""
    started, worked = time.perf_counter(), time.process_time()
    await search.search(query)
    return 1000 * (time.perf_counter() - started), 1000 * (time.process_time() - worked)


async def _fill(stack: Stack, tools: ToolSet, source: str, microdao: str, count: int) -> None:
    """The tools' copies have their texts' vectors: what is measured does not depend on what they are."""
    copies = [
        BenchTool(f"{tool.name}{number // len(tools.tools) or ''}", tool.description, tool.parameters)
        for number in range(count)
        for tool in [tools.tools[number % len(tools.tools)]]
    ]
    await stack.add_tools(microdao, copies)
    await stack.grant(microdao, {_TENTH: [tool.name for tool in copies[::10]]})
    while True:
        async with stack.database.tenant(microdao) as connection:
            if not await add_words(connection):
                break
    async with stack.database.system() as connection:
        vectors = await fetch_all(
            connection,
            "SELECT e.tool_id, x.embedding::text AS vector, x.space_id"
            " FROM tool_embedding x JOIN tool_entry e USING (entry) WHERE e.microdao_id = %s",
            (source,),
        )
        places = {_number(row): row["vector"] for row in vectors}
        rows = await fetch_all(connection, "SELECT entry, tool_id FROM tool_entry WHERE microdao_id = %s", (microdao,))
        space_id = vectors[0]["space_id"]
        async with connection.cursor() as cursor:
            await cursor.executemany(
                "INSERT INTO tool_embedding (space_id, microdao_id, entry, embedding) VALUES (%s, %s, %s, %s::halfvec)",
                [(space_id, microdao, row["entry"], places[_number(row) % len(tools.tools)]) for row in rows],
            )
        await connection.execute("INSERT INTO tool_change (microdao_id) VALUES (%s)", (microdao,))


def _number(row: Row) -> int:
    return int(row["tool_id"].rpartition(":")[2])
