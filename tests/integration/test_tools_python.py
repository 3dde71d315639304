"""python tools on the one execution path, in the sandbox that this machine has, against real servers."""

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import replace

import httpx
import pytest

from functions.chat.app import create_app
from functions.tool_executor.handler import app as tool_executor
from shared.bootstrap import Services
from shared.cloud.serve import QueueFunction
from shared.policy.principal import Principal
from shared.settings import Settings
from shared.tools.sandbox.jail.confine import is_supported
from shared.tools.sandbox.probe import ProbedSandbox
from tests.attacks.model import processes_with
from tests.fakes.scripted_server import ScriptedServer, hang_up, response, say_nothing
from tests.integration.sandboxes import ZYGOTE
from tests.outer_tools import add_tool, dump, request

pytestmark = pytest.mark.skipif(not is_supported(), reason="the jail needs Linux on x86-64 or arm64")

SECRET = "sup3r+s3cret/vaLue-9"
POST = "def run(args):\n    return http_request('POST', args['url'], json={'n': 1})"


@pytest.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    async with ScriptedServer() as server:
        yield server


@pytest.fixture
async def services(settings: Settings, server: ScriptedServer) -> AsyncIterator[Services]:
    services = Services(replace(settings, private_hosts=f"127.0.0.1:{server.port}"))
    await services.sandbox.choose()
    yield services
    await services.close()
    assert not processes_with(ZYGOTE)


async def run(services: Services, microdao: str, config: dict, args: dict | None = None, **fields):
    fields = {"executor": "python", "timeout_ms": 10_000, **fields}
    await add_tool(services.database, microdao, "custom", config, **fields)
    return await services.toolbox.execute(*request(microdao, "custom", **(args or {})))


async def test_code_of_a_tenant_runs(services, microdao):
    code = "import json\ndef run(args):\n    print('noise')\n    return {'sum': sum(args['numbers']), 'text': 'ї'}"
    outcome = await run(services, microdao, {"code": code}, {"numbers": [1, 2, 3]})
    assert (outcome.status, outcome.result) == ("succeeded", {"sum": 6, "text": "ї"})


@pytest.mark.parametrize("raised", ["'a\\x00b'", "'\\ud800' * 5000"])
async def test_a_failure_that_no_column_takes_is_stored_all_the_same(services, microdao, raised):
    outcome = await run(services, microdao, {"code": f"def run(args):\n    raise ValueError({raised})"})
    assert (outcome.status, outcome.error_code) == ("failed", "tool_failed")
    assert "ValueError" in outcome.error_message
    assert len(outcome.error_message) <= 4_000
    stored = await services.toolbox.outcome(microdao, outcome.execution_id)
    assert (stored.status, stored.error_message) == (outcome.status, outcome.error_message)


async def test_one_microdaos_long_runs_leave_room_for_others(services, microdao, other_microdao):
    sleeper = {"code": "import time\ndef run(args):\n    time.sleep(4)"}
    await add_tool(services.database, microdao, "sleep", sleeper, executor="python", timeout_ms=2_000)
    runs = [asyncio.create_task(services.toolbox.execute(*request(microdao, "sleep"))) for _ in range(8)]
    await asyncio.sleep(0.5)
    quick = await run(services, other_microdao, {"code": "def run(args):\n    return 1"}, timeout_ms=1_200)
    assert (quick.status, quick.result) == ("succeeded", 1)
    assert {(ended.status, ended.error_code) for ended in await asyncio.gather(*runs)} == {("failed", "tool_timeout")}


async def test_one_microdaos_glue_code_leaves_room_for_others(services, microdao, other_microdao):
    pytest.importorskip("pydantic_monty")
    config = {"code": "def run(args):\n    while args:\n        pass\n    return 'done'", "runtime": "monty"}
    await add_tool(services.database, other_microdao, "custom", config, executor="python", timeout_ms=3_000)
    await services.toolbox.execute(*request(other_microdao, "custom"))  # what starts with the first run is not measured
    long = [asyncio.create_task(run(services, microdao, config, {"forever": 1}, timeout_ms=3_000))]
    await asyncio.sleep(0.1)
    long += [
        asyncio.create_task(services.toolbox.execute(*request(microdao, "custom", forever=number)))
        for number in range(2, 6)
    ]
    await asyncio.sleep(0.2)
    assert (await services.toolbox.execute(*request(other_microdao, "custom"))).result == "done"
    assert not any(task.done() for task in long)
    assert {outcome.error_code for outcome in await asyncio.gather(*long)} == {"tool_timeout"}


@pytest.mark.parametrize(
    "asked",
    ["json={1}", "json=[1.0, float('nan')]", "headers={1: 'a'}", "json=many", "json='x' * 2_000_000", "json=deep"],
)
async def test_monty_asks_the_host_for_requests_in_json_only(services, microdao, server, asked):
    pytest.importorskip("pydantic_monty")
    code = f"""def run(args):
    many, deep = ['a' * 100], []
    for _ in range(40):
        many = [many, many]
    for _ in range(100_000):
        deep = [deep]
    try:
        return http_request('POST', args['url'], {asked})
    except RuntimeError as error:
        return str(error)"""
    config = {"code": code, "runtime": "monty", "hosts": ["127.0.0.1"]}
    outcome = await run(services, microdao, config, {"url": server.url})
    assert outcome.status == "succeeded", outcome
    assert "JSON" in outcome.result
    assert server.connections == 0


async def test_monty_runs_it_too(services, microdao):
    pytest.importorskip("pydantic_monty")
    code = "def run(args):\n    return [n * n for n in args['numbers']]"
    outcome = await run(services, microdao, {"code": code, "runtime": "monty"}, {"numbers": [1, 2]})
    assert (outcome.status, outcome.result) == ("succeeded", [1, 4])


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("print(6 * 7)", "the code must define a function run(args)"),
        ("def run(args):\n    return walk(args)", "name 'walk' is not defined (line 2)"),
        ("run(1)\n", "name 'run' is not defined (line 1)"),
    ],
)
async def test_monty_says_what_name_is_missing(services, microdao, code, said):
    pytest.importorskip("pydantic_monty")
    outcome = await run(services, microdao, {"code": code, "runtime": "monty"})
    assert said in outcome.error_message


@pytest.mark.parametrize(
    ("code", "code_word", "said"),
    [
        ("def run(args):\n    raise ValueError('no such city')", "tool_failed", "ValueError: no such city (line 2)"),
        ("def run(args):\n    while True:\n        pass", "tool_timeout", "did not finish within 1000 ms"),
        ("def run(args):\n    return bytearray(10**9)", "tool_failed", "memory"),
        ("def run(args):\n    return http_request('GET', 'http://x.test')", "tool_failed", "may not reach the network"),
        ("def run(args):\n    return open('/etc/passwd').read()", "tool_failed", "Error"),
        ("import os\nos._exit(3)", "tool_failed", "without an answer"),
        ("nothing = 1", "tool_failed", "must define a function run"),
        ("from json import nothing", "tool_failed", "ImportError"),
    ],
)
async def test_failures_say_what_was_wrong_and_no_path_of_ours(services, microdao, code, code_word, said):
    outcome = await run(services, microdao, {"code": code}, timeout_ms=1_000)
    assert (outcome.status, outcome.error_code) == ("failed", code_word), outcome
    assert said in outcome.error_message
    assert "/lib/python" not in outcome.error_message
    assert "daarion-jail" not in outcome.error_message
    assert len(outcome.error_message) < 3_000


@pytest.mark.parametrize(
    "config",
    [{}, {"code": "", "entrypoint": ""}, {"code": "x", "entrypoint": "os:getcwd"}, {"code": "x", "runtime": "js"}],
)
async def test_a_config_that_is_none(services, microdao, config):
    outcome = await run(services, microdao, config)
    assert outcome.status == "failed"


async def test_entry_points_are_the_operators(services, settings, microdao, server):
    config = {"entrypoint": "yaml:safe_load"}
    outcome = await run(services, microdao, config, {"a": 1})
    assert outcome.status == "failed"
    assert "'yaml:safe_load' is not in a module that this installation lets tools use" in outcome.error_message
    allowing = Services(replace(settings, sandbox_modules="markdown_it.common.utils, yaml"))
    await add_tool(
        services.database, microdao, "allowed", {"entrypoint": "yaml:dump"}, executor="python", timeout_ms=10_000
    )
    outcome = await allowing.toolbox.execute(*request(microdao, "allowed", a=1))
    await allowing.close()
    assert (outcome.status, outcome.result) == ("succeeded", "a: 1\n")


async def test_the_host_makes_requests_and_keeps_the_secret(services, database, microdao, server):
    owner = Principal("key", microdao, frozenset({"admin"}))
    await services.outside.secrets.put(owner, "weather", SECRET, [f"127.0.0.1:{server.port}"])
    server.script = response(f'{{"echo": "{SECRET}", "t": 21}}'.encode())
    code = """import os
def run(args):
    answer = http_request("POST", args["url"] + "/now?x={y}", {"X-Own": "1"}, {"city": "Kyiv"})
    print(answer)
    return [answer, dict(os.environ), sorted(globals())]"""
    config = {"code": code, "hosts": ["127.0.0.1"], "secret_ref": "weather"}
    outcome = await run(services, microdao, config, {"url": server.url})
    assert outcome.status == "succeeded", outcome
    answer, environment, _ = outcome.result
    assert (answer["status"], answer["body"]["t"], environment) == (200, 21, {})
    assert SECRET not in str(outcome.result)
    seen = server.seen[0]
    assert (seen.method, seen.target, seen.body) == ("POST", "/now?x={y}", b'{"city": "Kyiv"}')
    assert seen.headers["authorization"] == f"Bearer {SECRET}"
    assert seen.headers["x-own"] == "1"
    assert re.fullmatch(rf"{outcome.execution_id}-[0-9a-f]{{16}}-1", seen.headers["idempotency-key"])
    assert SECRET not in await dump(database)


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        ("http://127.0.0.1:{port}", ["api.example.com"]),
        ("http://127.0.0.1:{port}", []),
        ("http://api.example.com@127.0.0.1:{port}", ["api.example.com", "127.0.0.1"]),
        ("http://127.0.0.1:{port}\\@api.example.com", ["api.example.com", "127.0.0.1"]),
        ("http://127.0.0.1:{port}\r\nx: y", ["127.0.0.1"]),
        ("file:///etc/passwd", ["127.0.0.1"]),
        ("http://2130706433:{port}", ["127.0.0.1"]),
        ("http://notexample.com:{port}", ["*.example.com", "example.com"]),
        ("http://169.254.169.254/latest/meta-data", ["169.254.169.254"]),
        ("http://localhost:{port}", ["localhost"]),
    ],
)
async def test_other_hosts_are_refused(services, microdao, server, url, hosts):
    code = """def run(args):
    try:
        return http_request("GET", args["url"])
    except HostError as error:
        return str(error)"""
    config = {"code": code, "hosts": hosts}
    outcome = await run(services, microdao, config, {"url": url.format(port=server.port)})
    assert isinstance(outcome.result, str), outcome
    assert server.connections == 0


async def test_half_a_character_is_no_request(services, microdao, server):
    code = """def run(args):
    try:
        return http_request("POST", args["url"], json="\\ud800")
    except HostError as error:
        return str(error)"""
    outcome = await run(services, microdao, {"code": code, "hosts": ["127.0.0.1"]}, {"url": server.url})
    assert outcome.status == "succeeded", outcome
    assert "surrogates" in outcome.result
    assert server.connections == 0


async def test_the_number_of_requests_is_bounded(services, microdao, server):
    code = """def run(args):
    done = 0
    try:
        while True:
            http_request("GET", args["url"])
            done += 1
    except HostError:
        return done"""
    outcome = await run(services, microdao, {"code": code, "hosts": ["127.0.0.1"]}, {"url": server.url})
    assert outcome.result == len(server.seen) == 20


async def test_requests_of_eight_threads_at_once_are_made_in_turn(services, microdao, server):
    code = """from concurrent.futures import ThreadPoolExecutor
def run(args):
    def ask(n):
        try:
            return http_request("POST", args["url"], json=n)["status"]
        except HostError as error:
            return str(error)
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(ask, range(24)))"""
    outcome = await run(services, microdao, {"code": code, "hosts": ["127.0.0.1"]}, {"url": server.url})
    assert outcome.status == "succeeded", outcome
    assert (outcome.result.count(200), outcome.result.count("a tool may make 20 requests a run")) == (20, 4)
    assert (len({seen.body for seen in server.seen}), server.most_at_once) == (20, 1)
    assert len({seen.headers["idempotency-key"] for seen in server.seen}) == 20


@pytest.mark.parametrize("script", [hang_up, say_nothing])
async def test_an_effect_that_may_have_happened_is_unknown(services, microdao, server, script):
    server.script = script
    config = {"code": POST, "hosts": ["127.0.0.1"]}
    outcome = await run(services, microdao, config, {"url": server.url}, timeout_ms=1_500)
    assert outcome.status == "unknown", outcome
    assert len(server.seen) == 1


async def test_a_run_cut_off_after_it_acted_is_unknown(services, microdao, server):
    code = POST.replace("return ", "") + "\n    while True:\n        pass"
    outcome = await run(
        services, microdao, {"code": code, "hosts": ["127.0.0.1"]}, {"url": server.url}, timeout_ms=1_500
    )
    assert (outcome.status, outcome.error_code) == ("unknown", "tool_timeout")


async def test_a_read_that_is_cut_off_is_a_failure(services, microdao, server):
    server.script = say_nothing
    code = POST.replace("POST", "GET").replace(", json={'n': 1}", "")
    config = {"code": code, "hosts": ["127.0.0.1"]}
    outcome = await run(services, microdao, config, {"url": server.url}, timeout_ms=1_500)
    assert outcome.status == "failed"


async def test_without_a_sandbox_nothing_runs(services, microdao):
    await services.sandbox.close()
    services.__dict__["sandbox"] = ProbedSandbox([])
    outcome = await run(services, microdao, {"code": "def run(args):\n    return 1"})
    assert outcome.status == "failed"
    assert "no sandbox that holds" in outcome.error_message


async def test_readiness_names_the_sandbox(services):
    app = create_app(services)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        body = (await client.get("/readyz")).json()
    assert body["sandbox"]["backend"] in ("bwrap+jail", "jail")
    assert body["sandbox"] == (await services.sandbox_view())["sandbox"]


async def test_calls_beside_each_other(services, microdao):
    code = "import time\ndef run(args):\n    time.sleep(0.3)\n    return args['n']"
    await add_tool(services.database, microdao, "slow", {"code": code}, executor="python", timeout_ms=10_000)
    calls = [services.toolbox.execute(*request(microdao, "slow", n=n)) for n in range(12)]
    outcomes = await asyncio.gather(*calls)
    assert [outcome.result for outcome in outcomes] == list(range(12))


async def test_the_executor_function_names_it_too(services):
    app = QueueFunction(
        "tool_executor", lambda: services, on_batch=None, on_direct=None, also_ready=Services.sandbox_view
    )
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        answer = await client.get("/readyz")
    assert (answer.status_code, answer.json()["status"]) == (200, "ready")
    assert answer.json()["sandbox"]["backend"] in ("bwrap+jail", "jail")
    assert tool_executor._also_ready is Services.sandbox_view


async def test_devtools_are_tools_like_any_other(services, microdao):
    await services.toolbox.seed(microdao, "agent:sofia")
    test = "def test_one():\n    assert 1 + 1 == 2\n"
    written = await services.toolbox.execute(*request(microdao, "fs_write", path="test_a.py", content=test))
    assert (written.status, written.result) == ("succeeded", {"path": "test_a.py", "bytes": len(test)})
    ran = await services.toolbox.execute(*request(microdao, "run_tests"))
    assert (ran.status, ran.result["passed"], ran.result["failed"]) == ("succeeded", 1, 0), ran
    refused = await services.toolbox.execute(*request(microdao, "fs_read", path="../x"))
    assert (refused.status, refused.error_code) == ("failed", "tool_failed")


@pytest.mark.parametrize(
    ("code", "status", "expected"),
    [
        ("def run(args):\n    return sorted(args['numbers'])", "succeeded", [1, 2, 3]),
        ("import os\ndef run(args):\n    return os.listdir('/')", "failed", "PermissionError"),
        ("def run(args):\n    return http_request('GET', 'https://example.com/')", "failed", "network"),
        ("def run(args):\n    while True:\n        pass", "failed", "did not finish"),
        (
            "def run(args):\n    x = [1]\n    for _ in range(40):\n        x = [x, x]\n    return x",
            "failed",
            "code.run ",  # did not finish, or used too much memory: whichever comes first
        ),
        ("def run(args):\n    return ['a' * 100_000] * 100_000", "failed", "memory"),
        ("def run(args):\n    return 'a' * 1_000_001", "failed", "larger than"),
        ("def run(args):\n    x = []\n    x.append(x)\n    return x", "failed", "ValueError: Circular reference"),
        ("async def run(args):\n    return 1", "failed", "TypeError: Object of type coroutine"),
        ("def run(args):\n    return [run, {1}, float('nan')]", "failed", "TypeError: Object of type function"),
        ("def run(args):\n    return {'a': float('nan')}", "failed", "ValueError: Out of range float"),
        ("def run(args):\n    return {1: ('ї', None), 'a': -0.5e-7}", "succeeded", {"1": ["ї", None], "a": -5e-08}),
        ("def run():\n    return 1", "failed", "takes 0 positional arguments but 1 was given"),
        ("print(6 * 7)\nprint(sorted(args['numbers']))", "succeeded", {"printed": "42\n[1, 2, 3]\n"}),
        ("6 * 7", "failed", "printed nothing"),
        ("x = 1\nx.y", "failed", "(line 2)"),
    ],
)
async def test_an_agent_runs_code_that_it_wrote(services, microdao, code, status, expected):
    pytest.importorskip("pydantic_monty")
    await services.toolbox.seed(microdao, "agent:sofia")
    outcome = await services.toolbox.execute(*request(microdao, "code.run", code=code, args={"numbers": [3, 1, 2]}))
    assert outcome.status == status, outcome
    assert outcome.result == expected or expected in str(outcome.error_message)
