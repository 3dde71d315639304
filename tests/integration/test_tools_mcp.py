"""Tools of remote MCP servers: the SDK's own server over HTTP, in both protocol eras, and worse ones."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import pytest
from mcp.types import Tool

from shared.bootstrap import Services
from shared.errors import InvalidRequest, UpstreamError
from shared.policy.principal import Principal
from shared.settings import Settings
from shared.tools.executors.mcp import McpExecutor, check_mcp_config
from tests.fakes.mcp_server import McpServer
from tests.fakes.scripted_server import ScriptedServer, hang_up, response, say_nothing
from tests.outer_tools import add_tool, dump, request

SECRET = "mcp-t0ken-value"
Start = Callable[..., Services]


@pytest.fixture
async def start(settings: Settings) -> AsyncIterator[Start]:
    """Makes services that may call these ports of this machine."""
    made = []

    def start(*ports: int) -> Services:
        made.append(Services(replace(settings, private_hosts=",".join(f"127.0.0.1:{port}" for port in ports))))
        return made[-1]

    yield start
    for services in made:
        await services.close()


async def call(services: Services, microdao: str, tool: str, **args):
    return await services.toolbox.execute(*request(microdao, tool, **args))


async def add(database, microdao: str, server_url: str, *tools: str, timeout_ms: int = 5000, **config) -> None:
    for tool in tools:
        fields = {"url": server_url, "tool": tool, **config}
        await add_tool(database, microdao, f"remote.{tool}", fields, executor="mcp", timeout_ms=timeout_ms)


def executor(services: Services) -> McpExecutor:
    return McpExecutor(services.outside)


@pytest.mark.parametrize("legacy", [False, True], ids=["2026", "2025"])
async def test_calls(start, database, microdao, legacy):
    async with McpServer(legacy=legacy) as server:
        services = start(server.port)
        await add(database, microdao, server.url, "add", "say", "fail", "draw", "deep", "break", "nobody", "huge")
        added = await call(services, microdao, "remote.add", a=1, b=2)
        assert (added.status, added.result) == ("succeeded", {"sum": 3})
        assert server.meta[0]["daarion/idempotency-key"] == added.execution_id
        keys = {headers["idempotency-key"] for headers in server.headers if "idempotency-key" in headers}
        assert keys == {added.execution_id}
        assert (await call(services, microdao, "remote.say", text="привіт")).result == "привіт"
        failed = await call(services, microdao, "remote.fail", text="there is no such day")
        assert (failed.status, failed.error_message) == ("failed", "there is no such day")
        statuses = {
            name: (await call(services, microdao, f"remote.{name}")).status for name in ("draw", "deep", "huge")
        }
        assert statuses == {"draw": "unknown", "deep": "unknown", "huge": "unknown"}
        for name in ("break", "nobody"):
            outcome = await call(services, microdao, f"remote.{name}")
            assert (outcome.status, "the server refused" in (outcome.error_message or "")) == ("failed", True)
        assert [name for name, _ in server.calls].count("break") == 1
        assert any("mcp-session-id" in headers for headers in server.headers) == legacy


async def test_a_call_without_an_answer_in_time_is_unknown(start, database, microdao):
    async with McpServer() as server:
        services = start(server.port)
        await add(database, microdao, server.url, "hang", timeout_ms=600)
        began = asyncio.get_running_loop().time()
        outcome = await call(services, microdao, "remote.hang")
        assert (outcome.status, outcome.error_code) == ("unknown", "tool_timeout")
        assert asyncio.get_running_loop().time() - began < 2.0
        assert len(server.calls) == 1


def upto_the_call(then):
    """A server that negotiates and then, asked to call the tool, does this."""

    def script_for(server: ScriptedServer):
        async def script(writer):
            message = json.loads(server.seen[-1].body or b"{}")
            if message.get("method") == "tools/call":
                await then(writer)
            elif message.get("method") == "server/discover":
                await response(b"", "404 Not Found")(writer)
            elif message.get("method") == "initialize":
                result = {
                    "protocolVersion": "2025-11-25",
                    "capabilities": {},
                    "serverInfo": {"name": "x", "version": "1"},
                }
                body = json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}).encode()
                await response(body)(writer)
            else:
                await response(b"", "202 Accepted")(writer)

        return script

    return script_for


async def cut_stream(writer):
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n: waiting\n\n")
    await writer.drain()


@pytest.mark.parametrize(
    ("then", "expected"),
    [
        (hang_up, "unknown"),
        (say_nothing, "unknown"),
        (cut_stream, "unknown"),
        (response(b"{not json"), "unknown"),
        (response(b'{"jsonrpc": "2.0", "id": 99, "result": {"nonsense": 1}}'), "unknown"),
        (response(b"<html>", content_type="text/html"), "unknown"),
        (response(b"", "502 Bad Gateway"), "unknown"),
        (response(b"", "504 Gateway Timeout"), "unknown"),
        (response(b"", "503 Service Unavailable"), "failed"),
        (response(b"", "500 Internal Server Error"), "failed"),
        (response(b"", "403 Forbidden"), "failed"),
        (response(b"", "307 Temporary Redirect", location="http://169.254.169.254/"), "failed"),
    ],
)
async def test_what_may_have_happened_is_unknown(start, database, microdao, then, expected):
    async with ScriptedServer() as server:
        server.script = upto_the_call(then)(server)
        services = start(server.port)
        await add(database, microdao, f"{server.url}/mcp", "pay", timeout_ms=1500)
        outcome = await call(services, microdao, "remote.pay", amount=5)
        assert outcome.status == expected, outcome
        calls = [seen for seen in server.seen if b"tools/call" in seen.body]
        assert len(calls) == 1


async def test_nothing_was_called_where_nobody_listens_or_may_listen(start, database, microdao):
    async with McpServer() as server:
        port, url = server.port, server.url
        services = start()
        await add(database, microdao, url, "add")
        refused = await call(services, microdao, "remote.add", a=1, b=2)
        assert (refused.status, server.headers) == ("failed", [])
        assert "tools may not call" in (refused.error_message or "")
    gone = await call(start(port), microdao, "remote.add", a=1, b=2)
    assert gone.status == "failed"
    assert "nothing was sent" in (gone.error_message or "")


async def test_secrets_are_sent_and_redacted(start, database, microdao):
    async with McpServer(token=SECRET) as server:
        services = start(server.port)
        await add(database, microdao, server.url, "say", "fail", secret_ref="token")
        missing = await call(services, microdao, "remote.say", text="x")
        assert (missing.error_code, server.headers) == ("unauthorized", [])
        owner = Principal("key", microdao, frozenset({"admin"}))
        await services.outside.secrets.put(owner, "token", SECRET, [f"127.0.0.1:{server.port}"])
        said = await call(services, microdao, "remote.say", text=f"you sent {SECRET[:9]}" + SECRET[9:])
        assert (said.status, said.result) == ("succeeded", "you sent [secret token]")
        failed = await call(services, microdao, "remote.fail", text="no")
        assert failed.error_message == "no"
        await services.outside.secrets.put(owner, "token", "another-value", [f"127.0.0.1:{server.port}"])
        refused = await call(services, microdao, "remote.say", text="x")
        assert (refused.status, refused.error_code) == ("failed", "unauthorized")
        assert "the secret 'token' (401)" in (refused.error_message or "")
        listed = executor(services).list_tools(microdao, {"url": server.url, "secret_ref": "token"})
        with pytest.raises(UpstreamError, match="has to renew it"):
            await listed
    assert "another-value" not in await dump(database)


async def test_a_kept_session_ends_with_its_secret_and_with_the_process(start, database, microdao, other_microdao):
    async with McpServer(legacy=True) as server:
        services = start(server.port)
        places = [f"127.0.0.1:{server.port}"]
        for tenant in (microdao, other_microdao):
            await add(database, tenant, server.url, "say", secret_ref="token")
            owner = Principal("key", tenant, frozenset({"admin"}))
            await services.outside.secrets.put(owner, "token", SECRET, places)
        for tenant in (microdao, other_microdao) * 2:
            assert (await call(services, tenant, "remote.say", text=f"<{SECRET}>")).result == "<[secret token]>"
        assert (server.asked.count("initialize"), len(server.sessions)) == (2, 2)
        await services.outside.secrets.put(owner, "token", "another-value", places)
        before = server.sessions
        assert (await call(services, other_microdao, "remote.say", text="another-value")).result == "[secret token]"
        sent = [(one["authorization"], one["mcp-session-id"]) for one in server.headers if "mcp-session-id" in one]
        assert {name for value, name in sent if value == "Bearer another-value"} == server.sessions - before
        assert "DELETE" not in server.asked
        await services.close()
        assert server.asked.count("DELETE") == 3


@pytest.mark.parametrize("legacy", [False, True], ids=["2026", "2025"])
async def test_listing_a_servers_tools(start, microdao, legacy):
    tools = [Tool(name=f"tool-{number}", input_schema={"type": "object"}) for number in range(7)]
    async with McpServer(tools=tools, page_size=3, legacy=legacy) as server:
        found = await executor(start(server.port)).list_tools(microdao, {"url": server.url})
        assert [one.name for one in found] == [f"tool-{number}" for number in range(7)]
    async with McpServer(legacy=legacy) as server:
        (one,) = await executor(start(server.port)).list_tools(microdao, {"url": server.url})
        assert (one.name, one.description) == ("add", "Adds two numbers.")
        assert one.input_schema["properties"]["a"] == {"type": "number"}
        assert (one.output_schema or {})["properties"] == {"sum": {"type": "number"}}
        assert one.annotations["read_only_hint"] is True


def nested(levels: int) -> dict:
    schema: dict = {"type": "object"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


@pytest.mark.parametrize(
    ("tools", "page_size", "said"),
    [
        ([Tool(name=f"t{number}", input_schema={"type": "object"}) for number in range(501)], 600, "more than 500"),
        ([Tool(name=f"t{number}", input_schema={"type": "object"}) for number in range(60)], 1, "50 pages"),
        ([Tool(name="big", description="x" * 70_000, input_schema={"type": "object"})], 10, "larger than 65536"),
        ([Tool(name="deep", input_schema=nested(40))], 10, "deeper than 64"),
    ],
)
async def test_lists_have_limits(start, microdao, tools, page_size, said):
    async with McpServer(tools=tools, page_size=page_size) as server:
        with pytest.raises(UpstreamError, match=said):
            await executor(start(server.port)).list_tools(microdao, {"url": server.url})


async def test_lists_of_hostile_servers(start, microdao):
    for url in ("http://127.0.0.1:9/mcp", "http://169.254.169.254/", "http://[::1]/mcp"):
        with pytest.raises(InvalidRequest) as refused:
            await executor(start()).list_tools(microdao, {"url": url})
        assert refused.value.param == "server.url"
    async with ScriptedServer(response(b"x" * (5 << 20))) as server:
        with pytest.raises(UpstreamError):
            await executor(start(server.port)).list_tools(microdao, {"url": server.url})


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"tool": ""}, "config.tool"),
        ({"url": "http://user@mcp.test/"}, "config.url"),
        ({"url": "https://mcp.test/{x}"}, "config.url"),
        ({"secret_ref": 5}, "config.secret_ref"),
        ({"headers": {"Host": "x"}}, "config.headers.Host"),
        ({"headers": {"X": "a\nb"}}, "config.headers.X"),
        ({"headers": {"X": "{{secret}}"}}, "config.headers.X"),
        ({"headers": {"X": 1}}, "config.headers.X"),
        ({"headers": []}, "config.headers"),
        ({"command": "sh"}, "config.command"),
    ],
)
def test_bad_configs_name_the_field(change, field):
    check_mcp_config({"url": "https://mcp.test/mcp", "tool": "add"})
    with pytest.raises(InvalidRequest) as refused:
        check_mcp_config({"url": "https://mcp.test/mcp", "tool": "add", **change})
    assert refused.value.param == field
