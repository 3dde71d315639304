"""Many calls at once of a server that forgets its sessions while they are under way: none is done twice."""

import asyncio
import random
from collections import Counter

import pytest

from shared.tools.model import ToolFailed, ToolUncertain
from shared.tools.web.mcp.client import McpClient
from tests.fakes.mcp_server import McpServer
from tests.mcp_clients import call, client_of, until

CALLS = 120
FORGETS_AFTER = (20, 50, 80)


async def attempt(client: McpClient, url: str, number: int, pause_s: float) -> ToolFailed | None:
    """Why the call failed, if it did."""
    await asyncio.sleep(pause_s)
    try:
        assert await call(client, url, within_s=20, a=number, b=0) == {"sum": number}
    except ToolFailed as failed:
        return failed
    return None


@pytest.mark.parametrize("seed", [1, 2])
async def test_calls_are_done_once_or_not_at_all(seed):
    dice = random.Random(seed)
    async with McpServer(legacy=True) as server, client_of(server.port) as client:
        attempts = [attempt(client, server.url, number, dice.random()) for number in range(CALLS)]
        calls = asyncio.gather(*attempts)
        for count in FORGETS_AFTER:
            await until(lambda count=count: len(server.calls) >= count)
            server.forget(*dice.choice([(404, b""), (400, b"Bad Request: No valid session ID provided")]))
        failures = await calls
        done = Counter(args["a"] for _, args in server.calls)
        assert [done[number] for number in range(CALLS)] == [int(failed is None) for failed in failures]
        assert not any(isinstance(failed, ToolUncertain) for failed in failures)
        assert done.total() > CALLS * 0.9
        assert len(server.sessions) >= len(FORGETS_AFTER) + 1
