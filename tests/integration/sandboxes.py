"""The sandboxes that this machine can run, for tests that are the same for each."""

import asyncio
import os
import shutil
import subprocess
import time
from typing import Any

import psutil
import pytest

from shared.settings import ROOT
from shared.tools.sandbox.bwrap import find_bwrap, open_bwrap_jail
from shared.tools.sandbox.jail_backend import Jail, JailOptions, python_command
from shared.tools.sandbox.monty import Monty
from shared.tools.sandbox.port import Limits, Program, SandboxBackend, SandboxResult
from tests.attacks.model import processes_with

JAILS = ["jail", "jail of a plain user", "jail without Landlock", "bwrap+jail"]
BACKENDS = [*JAILS, "monty"]
ZYGOTE = f"main(sys.argv[2])\0{ROOT}\0"
"""In the command line of every process of a jail of this checkout."""


def open_backend(name: str, **options: Any) -> SandboxBackend:
    """The backend; skips the test where this machine cannot run it."""
    if name == "monty":
        pytest.importorskip("pydantic_monty")
        return Monty()
    if name == "jail":
        return Jail(JailOptions(**options))
    if name == "jail of a plain user":
        return _plain_jail(JailOptions(**options))
    if name == "jail without Landlock":
        return Jail(JailOptions(with_landlock=False, **options), name=name)
    bwrap = find_bwrap()
    if bwrap is None:
        pytest.skip("bubblewrap is not installed")
    return open_bwrap_jail(bwrap, JailOptions(**options))


def _plain_jail(options: JailOptions) -> Jail:
    """A jail whose fork server has no rights, as on Lambda; with an interpreter that every user may read."""
    if os.geteuid() != 0:
        pytest.skip("the tests run as a plain user: this is what the backend jail is here")
    setpriv, python = shutil.which("setpriv"), "/usr/bin/python3"
    version = "import sys; sys.exit(sys.version_info < (3, 11))"
    if setpriv is None or not os.path.exists(python) or subprocess.run([python, "-c", version]).returncode:
        pytest.skip("setpriv or an interpreter of the system, 3.11 at least, is not installed")
    as_nobody = [setpriv, "--reuid=65534", "--regid=65534", "--clear-groups"]
    return Jail(options, name="jail of a plain user", command=[*as_nobody, python, *python_command()[1:]])


async def run(sandbox: SandboxBackend, code: str, args: Any = None, **limits: Any) -> SandboxResult:
    """Run code with 5 s unless told."""
    return await sandbox.run(Program(code=code), args, Limits(**{"wall_s": 5.0, **limits}))


async def assert_well(sandbox: SandboxBackend) -> None:
    """The sandbox still works."""
    result = await run(sandbox, "def run(args):\n    return args + 1", 41)
    assert (result.status, result.value) == ("ok", 42)


async def at_rest() -> list[int]:
    """The processes of our fork servers once each has one child, in stock, and no other; fails unless that comes."""
    end = time.monotonic() + 5.0
    while (found := _fork_servers()) is None:
        assert time.monotonic() < end, "a process outlived its call"
        await asyncio.sleep(0.01)
    return found


def _fork_servers() -> list[int] | None:
    """None unless each has one child, which is its fork, and that no child."""
    alive = {pid: process for pid in processes_with(ZYGOTE) if (process := _described(pid))}
    leaves = set(alive) - {parent for parent, _ in alive.values()}
    parents = [alive[leaf][0] for leaf in leaves]
    forked = all(alive.get(alive[leaf][0], (0, []))[1] == alive[leaf][1] for leaf in leaves)
    return sorted(set(alive) - leaves) if forked and len(parents) == len(set(parents)) else None


def _described(pid: int) -> tuple[int, list[str]] | None:
    """Its parent and its command line; None when it is gone."""
    try:
        process = psutil.Process(pid)
        return process.ppid(), process.cmdline()
    except psutil.NoSuchProcess:
        return None
