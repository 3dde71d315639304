"""Programs that do not end, crash, lie about their result, or look for what the tenant before them left."""

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from shared.tools.sandbox.jail.confine import is_supported
from shared.tools.sandbox.port import Limits, Program, SandboxBackend
from tests.attacks.model import processes_with
from tests.integration.sandboxes import BACKENDS, JAILS, ZYGOTE, assert_well, at_rest, open_backend, run

pytestmark = pytest.mark.skipif(not is_supported(), reason="the jail needs Linux on x86-64 or arm64")

RUNAWAYS = {
    "infinite loop": "def run(args):\n    while True:\n        pass",
    "ignores signals": """import signal
def run(args):
    for number in range(1, 65):
        try:
            signal.signal(number, signal.SIG_IGN)
        except (OSError, ValueError):
            pass
    while True:
        try:
            while True:
                pass
        except BaseException:
            pass""",
    "sleeps": "import time\ndef run(args):\n    time.sleep(30)",
    "uninterruptible C": "def run(args):\n    return len(str(7 ** 10 ** 7 % 10 ** 10 ** 7))",
    "catastrophic regex": "import re\ndef run(args):\n    return re.match('(a|a)*$', 'a' * 60 + 'b') is None",
    "stops itself": "import os, signal\ndef run(args):\n    os.kill(os.getpid(), signal.SIGSTOP)",
    "does not read its arguments": "def run(args):\n    while True:\n        pass",
    "goes on in a thread": """import threading
def run(args):
    def spin():
        while True:
            pass
    threading.Thread(target=spin).start()
    while True:
        pass""",
}
ENDS_BY_ITSELF = {
    "monty": {"uninterruptible C", "catastrophic regex", "ignores signals", "stops itself", "goes on in a thread"}
}
WALL_S = 0.5
GRACE_MS = 250


@pytest.fixture(scope="module", autouse=True)
def nothing_stays() -> Iterator[None]:
    """After all backends are closed no process of theirs is left."""
    yield
    assert not processes_with(ZYGOTE)


@pytest.fixture(params=BACKENDS, scope="module")
async def sandbox(request: pytest.FixtureRequest) -> AsyncIterator[SandboxBackend]:
    backend = open_backend(request.param)
    yield backend
    await backend.close()


@pytest.fixture(params=JAILS, scope="module")
async def jail(request: pytest.FixtureRequest) -> AsyncIterator[SandboxBackend]:
    backend = open_backend(request.param)
    yield backend
    await backend.close()


@pytest.mark.parametrize("name", RUNAWAYS)
async def test_a_runaway_is_dead_in_time(sandbox: SandboxBackend, name: str) -> None:
    await assert_well(sandbox)
    before = await at_rest()
    args = "x" * 5_000_000 if "arguments" in name else None
    for _ in range(3):  # another process may have had the processor
        started = time.monotonic()
        result = await run(sandbox, RUNAWAYS[name], args, wall_s=WALL_S)
        took_ms = (time.monotonic() - started) * 1000
        if took_ms <= WALL_S * 1000 + GRACE_MS:
            break
    else:
        pytest.fail(f"dead {took_ms - WALL_S * 1000:.0f} ms after its deadline, three times")
    if name not in ENDS_BY_ITSELF.get(sandbox.name, ()):
        assert (result.status, result.killed_by) == ("killed", "wall")
    assert await at_rest() == before
    await assert_well(sandbox)


@pytest.mark.parametrize("name", ["infinite loop", "ignores signals", "sleeps", "catastrophic regex", "stops itself"])
def test_a_runaway_runs_on_without_a_sandbox(name: str) -> None:
    process = subprocess.Popen([sys.executable, "-I", "-c", RUNAWAYS[name] + "\nrun(None)"])
    time.sleep(WALL_S + GRACE_MS / 1000)
    is_alive = process.poll() is None
    process.kill()
    process.wait()
    assert is_alive


@pytest.mark.parametrize(
    "code",
    [
        "import ctypes\ndef run(args):\n    ctypes.string_at(0)",
        "import os\ndef run(args):\n    os.abort()",
        "import os\ndef run(args):\n    os._exit(0)",
        "import os\ndef run(args):\n    os.close(3)",
        "import os, signal\ndef run(args):\n    os.kill(os.getpid(), signal.SIGKILL)",
        "def run(args):\n    raise SystemExit(0)",
        "import sys\ndef run(args):\n    sys.setrecursionlimit(10**9)\n    return run(args)",
        "def run(args):\n    return run(args)",
        "def run(args):\n    value = []\n    for _ in range(100_000):\n        value = [value]\n    return value",
        "def run(args):\n    return eval('(' * 100_000)",
        "def run(args):\n    return 10 ** 5000",
        "def run(args):\n    return float('inf')",
        "def run(args):\n    return {1, 2}",
        "def run(args):\n    return b'bytes'",
        "run = 5",
        "def run(",
        "",
    ],
)
async def test_a_fault_stays_inside(sandbox: SandboxBackend, code: str) -> None:
    result = await run(sandbox, code, wall_s=2.0)
    assert result.status != "ok"
    assert result.value is None
    await assert_well(sandbox)


FRAMES = {
    "no frame": "b'\\xff' * 100",
    "a frame of 4 GB": "b'\\xff\\xff\\xff\\xff' + b'x' * 100_000",
    "deep JSON": "frame(b'[' * 500_000)",
    "JSON that is no object": "frame(b'[1]')",
    "no JSON": "frame(b'{')",
    "a value beside a call": 'frame(b\'{"call": 5, "with": 6}\')',
    "endless calls": 'frame(b\'{"call": "http_request", "with": {}}\') * 2_000',
    "an error that is none": "frame(b'{\"error\": 5}')",
    "a pickle": "frame(b'\\x80\\x04\\x95')",
    "broken text": 'frame(b\'{"value": "\\xff\\xfe"}\')',
}


@pytest.mark.parametrize("name", FRAMES)
async def test_lies_to_the_host_are_no_result(jail: SandboxBackend, name: str) -> None:
    code = f"""import os
def frame(data):
    return len(data).to_bytes(4, "big") + data
def run(args):
    data = {FRAMES[name]}
    while data:
        data = data[os.write(3, data):]
    os._exit(0)"""
    result = await run(jail, code, wall_s=2.0)
    assert result.status in ("crashed", "killed"), result
    await assert_well(jail)


async def test_a_result_is_plain_json(jail: SandboxBackend) -> None:
    code = """class Text(str):
    def __reduce__(self):
        import os
        return os.system, ("true",)
def run(args):
    return {"text": Text("a"), "number": True, 5: (1, 2)}"""
    result = await run(jail, code)
    assert result.value == {"text": "a", "number": True, "5": [1, 2]}
    assert type(result.value["text"]) is str


async def test_standard_input_is_empty(jail: SandboxBackend) -> None:
    result = await run(jail, "import sys, os\ndef run(args):\n    return [sys.stdin.read(), os.read(0, 10).decode()]")
    assert result.value == ["", ""]


async def test_a_tenant_finds_nothing_of_the_one_before(sandbox: SandboxBackend) -> None:
    leave = """import json, os, sys, tempfile
def run(args):
    json.left = sys.left = args
    sys.modules["left"] = args
    os.environ["LEFT"] = args
    for folder in (".", "/tmp", "/var/tmp", "/dev/shm", tempfile.gettempdir(), ".."):
        try:
            with open(folder + "/left", "w") as file:
                file.write(args)
        except OSError:
            continue
    return "left"
"""
    search = """import gc, json, os, sys, tempfile
def run(args):
    found = [hasattr(json, "left"), hasattr(sys, "left"), "left" in sys.modules, "LEFT" in os.environ]
    for folder in (".", "/tmp", "/var/tmp", "/dev/shm", tempfile.gettempdir(), ".."):
        try:
            found.append([name for name in os.listdir(folder)])
        except OSError:
            continue
    half = args[:10]
    found += [text for text in gc.get_objects() if isinstance(text, str) and text.startswith(half) and text != args]
    return found
"""
    await run(sandbox, leave, "token-of-the-first-tenant")
    result = await run(sandbox, search, "token-of-the-second")
    if sandbox.name != "monty":  # which has none of these to look in
        assert result.status == "ok", result
    assert "first" not in str(result.value)
    assert "left" not in str(result.value)


async def test_neighbours_do_not_see_each_other(jail: SandboxBackend) -> None:
    """Two calls at the same time: one tries every path and process of the other's."""
    if jail.name == "jail without Landlock":
        pytest.skip("it can name no file at all")
    neighbour = """import os, time
def run(args):
    with open("mine", "w") as file:
        file.write("private")
    print(os.getcwd())
    time.sleep(1)
    return [os.getcwd(), open("mine").read()]"""
    spy = """import os, signal
def run(args):
    found = []
    parent = os.path.dirname(os.getcwd())
    for attempt in (
        lambda: os.listdir(parent),
        lambda: [open(f"/proc/{pid}/cmdline").read() for pid in range(2, 40_000)],
        lambda: [os.kill(pid, 0) for pid in range(2, 40_000) if pid != os.getpid()],
    ):
        try:
            found.append(attempt())
        except OSError as error:
            found.append(error.errno)
    return found"""
    first, second = await asyncio.gather(run(jail, neighbour), run(jail, spy))
    assert first.status == "ok"
    assert first.value[1] == "private"
    assert second.value in ([13, 13, 1], [13, 2, 1], [1, 1, 1]), second


async def test_what_it_prints_is_kept_up_to_the_limit(sandbox: SandboxBackend) -> None:
    result = await run(
        sandbox, "def run(args):\n    for _ in range(100):\n        print('x' * 999)", output_bytes=5_000
    )
    assert (result.status, result.killed_by) == ("killed", "output")
    assert len(result.stdout) <= 5_000


async def test_the_processor_is_limited_apart_from_the_wall(jail: SandboxBackend) -> None:
    result = await run(jail, "def run(args):\n    while True:\n        pass", cpu_s=1.0, wall_s=20.0)
    assert (result.status, result.killed_by) == ("killed", "cpu")


async def test_a_cancelled_call_is_dead(jail: SandboxBackend) -> None:
    await assert_well(jail)
    before = await at_rest()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await jail.run(Program(code=RUNAWAYS["infinite loop"]), None, Limits(wall_s=60.0))
    assert await at_rest() == before
    await assert_well(jail)
