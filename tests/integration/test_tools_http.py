"""http tools on the one execution path, against real servers."""

import asyncio
import base64
import io
import json
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from urllib.parse import quote

import httpx
import pytest

from functions.chat.app import create_app
from shared.bootstrap import Services
from shared.observability import _JsonFormatter, configure_logging
from shared.policy.principal import Principal
from shared.settings import Settings
from tests.fakes.platform_server import PlatformServer
from tests.fakes.scripted_server import ScriptedServer, hang_up, response, say_nothing
from tests.outer_tools import add_tool, dump, request

SECRET = "sup3r+s3cret/vaLue-9"
Start = Callable[..., Services]


@pytest.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    async with ScriptedServer() as server:
        yield server


@pytest.fixture
async def platform() -> AsyncIterator[PlatformServer]:
    async with PlatformServer("platform-t0ken") as platform:
        yield platform


@pytest.fixture
async def start(settings: Settings, server: ScriptedServer) -> AsyncIterator[Start]:
    """Makes services that may call ``server``."""
    made = []

    def start(**changes: str) -> Services:
        made.append(Services(replace(settings, private_hosts=f"127.0.0.1:{server.port}", **changes)))
        return made[-1]

    yield start
    for services in made:
        await services.close()


async def call(services: Services, microdao: str, tool: str, **args):
    return await services.toolbox.execute(*request(microdao, tool, **args))


async def set_secret(services: Services, microdao: str, server: ScriptedServer, name: str = "weather") -> None:
    owner = Principal("key", microdao, frozenset({"admin"}))
    await services.outside.secrets.put(owner, name, SECRET, [f"127.0.0.1:{server.port}"])


async def test_a_call_from_arguments_to_result(start, database, microdao, server):
    services = start()
    config = {"url": f"{server.url}/v1/items/{{item}}", "result_path": "data.0.name", "query": {"lang": "uk"}}
    await add_tool(database, microdao, "items.get", config, idempotent=True)
    server.script = response('{"data": [{"name": "борщ"}]}'.encode(), content_encoding="identity")
    outcome = await call(services, microdao, "items.get", item="a/../b", page=2)
    assert (outcome.status, outcome.error_code) == ("failed", "invalid_args")
    outcome = await call(services, microdao, "items.get", item="a/b?", page=2)
    assert (outcome.status, outcome.result) == ("succeeded", "борщ")
    seen = server.seen[0]
    assert (seen.method, seen.target) == ("GET", "/v1/items/a%2Fb%3F?lang=uk&page=2")
    assert seen.headers["idempotency-key"] == outcome.execution_id
    assert seen.headers["accept"].startswith("application/json")


@pytest.mark.parametrize(
    ("script", "result"),
    [
        (response(b"", "204 No Content"), None),
        (response("привіт".encode(), content_type="text/plain"), "привіт"),
        (response(b"[1, 2.5]", content_type="application/vnd.api+json"), [1, 2.5]),
    ],
)
async def test_results(start, database, microdao, server, script, result):
    await add_tool(database, microdao, "any", {"url": server.url, "method": "POST"})
    server.script = script
    outcome = await call(start(), microdao, "any")
    assert (outcome.status, outcome.result) == ("succeeded", result)


UNREADABLE = response(b"%PDF-1.7", content_type="application/pdf")


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (hang_up, "unknown"),
        (say_nothing, "unknown"),
        (UNREADABLE, "unknown"),
        (response(b"{", content_type="application/json"), "unknown"),
        (response(b"{}"), "unknown"),  # there is nothing at the result's path
        (response(b"", "302 Found", location="/elsewhere"), "unknown"),
        (response(b"", "504 Gateway Timeout"), "unknown"),
        (response(b"", "502 Bad Gateway"), "unknown"),
        (response(b"", "429 Too Many Requests"), "failed"),
        (response(b"", "503 Service Unavailable"), "failed"),
        (response(b"", "500 Internal Server Error"), "failed"),
        (response(b"", "404 Not Found"), "failed"),
        (response(b"", "401 Unauthorized"), "failed"),
    ],
)
async def test_what_may_have_happened_is_unknown_and_done_once(start, database, microdao, server, script, expected):
    config = {"url": f"{server.url}/pay", "method": "POST", "result_path": "paid"}
    await add_tool(database, microdao, "pay", config, timeout_ms=400)
    server.script = script
    outcome = await call(start(), microdao, "pay", amount=5)
    assert outcome.status == expected, outcome
    assert len(server.seen) == 1
    assert json.loads(server.seen[0].body) == {"amount": 5}


async def test_an_idempotent_tool_is_tried_again_under_the_same_key(start, database, microdao, server):
    await add_tool(database, microdao, "read", {"url": server.url}, idempotent=True)
    scripts = iter([hang_up, response(b"", "503 Service Unavailable"), response(b'{"ok": 1}')])

    async def script(writer):
        await next(scripts)(writer)

    server.script = script
    outcome = await call(start(), microdao, "read")
    assert (outcome.status, outcome.result) == ("succeeded", {"ok": 1})
    assert [seen.headers["idempotency-key"] for seen in server.seen] == [outcome.execution_id] * 3


async def test_nothing_happened_where_nobody_listens(start, database, microdao, server):
    await add_tool(database, microdao, "pay", {"url": server.url, "method": "POST"})
    services = start()
    await server.__aexit__()
    outcome = await call(services, microdao, "pay")
    assert (outcome.status, outcome.error_code) == ("failed", "tool_failed")
    assert "nothing was sent" in (outcome.error_message or "")


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:{other}/", "http://localhost:{port}/", "http://169.254.169.254/", "http://[::1]/"]
)
async def test_hostile_urls_end_as_a_failure_with_nothing_sent(start, database, microdao, server, url):
    async with ScriptedServer() as other:
        await add_tool(
            database, microdao, "evil", {"url": url.format(other=other.port, port=server.port), "method": "POST"}
        )
        outcome = await call(start(), microdao, "evil")
        assert (outcome.status, outcome.error_code) == ("failed", "tool_failed")
        assert "tools may not call" in (outcome.error_message or "")
        assert "DAARION_PRIVATE_HOSTS" in (outcome.error_message or "")
        assert (other.connections, server.connections) == (0, 0)


async def test_an_error_of_the_service_is_told_in_its_words(start, database, microdao, server):
    await add_tool(database, microdao, "order", {"url": server.url, "method": "POST"})
    server.script = response(b'{"error": "no such product"}', "422 Unprocessable Entity")
    outcome = await call(start(), microdao, "order")
    assert outcome.error_message == 'the service answered 422: {"error": "no such product"}'


async def test_a_secret_is_sent_to_its_host_and_stays_out_of_everything_else(start, database, microdao, server):
    services = start()
    await set_secret(services, microdao, server)
    basic = base64.b64encode(f"me:{SECRET}".encode()).decode()
    echo = {"raw": SECRET, "url": quote(SECRET, safe=""), "basic": basic, "deep": [{f"key {SECRET}": 1}]}
    server.script = response(json.dumps(echo).encode())
    config = {"url": server.url, "method": "POST", "secret_ref": "weather", "query": {"key": "{{secrets.weather}}"}}
    config["headers"] = {"Authorization": "Bearer {{secret}}"}
    await add_tool(database, microdao, "echo", config)
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_JsonFormatter(service="test"))
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        outcome = await call(services, microdao, "echo", text="hello {{secret}}")
        server.script = response(json.dumps(echo).encode(), "500 Internal Server Error")
        failed = await call(services, microdao, "echo")
        server.script = response(f"{'x' * 290}{SECRET}".encode(), "400 Bad Request", content_type="text/plain")
        cut = await call(services, microdao, "echo")
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
    assert server.seen[0].headers["authorization"] == f"Bearer {SECRET}"
    assert server.seen[0].target == f"/?key={quote(SECRET, safe='')}"
    assert json.loads(server.seen[0].body) == {"text": "hello {{secret}}"}
    assert outcome.status == "succeeded"
    assert outcome.result["raw"] == "[secret weather]"
    assert outcome.result["deep"] == [{"key [secret weather]": 1}]
    assert failed.status == cut.status == "failed"
    whole = "\n".join([await dump(database), stream.getvalue(), json.dumps(outcome.result), repr(failed), repr(cut)])
    assert "echo" in whole  # the dump does hold the tools and executions of this test
    assert outcome.execution_id in whole
    for form in (
        SECRET,
        SECRET[:8],
        quote(SECRET, safe=""),
        basic[6:-4],
        base64.b64encode(SECRET.encode()).decode()[:-2],
    ):
        assert form not in whole


async def test_log_lines_inside_a_call_are_redacted(capsys):
    from shared.observability import Log, redacted
    from shared.tools.secrets.redaction import Redactor

    configure_logging("INFO", "test")
    with redacted(Redactor({"weather": SECRET}).text):
        Log("tools").warning("a library says", text=f"Authorization: Bearer {SECRET}")
    Log("tools").warning("afterwards")
    written = capsys.readouterr().err
    assert "[secret weather]" in written
    assert "afterwards" in written
    assert SECRET not in written


@pytest.mark.parametrize("status", [401, 403])
async def test_a_service_that_refuses_a_secret_is_told_so_that_it_is_renewed(start, database, microdao, server, status):
    services = start()
    await set_secret(services, microdao, server)
    await add_tool(database, microdao, "weather", {"url": server.url, "secret_ref": "weather"})
    server.script = response(f'{{"you sent": "{SECRET}"}}'.encode(), f"{status} No")
    outcome = await call(services, microdao, "weather")
    assert (outcome.status, outcome.error_code) == ("failed", "unauthorized")
    assert (
        outcome.error_message
        == f"the service refused the secret 'weather' ({status}); an administrator has to renew it"
    )


async def test_a_secret_goes_nowhere_else(start, database, microdao, server):
    services = start()
    async with ScriptedServer() as other:
        both = replace(services.settings, private_hosts=f"127.0.0.1:{server.port},127.0.0.1:{other.port}")
        services = Services(both)
        await set_secret(services, microdao, server)
        await add_tool(database, microdao, "elsewhere", {"url": other.url, "secret_ref": "weather"})
        await add_tool(database, microdao, "missing", {"url": server.url, "secret_ref": "nobody"})
        await add_tool(database, microdao, "clear", {"url": "http://example.com/", "secret_ref": "weather"})
        config = {"url": server.url, "secret_ref": "weather", "max_redirects": 3, "headers": {"X-Key": "{{secret}}"}}
        await add_tool(database, microdao, "redirected", config)
        for tool, said in (("elsewhere", "is not bound to"), ("missing", "is not set"), ("clear", "over https only")):
            outcome = await call(services, microdao, tool)
            assert (outcome.status, outcome.error_code) == ("failed", "unauthorized")
            assert said in (outcome.error_message or "")
        assert (server.connections, other.connections) == (0, 0)
        server.script = response(b"", "302 Found", location=f"{other.url}/stolen")
        assert (await call(services, microdao, "redirected")).status == "succeeded"
        assert SECRET.encode() in server.seen[0].raw_head
        assert SECRET.encode() not in other.seen[0].raw_head
        await services.close()


async def test_secrets_of_one_microdao_do_not_serve_another(start, database, microdao, server):
    services = start()
    await set_secret(services, microdao, server)
    other = f"{microdao}-other"
    async with database.system() as connection:
        await connection.execute("INSERT INTO microdao (microdao_id, name) VALUES (%s, 'Other')", (other,))
        await connection.execute(
            "INSERT INTO agent (microdao_id, agent_id, name, blueprint_code) VALUES (%s, 'agent:sofia', 'S', 'sofia')",
            (other,),
        )
    await add_tool(database, other, "weather", {"url": server.url, "secret_ref": "weather"})
    outcome = await call(services, other, "weather")
    assert (outcome.status, outcome.error_code) == ("failed", "unauthorized")
    assert server.connections == 0


async def test_arguments_cannot_inject_headers(start, database, microdao, server):
    config = {"url": server.url, "in": {"trace": "header"}, "names": {"trace": "X-Trace"}}
    parameters = {"type": "object", "properties": {"trace": {"type": "string"}}}
    await add_tool(database, microdao, "traced", config, parameters=parameters)
    services = start()
    outcome = await call(services, microdao, "traced", trace="a\r\nX-Injected: 1")
    assert (outcome.status, outcome.error_code, server.connections) == ("failed", "invalid_args", 0)
    assert (await call(services, microdao, "traced", trace="a b")).status == "succeeded"
    assert server.seen[0].headers["x-trace"] == "a b"


async def test_platform_tools(start, microdao, platform):
    services = start(platform_url=f"{platform.base_url}/", platform_token="platform-t0ken")
    await services.toolbox.seed(microdao, "agent:sofia")
    energy = await call(services, microdao, "energy.read", **{"meter_id": "m-1", "from": "2026-11-01"})
    assert (energy.status, energy.result["unit"], energy.result["from"]) == ("succeeded", "kWh", "2026-11-01")
    assert (await call(services, microdao, "water_read")).result["unit"] == "m3"
    with pytest.raises(Exception, match=r"tools-need-a-grant: agent:[a-z]+ was not granted [a-z._]+; an admin"):
        await call(services, microdao, "greenfood.order", items=[{"product": "soup", "quantity": 2}])
    await services.toolbox.set_grants(microdao, "agent:sofia", ["greenfood.order"], [])
    ordered = await call(services, microdao, "greenfood.order", items=[{"product": "soup", "quantity": 2}])
    assert (ordered.status, ordered.result["total"], ordered.result["microdao"]) == ("succeeded", 240, microdao)
    refused = await call(services, microdao, "greenfood.order", items=[{"product": "caviar", "quantity": 1}])
    assert refused.error_message == 'the service answered 422: {"error": "no product caviar"}'
    assert {headers["x-daarion-agent"] for _, headers in platform.requests} == {"agent:sofia"}


async def test_an_order_whose_answer_is_lost_is_unknown_and_not_ordered_again(start, microdao, platform):
    services = start(platform_url=platform.base_url, platform_token="platform-t0ken")
    await services.toolbox.seed(microdao, "agent:sofia")
    await services.toolbox.set_grants(microdao, "agent:sofia", ["greenfood.order"], [])
    items = [{"product": "bread", "quantity": 1}]
    for fault in ("drop", "garbage", "504"):
        platform.will(fault)
        assert (await call(services, microdao, "greenfood.order", items=items)).status == "unknown"
    platform.will("busy")
    assert (await call(services, microdao, "greenfood.order", items=items)).status == "failed"
    assert (len(platform.requests), len(platform.orders)) == (4, 2)
    platform.will("drop", "busy")
    assert (await call(services, microdao, "energy.read")).status == "succeeded"
    assert len(platform.requests) == 7


async def test_a_slow_order_ends_with_its_time_and_is_unknown(start, database, microdao, platform):
    services = start(platform_url=platform.base_url, platform_token="platform-t0ken")
    config = {"base": "platform", "url": "/greenfood/orders", "method": "POST"}
    await add_tool(database, microdao, "order.fast", config, timeout_ms=300)
    platform.will("slow")
    began = asyncio.get_running_loop().time()
    outcome = await call(services, microdao, "order.fast", items=[{"product": "bread", "quantity": 1}])
    assert (outcome.status, outcome.error_code) == ("unknown", "tool_timeout")
    assert "may have acted on it" in (outcome.error_message or "")
    assert asyncio.get_running_loop().time() - began < 1.5


async def test_without_a_platform_its_tools_say_so(start, microdao):
    services = start()
    await services.toolbox.seed(microdao, "agent:sofia")
    outcome = await call(services, microdao, "energy.read")
    assert outcome.status == "failed"
    assert "DAARION_PLATFORM_URL" in (outcome.error_message or "")


async def test_the_platforms_token_is_not_shown(start, microdao, platform):
    services = start(platform_url=platform.base_url, platform_token="wrong-t0ken-of-ours")
    await services.toolbox.seed(microdao, "agent:sofia")
    outcome = await call(services, microdao, "energy.read")
    assert outcome.error_code == "unauthorized"
    assert "wrong-t0ken" not in repr(outcome)


async def test_tenants_tools_do_not_reach_the_platform_itself(start, database, microdao, platform):
    services = start(platform_url=platform.base_url, platform_token="platform-t0ken")
    await add_tool(database, microdao, "sneak", {"url": f"{platform.base_url}/energy/readings"})
    outcome = await call(services, microdao, "sneak")
    assert (outcome.status, platform.requests) == ("failed", [])


async def test_the_api_calls_services_for_whom_it_may(start, database, microdao, server):
    services = start()
    await add_tool(database, microdao, "weather.now", {"url": f"{server.url}/now"}, idempotent=True)
    body = {"tool_name": "weather.now", "agent_id": "agent:sofia", "args": {"city": "Київ"}, "idempotency_key": "once"}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(create_app(services)), base_url="http://test") as client:
        answers = {}
        for role in ("guest", "member"):
            key = (await services.keys.create(microdao, [role], role)).secret
            headers = {"authorization": f"Bearer {key}"}
            answers[role] = await client.post("/internal/tools/call", json=body, headers=headers)
        again = await client.post("/internal/tools/call", json=body, headers=headers)
    assert [answers[role].status_code for role in ("guest", "member")] == [403, 200]
    told = answers["member"].json()
    assert (told["status"], told["result"]) == ("succeeded", {"ok": True})
    assert again.json()["execution_id"] == told["execution_id"]
    assert [seen.target for seen in server.seen] == [f"/now?city={quote('Київ')}"]
    assert server.seen[0].headers["idempotency-key"] == told["execution_id"]
