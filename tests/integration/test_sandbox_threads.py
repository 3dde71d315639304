"""Threads inside the jail: all that a tool may have can start; what they ask of the host at once is done in turn."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from shared.tools.sandbox.jail.confine import is_supported
from shared.tools.sandbox.port import HostCallRefused, Limits, Program, SandboxBackend, SandboxResult
from tests.integration.sandboxes import JAILS, assert_well, open_backend, run

pytestmark = pytest.mark.skipif(not is_supported(), reason="the jail needs Linux on x86-64 or arm64")

ASK_AT_ONCE = """from concurrent.futures import ThreadPoolExecutor
def ask(n):
    try:
        return http_request("POST", "https://a.example/" + str(n), json="x" * args_size)["asked"]
    except HostError as error:
        return str(error)
def run(args):
    global args_size
    args_size = args["size"]
    with ThreadPoolExecutor(args["threads"]) as pool:
        return list(pool.map(ask, range(args["requests"])))"""


@pytest.fixture(params=JAILS, scope="module")
async def jail(request: pytest.FixtureRequest) -> AsyncIterator[SandboxBackend]:
    backend = open_backend(request.param)
    yield backend
    await backend.close()


class Host:
    """Answers with what it was asked, slowly; refuses after so many calls. Counts those that it serves at once."""

    def __init__(self, most_calls: int = 1_000, takes_s: float = 0.005) -> None:
        self.calls = self.at_once = self.most_at_once = 0
        self._most_calls, self._takes_s = most_calls, takes_s

    async def __call__(self, name: str, asked: dict[str, Any]) -> Any:
        self.calls += 1
        if self.calls > self._most_calls:
            raise HostCallRefused("enough")
        self.at_once += 1
        self.most_at_once = max(self.at_once, self.most_at_once)
        await asyncio.sleep(self._takes_s)
        self.at_once -= 1
        return {"asked": asked["url"]}


async def asking(jail: SandboxBackend, host: Host, code: str, args: Any = None) -> SandboxResult:
    return await jail.run(Program(code=code), args, Limits(wall_s=10.0), host)


@pytest.mark.parametrize("threads", [2, 8, 31])
@pytest.mark.parametrize("size", [1, 200_000])
async def test_each_thread_gets_its_own_answer(jail: SandboxBackend, threads: int, size: int):
    host = Host()
    result = await asking(jail, host, ASK_AT_ONCE, {"threads": threads, "requests": 40, "size": size})
    assert (result.status, result.error) == ("ok", "")
    assert result.value == [f"https://a.example/{n}" for n in range(40)]
    assert (host.calls, host.most_at_once) == (40, 1)
    await assert_well(jail)


async def test_what_the_host_refuses_a_thread_can_catch(jail: SandboxBackend):
    result = await asking(jail, Host(most_calls=20), ASK_AT_ONCE, {"threads": 8, "requests": 24, "size": 1})
    assert result.status == "ok"
    assert result.value.count("enough") == 4
    assert len({answer for answer in result.value if answer.startswith("https")}) == 20


async def test_a_thread_that_still_asks_does_not_take_the_result_along(jail: SandboxBackend):
    host = Host(takes_s=0.2)
    code = """import threading, time
def run(args):
    for n in range(8):
        threading.Thread(target=http_request, args=("GET", "https://a.example/"), daemon=True).start()
    time.sleep(0.1)
    return "x" * 900_000"""
    result = await asking(jail, host, code)
    assert (result.status, len(result.value or "")) == ("ok", 900_000), result.error
    await assert_well(jail)


async def test_all_threads_that_a_tool_may_have_start(jail: SandboxBackend):
    code = """import threading, time
def run(args):
    kept = bytearray(150_000_000)
    threads = [threading.Thread(target=time.sleep, args=(0.1,)) for _ in range(31)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(threads)"""
    result = await run(jail, code)
    assert (result.status, result.value) == ("ok", 31), result.error


async def test_deep_recursion_in_a_thread_is_an_exception(jail: SandboxBackend):
    code = """import json, threading
class Endless:
    def __repr__(self):
        return repr([self])
def attempt(done, call):
    try:
        call()
    except RecursionError:
        done.append(True)
def run(args):
    done = []
    for call in (lambda: repr(Endless()), lambda: json.loads("[" * 100_000)):
        thread = threading.Thread(target=attempt, args=(done, call))
        thread.start()
        thread.join()
    return done"""
    result = await run(jail, code)
    assert (result.status, result.value) == ("ok", [True, True]), result.error
