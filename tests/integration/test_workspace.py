"""DevTools: what an agent may do in its workspace, and that nothing leads out of it."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from shared.tools.model import Invocation, Tool, ToolFailed
from shared.tools.sandbox.jail.confine import is_supported
from shared.tools.workspace import beneath, workspace
from shared.tools.workspace.devtools import DevTools, open_test_sandbox
from shared.tools.workspace.workspace import Workspace

MICRODAO, AGENT = "microdao:a", "agent:one"


def tool(name: str, timeout_ms: int = 30_000) -> Tool:
    return Tool(
        id=f"tool_{name}",
        name=name,
        version=1,
        description="",
        parameters={},
        risk="B",
        executor="builtin",
        active=True,
        timeout_ms=timeout_ms,
        idempotent=True,
        config={"function": name},
    )


def invocation(microdao_id: str = MICRODAO, agent_id: str = AGENT, **more: Any) -> Invocation:
    return Invocation(execution_id="exec_1", microdao_id=microdao_id, agent_id=agent_id, **more)


@pytest.fixture(scope="module")
async def devtools(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[DevTools]:
    devtools = DevTools(tmp_path_factory.mktemp("workspaces"), open_test_sandbox())
    yield devtools
    await devtools.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The workspace's own folder, where a test may plant things."""
    Workspace(tmp_path, MICRODAO, AGENT).write("seen.txt", b"seen")
    return next(tmp_path.glob("*/*/seen.txt")).parent


@pytest.fixture
def own(tmp_path: Path, folder: Path) -> Workspace:
    return Workspace(tmp_path, MICRODAO, AGENT)


@pytest.fixture(params=["openat2", "step by step"])
def opening(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to open a file."""
    if request.param == "step by step":
        monkeypatch.setattr(beneath, "_has_openat2", lambda: False)
    elif not beneath._has_openat2():
        pytest.skip("this kernel has no openat2")


async def test_what_is_written_is_read(devtools: DevTools) -> None:
    written = await devtools.fs_write(tool("fs_write"), {"path": "src/a.py", "content": "print('ї')\n"}, invocation())
    assert written == {"path": "src/a.py", "bytes": 12}
    read: Any = await devtools.fs_read(tool("fs_read"), {"path": "src/a.py"}, invocation())
    assert (read["content"], read["truncated"]) == ("print('ї')\n", False)
    listed: Any = await devtools.fs_read(tool("fs_read"), {}, invocation())
    assert listed["files"] == [{"path": "src/a.py", "bytes": 12}]
    await devtools.fs_write(tool("fs_write"), {"path": "src/a.py", "content": None}, invocation())
    with pytest.raises(ToolFailed, match="there is no src"):
        await devtools.fs_read(tool("fs_read"), {"path": "src/a.py"}, invocation())


async def test_workspaces_are_apart(devtools: DevTools) -> None:
    await devtools.fs_write(tool("fs_write"), {"path": "mine", "content": "x"}, invocation(agent_id="agent:two"))
    for other in (
        invocation(agent_id="agent:two."),
        invocation("microdao:b", "agent:two"),
        invocation(agent_id="../agent:two"),
    ):
        listed: Any = await devtools.fs_read(tool("fs_read"), {}, other)
        assert listed["files"] == []


@pytest.mark.usefixtures("opening")
@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../../x", "a\0b", "x" * 600, "/".join("a" * 30)])
def test_a_path_that_leads_out_is_refused(own: Workspace, path: str) -> None:
    for attempt in (own.read, own.is_folder, own.remove, own.list_files, lambda path: own.write(path, b"x")):
        with pytest.raises(ToolFailed):
            attempt(path)


@pytest.mark.usefixtures("opening")
def test_links_are_not_followed(own: Workspace, folder: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    (folder / "file").symlink_to(outside / "secret")
    (folder / "dir").symlink_to(outside)
    (folder / "magic").symlink_to("/proc/self/root")
    (folder / "hard").hardlink_to(outside / "secret")
    for path in ("file", "dir/secret", "hard", "magic/etc/passwd"):
        with pytest.raises(ToolFailed):
            own.read(path)
    for path in ("dir/new", "magic/tmp/new"):
        with pytest.raises(ToolFailed):
            own.write(path, b"x")
        with pytest.raises(ToolFailed):
            own.remove(path)
    own.write("file", b"new")  # takes the link's place
    own.write("hard", b"new")
    assert (outside / "secret").read_text() == "secret"
    assert sorted(os.listdir(outside)) == ["secret"]
    assert {entry.path for entry in own.list_files()} == {"file", "hard", "seen.txt"}


@pytest.mark.usefixtures("opening")
def test_pipes_and_devices_do_not_block(own: Workspace, folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    with pytest.raises(ToolFailed):
        own.read("pipe")
    assert [entry.path for entry in own.list_files()] == ["seen.txt"]


@pytest.mark.usefixtures("opening")
def test_a_folder_swapped_for_a_link_leads_nowhere(own: Workspace, folder: Path, tmp_path: Path) -> None:
    """A race: another process swaps a folder for a link out while the tool reads and writes in it."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "name").write_text("secret")
    own.write("d/name", b"mine")
    (folder / "link").symlink_to(outside)
    done = False

    def swap() -> None:
        moves = [("d", "e"), ("link", "d"), ("d", "link"), ("e", "d")]
        while not done:
            for old, new in moves:
                with suppress(OSError):
                    os.rename(folder / old, folder / new)

    swapper = threading.Thread(target=swap)
    swapper.start()
    seen = set()
    for _ in range(500):
        with suppress(ToolFailed):
            seen.add(own.read("d/name"))
            own.write("d/name", b"mine")
    done = True
    swapper.join()
    assert seen <= {b"mine"}
    assert (outside / "name").read_text() == "secret"
    assert os.listdir(outside) == ["name"]


def test_caps(own: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ToolFailed, match="a file may have"):
        own.write("big", bytes(workspace.MAX_FILE_BYTES + 1))
    monkeypatch.setattr(workspace, "MAX_BYTES", 1_000)
    own.write("a", bytes(900))
    with pytest.raises(ToolFailed, match="1,000 bytes"):
        own.write("b", bytes(200))
    own.write("a", bytes(990))  # replaces: only what is there afterwards counts
    monkeypatch.setattr(workspace, "MAX_FILES", 2)
    with pytest.raises(ToolFailed, match="2 files"):
        own.write("b", b"")
    own.remove("a")
    own.write("b", b"")


async def test_concurrent_writers_do_not_pass_the_cap(own: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workspace, "MAX_BYTES", 10_000)
    writes = [asyncio.to_thread(own.write, f"f{number}", bytes(900)) for number in range(30)]
    done = await asyncio.gather(*writes, return_exceptions=True)
    assert sum(1 for result in done if result is None) == 11  # with the 4 bytes that are there
    assert sum(entry.bytes for entry in own.list_files()) <= 10_000


GOOD_AND_BAD = """import os, tempfile, unittest
import helper

class Tests(unittest.TestCase):
    def test_good(self):
        with tempfile.TemporaryDirectory() as folder:
            open(folder + "/x", "w").close()
        self.assertEqual(helper.double(2), 4)

    def test_bad(self):
        self.assertEqual(helper.double(2), 5)

    def test_reads_the_host(self):
        with self.assertRaises(OSError):
            open("/etc/hostname")

    def test_network(self):
        import socket
        with self.assertRaises(OSError):
            socket.create_connection(("127.0.0.1", 80), 1)

    def test_programs(self):
        with self.assertRaises(OSError):
            os.fork()

    def test_environment(self):
        self.assertFalse([name for name in os.environ if "SECRET" in name or "KEY" in name])

    @unittest.skip("no")
    def test_skipped(self):
        pass
"""


@pytest.mark.skipif(not is_supported(), reason="the jail needs Linux on x86-64 or arm64")
async def test_tests_run_on_a_copy_in_the_sandbox(devtools: DevTools) -> None:
    agent = invocation(agent_id="agent:tester")
    files = {
        "helper.py": "def double(n):\n    return 2 * n\n",
        "tests/test_all.py": GOOD_AND_BAD,
        "tests/test_broken.py": "import nothing_of_the_kind\n",
        "tests/test_plain.py": "def test_write(tmp_path):\n    (tmp_path / 'x').write_text('x')\n    open('y', 'w')\n",
    }
    for path, content in files.items():
        await devtools.fs_write(tool("fs_write"), {"path": path, "content": content}, agent)
    result: Any = await devtools.run_tests(tool("run_tests"), {}, agent)
    counts = {name: result[name] for name in ("passed", "failed", "errors", "skipped")}
    assert counts["errors"] == 1, result["output"]
    result = await devtools.run_tests(tool("run_tests"), {"path": "tests/test_all.py"}, agent)
    assert (result["passed"], result["failed"], result["skipped"]) == (5, 1, 1), result["output"]
    assert "4 != 5" in result["output"]
    result = await devtools.run_tests(tool("run_tests"), {"path": "tests/test_plain.py"}, agent)
    assert (result["passed"], result["failed"], result["errors"]) == (1, 0, 0), result["output"]
    listed: Any = await devtools.fs_read(tool("fs_read"), {}, agent)
    assert {file["path"] for file in listed["files"]} == set(files)


@pytest.mark.skipif(not is_supported(), reason="the jail needs Linux on x86-64 or arm64")
async def test_no_tests_are_no_success(devtools: DevTools) -> None:
    agent = invocation(agent_id="agent:idle")
    await devtools.fs_write(tool("fs_write"), {"path": "test_none.py", "content": "def check():\n    pass\n"}, agent)
    with pytest.raises(ToolFailed, match=r"no tests were found in test_none\.py"):
        await devtools.run_tests(tool("run_tests"), {"path": "test_none.py"}, agent)


async def test_endless_tests_are_ended(devtools: DevTools) -> None:
    agent = invocation(agent_id="agent:endless")
    content = "def test_endless():\n    while True:\n        pass\n"
    await devtools.fs_write(tool("fs_write"), {"path": "test_endless.py", "content": content}, agent)
    with pytest.raises(ToolFailed) as failure:
        await devtools.run_tests(tool("run_tests", timeout_ms=3_000), {}, agent)
    assert failure.value.code == "tool_timeout"


@pytest.mark.parametrize("path", [".", "./", "a/..", "/".join("abcdefghijk")])
async def test_what_names_no_file_of_the_workspace_is_refused(devtools, path):
    with pytest.raises(ToolFailed):
        await devtools.fs_write(tool("fs_write"), {"path": path, "content": "x"}, invocation())
