"""A call of an MCP server's tool on loopback: in a kept session, negotiated for each call, and by the SDK's own client.

The ways are taken in turns, so that a busy machine is busy for all; the server runs in a process of its own.
Run it as ``python -m bench.mcp_calls [CALLS]``.
"""

import asyncio
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

from mcp import Client

from bench.report import report
from shared.tools.web.addresses import Place, Reach
from shared.tools.web.client import WebClient
from shared.tools.web.mcp.client import McpClient
from shared.tools.web.mcp.session import RemoteServer
from tests.fakes.mcp_server import McpServer

ERAS = {"2026-07-28": False, "2025-11-25": True}
_WARM_UP = 10

Call = Callable[[], Awaitable[Any]]


async def serve(is_legacy: bool) -> None:
    """A server that tells its port, and then how many requests it has got for each line it reads."""
    async with McpServer(legacy=is_legacy) as server:
        print(server.port, flush=True)
        while await asyncio.to_thread(sys.stdin.readline):
            print(len(server.asked), flush=True)


class Server:
    """The server's process."""

    def __init__(self, is_legacy: bool) -> None:
        command = [sys.executable, "-m", "bench.mcp_calls", "serve", *(["legacy"] if is_legacy else [])]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.port = self._read()
        self.url = f"http://127.0.0.1:{self.port}/mcp"

    def requests(self) -> int:
        """How many requests it has got."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._read()

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait()

    def _read(self) -> int:
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())


async def call(client: McpClient, server: Server) -> Any:
    """One call as the executor makes it."""
    deadline = asyncio.get_running_loop().time() + 5
    remote = RemoteServer("microdao:bench", server.url)
    return await client.call_tool(remote, "add", {"a": 1, "b": 2}, idempotency_key="key", deadline=deadline)


async def measure(era: str, calls: int) -> list[dict[str, Any]]:
    """A row for each way."""
    server = Server(ERAS[era])
    web = WebClient(Reach(private=frozenset({Place("127.0.0.1", server.port)})))
    kept = McpClient(web)

    async def anew() -> Any:
        client = McpClient(web)
        result = await call(client, server)
        await client.close()
        return result

    try:
        async with Client(server.url, cache=None) as sdk:
            ways: dict[str, Call] = {
                "negotiated for each call": anew,
                "kept session": lambda: call(kept, server),
                "the SDK's client, kept open": lambda: sdk.call_tool("add", {"a": 1, "b": 2}),
            }
            rows = await _in_turns(ways, server, calls)
    finally:
        await kept.close()
        server.stop()
    return [{"protocol": era, **row} for row in rows]


async def _in_turns(ways: dict[str, Call], server: Server, calls: int) -> list[dict[str, Any]]:
    taken: dict[str, list[tuple[float, float, int]]] = {name: [] for name in ways}
    for number in range(_WARM_UP + calls):
        for name, way in ways.items():
            before, began, cpu = server.requests(), time.perf_counter(), time.process_time()
            await way()
            took = (time.perf_counter() - began) * 1000, (time.process_time() - cpu) * 1000, server.requests() - before
            if number >= _WARM_UP:
                taken[name].append(took)
    rows = [{"way": name, **_figures(one)} for name, one in taken.items()]
    return [{**row, "ratio": round(row["p50_ms"] / rows[1]["p50_ms"], 2)} for row in rows]


def _figures(taken: list[tuple[float, float, int]]) -> dict[str, Any]:
    ms, cpu_ms, requests = zip(*taken, strict=True)
    return {
        "requests": round(statistics.mean(requests), 2),
        "p50_ms": round(statistics.median(ms), 2),
        "p95_ms": round(statistics.quantiles(ms, n=20)[18], 2),
        "cpu_ms": round(statistics.median(cpu_ms), 2),
    }


async def main(calls: int) -> None:
    """Both protocol eras."""
    rows = [row for era in ERAS for row in await measure(era, calls)]
    report("mcp_calls", rows, "requests: to the server, a call; cpu_ms: of the caller's process; ratio: of p50 to kept")


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        asyncio.run(serve("legacy" in sys.argv))
    else:
        asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 200))
