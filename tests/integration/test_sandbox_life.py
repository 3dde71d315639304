"""The processes behind a jail: started, replaced, noticed when they die, and gone when their host is."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import psutil
import pytest

from shared.settings import ROOT
from shared.tools.sandbox.jail import workdir
from shared.tools.sandbox.jail.confine import is_supported
from shared.tools.sandbox.jail_backend import Jail, JailOptions, python_command
from shared.tools.sandbox.port import Limits, Program, SandboxBackend, SandboxResult, SandboxUnavailable
from shared.tools.sandbox.probe import Candidate, ProbedSandbox, candidates
from tests.attacks.model import processes_with
from tests.integration.sandboxes import JAILS, ZYGOTE, assert_well, at_rest, open_backend, run

pytestmark = pytest.mark.skipif(not is_supported(), reason="the jail needs Linux on x86-64 or arm64")

SLEEP = "import time\ndef run(args):\n    time.sleep(20)"


@asynccontextmanager
async def closing(jail: SandboxBackend) -> AsyncIterator[SandboxBackend]:
    """A test that fails must not leave its fork server to the next."""
    try:
        yield jail
    finally:
        await jail.close()


@pytest.fixture
async def jail() -> AsyncIterator[SandboxBackend]:
    async with closing(Jail()) as jail:
        yield jail
    assert not processes_with(ZYGOTE)


def open_descriptors() -> int:
    """All but connections over TCP: those of other tests' database end when they have been idle long enough."""
    tcp = sum(one.fd >= 0 for one in psutil.Process().net_connections("tcp"))
    return len(os.listdir("/proc/self/fd")) - tcp


def folders() -> list[Path]:
    return list(Path("/tmp").glob("daarion-jail.*/*"))


def children_of(parent: int) -> list[str]:
    """Their state, such as Z for a zombie."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):
            state, its_parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
            found += [state] if its_parent == str(parent) else []
    return found


async def until(condition, within_s: float = 5.0) -> None:
    end = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.02)


async def test_the_fork_server_is_started_again_when_it_dies(jail):
    await assert_well(jail)
    (zygote,) = await at_rest()
    call = asyncio.create_task(run(jail, SLEEP))
    await until(lambda: len(children_of(zygote)) == 2)  # and the next one in stock
    os.kill(zygote, signal.SIGKILL)
    result = await call
    assert result.status == "crashed"
    await until(lambda: not processes_with(ZYGOTE))  # its children died with it
    await assert_well(jail)
    assert zygote not in processes_with(ZYGOTE)


async def test_a_fork_server_that_hangs_is_ended(jail):
    await assert_well(jail)
    (zygote,) = await at_rest()
    os.kill(zygote, signal.SIGSTOP)
    started = time.monotonic()
    result = await run(jail, "def run(args):\n    return 1", wall_s=0.5)
    assert result.status in ("killed", "crashed")
    assert time.monotonic() - started < 6
    await assert_well(jail)


@pytest.mark.parametrize("name", JAILS)
async def test_it_is_recycled_and_leaks_nothing(name):
    async with closing(open_backend(name, recycle_after=5)) as jail:
        await assert_well(jail)
        first, before, stock = await at_rest(), open_descriptors(), len(folders())
        for _ in range(5):
            await asyncio.gather(*(assert_well(jail) for _ in range(3)))
        last = await at_rest()
        assert open_descriptors() == before
        assert len(last) == len(first)
        assert last != first
        assert len(folders()) == stock
    assert not processes_with(ZYGOTE)
    assert open_descriptors() < before


async def test_recycling_lets_running_calls_end():
    code = "import time\ndef run(args):\n    time.sleep(args)\n    return args"
    async with closing(Jail(JailOptions(recycle_after=1))) as jail:
        results = await asyncio.gather(run(jail, code, 0.6), run(jail, code, 0.1), run(jail, code, 0.3))
    assert [result.value for result in results] == [0.6, 0.1, 0.3]
    assert not processes_with(ZYGOTE)


async def test_a_start_that_is_cancelled_leaves_nothing():
    before = open_descriptors()
    async with closing(Jail()) as jail:
        for delay_s in (0.0, 0.01, 0.05, 0.1):
            call = asyncio.create_task(assert_well(jail))
            await asyncio.sleep(delay_s)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
        await assert_well(jail)
    assert not processes_with(ZYGOTE)
    assert open_descriptors() == before


async def test_no_zombies(jail):
    for code in (SLEEP, "import os\nos._exit(0)", "def run(args):\n    return 1"):
        await run(jail, code, wall_s=0.2)
    (zygote,) = await at_rest()
    assert len(children_of(zygote)) == 1


async def test_a_child_that_dies_in_stock_is_replaced(jail):
    await assert_well(jail)
    (zygote,) = await at_rest()
    (child,) = psutil.Process(zygote).children()
    child.kill()
    child.wait()
    await assert_well(jail)
    assert await at_rest() == [zygote]


async def test_waiting_for_a_place_is_part_of_the_time():
    async with closing(Jail(JailOptions(max_parallel=1))) as jail:
        await assert_well(jail)
        first, second = await asyncio.gather(run(jail, SLEEP, wall_s=0.8), run(jail, SLEEP, wall_s=0.4))
    assert (first.killed_by, second.killed_by) == ("wall", "wall")
    assert second.ms < 700


HOST = """
import asyncio, sys
from shared.tools.sandbox.bwrap import find_bwrap, open_bwrap_jail
from shared.tools.sandbox.jail_backend import Jail
from shared.tools.sandbox.port import Limits, Program
async def main():
    jail = open_bwrap_jail(find_bwrap()) if sys.argv[1] == "bwrap+jail" else Jail()
    await jail.run(Program(code="def run(args): return 1"), None, Limits())
    call = asyncio.create_task(jail.run(Program(code=sys.argv[2]), None, Limits(wall_s=60)))
    await asyncio.sleep(0.3)
    print("up", flush=True)
    await call
asyncio.run(main())
"""


@pytest.mark.parametrize("name", ["jail", "bwrap+jail"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_all_is_gone_when_the_host_is(name, number):
    open_backend(name)  # skips where there is none
    host = subprocess.Popen([sys.executable, "-c", HOST, name, SLEEP], stdout=subprocess.PIPE, cwd=ROOT)
    assert host.stdout is not None
    assert host.stdout.readline() == b"up\n"
    assert len(processes_with(ZYGOTE)) >= 2
    host.send_signal(number)
    host.wait()
    host.stdout.close()
    asyncio.run(until(lambda: not processes_with(ZYGOTE)))
    asyncio.run(until(lambda: not folders()))


async def test_what_a_dead_fork_server_left_is_removed_by_the_next(jail, tmp_path, monkeypatch):
    others = set(folders())  # of other processes' jails
    await assert_well(jail)
    (zygote,) = await at_rest()
    call = asyncio.create_task(
        run(jail, "def run(args):\n    open('left', 'w').close()\n    while True:\n        pass")
    )
    await until(lambda: any((folder / "left").exists() for folder in folders()))
    left = set(folders()) - others
    os.kill(zygote, signal.SIGKILL)
    await call
    await assert_well(jail)
    await until(lambda: not any(folder.exists() for folder in left))


def test_a_folder_of_any_depth_is_removed(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    descriptor = os.open(folder, os.O_RDONLY)
    for number in range(3_000):
        os.mkdir("d", 0o000 if number % 500 == 499 and os.geteuid() == 0 else 0o700, dir_fd=descriptor)
        os.close(os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=descriptor))
        below = os.open("d", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    os.close(descriptor)
    workdir.remove_folder(str(folder))
    assert not folder.exists()


def test_unreadable_and_deep_folders_count_as_too_much(tmp_path):
    (tmp_path / "/".join(["d"] * 14)).mkdir(parents=True)
    assert workdir.overuse(str(tmp_path), 1_000_000_000, 1_000) == "files"


class _Leaky:
    """A backend that holds some things back, and not others."""

    name = "leaky"
    is_closed = False

    async def run(self, program, args, limits, host_call=None):
        return SandboxResult(status="ok", value={"held": ["files", "network"], "secrets": ["API_KEY"]})

    async def close(self) -> None:
        self.is_closed = True


async def test_a_sandbox_that_lets_through_is_refused():
    leaky = _Leaky()
    sandbox = ProbedSandbox([Candidate("leaky", lambda: leaky)])
    choice = await sandbox.choose()
    assert choice.backend is None
    assert "got past it" in choice.refused["leaky"]
    assert leaky.is_closed
    with pytest.raises(SandboxUnavailable, match="leaky"):
        await sandbox.run(Program(code="def run(args):\n    return 1"), None, Limits())
    assert (await sandbox.describe())["backend"] == "none"


async def test_the_strongest_that_starts_is_taken():
    broken = Candidate("broken", lambda: Jail(name="broken", command=["/nonexistent/bwrap"]))
    wrong = Candidate(
        "wrong", lambda: Jail(name="wrong", command=[*python_command()[:-2], "raise SystemExit('no')", "x"])
    )
    sandbox = ProbedSandbox([broken, wrong, Candidate("jail", Jail)])
    assert (await sandbox.choose()).backend is not None
    assert sandbox.name == "jail"
    described = await sandbox.describe()
    assert set(described["refused"]) == {"broken", "wrong"}
    await sandbox.close()
    assert not processes_with(ZYGOTE)


async def test_namespaces_go_before_a_plain_jail():
    names = [candidate.name for candidate in candidates()]
    assert names in (["bwrap+jail", "jail"], ["jail"])


async def test_a_module_that_starts_a_thread_is_not_forked(tmp_path):
    (tmp_path / "threaded.py").write_text(
        "import threading, time\nthreading.Thread(target=time.sleep, args=(9,), daemon=True).start()\n"
    )
    jail = Jail(JailOptions(modules=("threaded",), path=(str(tmp_path),)))
    with pytest.raises(SandboxUnavailable, match="started a thread"):
        await assert_well(jail)
    await jail.close()
