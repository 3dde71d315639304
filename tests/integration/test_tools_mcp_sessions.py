"""Sessions with MCP servers that are kept: what a call costs, servers that forget, that are slow, that start anew."""

import asyncio
import json

import pytest
from mcp.types import Tool

from shared.tools.model import ToolFailed, ToolUncertain
from shared.tools.web.addresses import Place, Reach
from shared.tools.web.client import WebClient
from shared.tools.web.errors import NothingSent
from shared.tools.web.mcp.client import McpClient
from shared.tools.web.mcp.kept import Bounds
from shared.tools.web.mcp.session import RemoteServer
from tests.fakes.mcp_server import McpServer
from tests.fakes.scripted_server import ScriptedServer, hang_up, response
from tests.mcp_clients import call, client_of, until

HANDSHAKE = ["server/discover", "initialize", "notifications/initialized"]
ERAS = pytest.mark.parametrize("legacy", [False, True], ids=["2026", "2025"])


@ERAS
async def test_a_call_is_one_request_once_a_session_is_there(legacy):
    negotiation = HANDSHAKE if legacy else HANDSHAKE[:1]
    async with McpServer(legacy=legacy) as server, client_of(server.port) as client:
        assert await call(client, server.url) == {"sum": 3}
        assert server.asked == [*negotiation, "tools/call"]
        await call(client, server.url, "say", text="one")
        assert [
            one.name
            for one in await client.list_tools(RemoteServer("m:1", server.url), asyncio.get_running_loop().time() + 5)
        ] == ["add"]
        assert server.asked == [*negotiation, "tools/call", "tools/call", "tools/list"]
        assert len(server.sessions) == legacy
        calls = [headers for headers in server.headers if "idempotency-key" in headers]
        assert [headers["idempotency-key"] for headers in calls] == ["key-add", "key-say"]
        assert len({headers["mcp-protocol-version"] for headers in calls}) == 1


@ERAS
async def test_calls_at_once_negotiate_once_and_do_not_wait_for_each_other(legacy):
    async with McpServer(legacy=legacy) as server, client_of(server.port) as client:
        server.negotiation_takes_s = 0.1
        waiting = asyncio.create_task(call(client, server.url, "wait"))
        sums = await asyncio.gather(*(call(client, server.url, a=number, b=1) for number in range(6)))
        assert sums == [{"sum": number + 1} for number in range(6)]
        assert not waiting.done()
        server.go.set()
        assert await waiting == "gone on"
        assert sorted(server.asked) == sorted([*(HANDSHAKE if legacy else HANDSHAKE[:1]), *["tools/call"] * 7])
        assert len(server.sessions) == legacy


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, b""),
        (400, b"Bad Request: No valid session ID provided"),
        (400, b'{"jsonrpc": "2.0", "error": {"code": -32000, "message": "No valid session ID"}, "id": null}'),
    ],
)
async def test_a_server_that_forgot_its_sessions_is_called_in_a_new_one(status, body):
    async with McpServer(legacy=True) as old, client_of(old.port) as client:
        await call(client, old.url)
        old.forget(status, body)
        old.asked.clear()
        sums = await asyncio.gather(*(call(client, old.url, a=number, b=1) for number in range(4)))
        assert sums == [{"sum": number + 1} for number in range(4)]
        assert [old.asked.count(step) for step in HANDSHAKE] == [1, 1, 1]
        assert len(old.calls) == 5
        assert len(old.sessions) == 2
        assert "DELETE" not in old.asked


async def test_a_session_that_is_refused_from_the_start_is_not_tried_again():
    async with ScriptedServer() as server, client_of(server.port) as client:
        server.script = handshake_then(server, response(b"", "404 Not Found"))
        for count in (1, 2):
            with pytest.raises(ToolFailed, match="refused"):
                await call(client, server.url)
            assert len(calls_of(server)) == count


@pytest.mark.parametrize("eras", [(True, True), (True, False), (False, True), (False, False)])
async def test_a_server_that_was_started_anew_is_negotiated_with_again(eras):
    before, after = eras
    async with McpServer(legacy=before) as server:
        port, url = server.port, server.url
    async with client_of(port) as client:
        async with McpServer(legacy=before, port=port):
            await call(client, url)
        with pytest.raises(NothingSent):
            await call(client, url)
        async with McpServer(legacy=after, port=port) as server:
            assert await call(client, url) == {"sum": 3}
            assert len(server.calls) == 1
            server.asked.clear()
            await call(client, url)
            assert server.asked == ["tools/call"]


def handshake_then(server: ScriptedServer, then):
    """A script of a server with a session of earlier protocols that does this when it is called."""

    async def script(writer):
        message = json.loads(server.seen[-1].body or b"{}")
        if message.get("method") == "initialize":
            about = {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {"name": "x", "version": "1"}}
            body = json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": about}).encode()
            await response(body, mcp_session_id=f"session-{len(server.seen)}")(writer)
        elif message.get("method") == "server/discover":
            await response(b"", "404 Not Found")(writer)
        elif message.get("method") == "tools/call":
            await then(writer)
        else:
            await response(b"", "202 Accepted")(writer)

    return script


def calls_of(server: ScriptedServer) -> list:
    return [seen for seen in server.seen if b'"tools/call"' in seen.body]


async def succeed(server: ScriptedServer, writer) -> None:
    answer = {"jsonrpc": "2.0", "id": json.loads(server.seen[-1].body)["id"], "result": {"content": []}}
    await response(json.dumps(answer).encode())(writer)


async def test_a_call_whose_connection_broke_is_not_sent_again():
    async with ScriptedServer() as server, client_of(server.port) as client:
        server.script = handshake_then(server, lambda writer: succeed(server, writer))
        await call(client, server.url)
        server.script = handshake_then(server, hang_up)
        with pytest.raises(ToolUncertain):
            await call(client, server.url)
        assert len(calls_of(server)) == 2
        server.script = handshake_then(server, lambda writer: succeed(server, writer))
        await call(client, server.url)
        assert len(server.seen) == 3 + 3


async def test_a_session_that_ends_while_the_tool_asks_back_does_not_repeat_the_call():
    """The tool has begun: its question comes on the call's own stream, and our answer to it is answered 404."""

    async def ask_back(writer) -> None:
        question = {"jsonrpc": "2.0", "id": "q", "method": "roots/list"}
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")
        writer.write(b"event: message\ndata: " + json.dumps(question).encode() + b"\n\n")
        await writer.drain()
        server.script = response(b"session not found", "404 Not Found")
        await until(lambda: b'"q"' in server.seen[-1].body)

    async with ScriptedServer() as server, client_of(server.port) as client:
        server.script = handshake_then(server, lambda writer: succeed(server, writer))
        await call(client, server.url)
        server.script = handshake_then(server, ask_back)
        with pytest.raises(ToolUncertain):
            await call(client, server.url)
        assert len(calls_of(server)) == 2


async def test_tenants_and_credentials_share_no_session():
    async with McpServer(legacy=True) as server, client_of(server.port) as client:
        callers = [("m:1", "first-token"), ("m:2", "first-token"), ("m:1", "second-token"), ("m:1", "")]
        for tenant, token in callers * 2:
            await call(client, server.url, tenant=tenant, token=token)
        assert len(server.sessions) == 4
        used = {
            (headers["mcp-session-id"], headers.get("authorization"))
            for headers in server.headers
            if "mcp-session-id" in headers
        }
        assert len(used) == 4


async def test_sessions_unused_for_longest_make_room_first_of_the_same_tenant():
    bounds = Bounds(most=3, most_of_a_microdao=2)
    async with McpServer(legacy=True) as old, client_of(old.port, bounds=bounds) as client:
        for path in ("a", "b", "a", "c", "a"):
            await call(client, f"{old.url}?{path}")
        await until(lambda: old.asked.count("DELETE") == 1)
        assert old.asked.count("initialize") == 3
        for tenant in ("m:2", "m:3"):
            await call(client, old.url, tenant=tenant)
        await until(lambda: old.asked.count("DELETE") == 2)
        await call(client, f"{old.url}?a")
        assert old.asked.count("initialize") == 5


async def test_old_sessions_are_ended():
    bounds = Bounds(age_s=0.2, sweep_every_s=0.05)
    async with McpServer(legacy=True) as old, client_of(old.port, bounds=bounds) as client:
        for tenant in ("m:1", "m:2"):
            await call(client, old.url, tenant=tenant)
        await until(lambda: old.asked.count("DELETE") == 2)


async def test_unused_sessions_are_ended_and_used_ones_when_their_last_call_is():
    bounds = Bounds(age_s=0.3, unused_s=0.1, sweep_every_s=0.02)
    async with McpServer(legacy=True) as old, client_of(old.port, bounds=bounds) as client:
        waiting = asyncio.create_task(call(client, old.url, "wait"))
        await until(lambda: old.calls)
        await asyncio.sleep(0.5)
        assert "DELETE" not in old.asked
        old.go.set()
        assert await waiting == "gone on"
        await until(lambda: "DELETE" in old.asked)
        await call(client, old.url)
        await until(lambda: old.asked.count("DELETE") == 2)


@pytest.mark.parametrize("status", [401, 500])
async def test_a_session_in_which_a_call_is_refused_is_not_kept(status):
    async with McpServer(legacy=True) as old, client_of(old.port) as client:
        await call(client, old.url)
        old.status = status
        with pytest.raises(ToolFailed):
            await call(client, old.url)
        old.status = None
        await call(client, old.url)
        assert old.asked.count("initialize") == 2


async def test_one_who_gives_up_waiting_does_not_stop_a_negotiation_for_others():
    async with McpServer(legacy=True) as old, client_of(old.port) as client:
        old.negotiation_takes_s = 0.4
        hasty = asyncio.create_task(call(client, old.url, within_s=0.1))
        patient = asyncio.create_task(call(client, old.url))
        with pytest.raises(NothingSent, match="nothing was sent"):
            await hasty
        assert await patient == {"sum": 3}
        assert old.asked.count("server/discover") == 1


async def test_a_negotiation_for_which_nobody_waits_is_stopped():
    async with McpServer(legacy=True) as old, client_of(old.port) as client:
        old.negotiation_takes_s = 0.3
        with pytest.raises(NothingSent):
            await call(client, old.url, within_s=0.1)
        await asyncio.sleep(0.4)
        assert old.asked == ["server/discover"]
        assert await call(client, old.url) == {"sum": 3}


async def test_arguments_that_a_server_wants_in_headers_are_looked_up_once():
    region = {"type": "string", "x-mcp-header": "Region"}
    tool = Tool(name="say", input_schema={"type": "object", "properties": {"text": region}})
    async with McpServer(tools=[tool]) as server, client_of(server.port) as client:
        for text in ("eu", "us"):
            assert await call(client, server.url, "say", text=text) == text
        assert server.asked == ["server/discover", "tools/call", "tools/list", "tools/call", "tools/call"]
        assert [headers.get("mcp-param-region") for headers in server.headers] == [None, None, None, "eu", "us"]


async def test_each_request_of_a_session_goes_to_an_address_that_was_checked():
    addresses = ["127.0.0.1"]

    async def resolver(place: Place) -> list[str]:
        return addresses

    async with ScriptedServer() as server:
        web = WebClient(Reach(private=frozenset({Place("mcp.test", server.port)})), resolver)
        client, url = McpClient(web), f"http://mcp.test:{server.port}/mcp"
        server.script = handshake_then(server, lambda writer: succeed(server, writer))
        await call(client, url)
        asked = len(server.seen)
        web.reach = Reach(ports=frozenset({server.port}))  # as for every tenant's server: no private address
        with pytest.raises(ToolFailed, match="not on the public internet"):
            await call(client, url)
        await client.close()
        assert len(server.seen) == asked
