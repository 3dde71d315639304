"""The sandboxes that this machine can run, for tests that are the same for each."""

import os
import shutil
import subprocess
from typing import Any

import pytest

from shared.settings import ROOT
from shared.tools.sandbox.bwrap import find_bwrap, open_bwrap_jail
from shared.tools.sandbox.jail_backend import Jail, JailOptions, python_command
from shared.tools.sandbox.monty import Monty
from shared.tools.sandbox.port import Limits, Program, SandboxBackend, SandboxResult

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
