"""The sandboxes that this machine can run, for tests that are the same for each."""

from typing import Any

import pytest

from shared.tools.sandbox.bwrap import find_bwrap, open_bwrap_jail
from shared.tools.sandbox.jail_backend import Jail, JailOptions
from shared.tools.sandbox.monty import Monty
from shared.tools.sandbox.port import Limits, Program, SandboxBackend, SandboxResult

JAILS = ["jail", "jail without Landlock", "bwrap+jail"]
BACKENDS = [*JAILS, "monty"]
ZYGOTE = "shared.tools.sandbox.jail.zygote"
"""In the command line of every process of a jail."""


def open_backend(name: str, **options: Any) -> SandboxBackend:
    """The backend; skips the test where this machine cannot run it."""
    if name == "monty":
        pytest.importorskip("pydantic_monty")
        return Monty()
    if name == "jail":
        return Jail(JailOptions(**options))
    if name == "jail without Landlock":
        return Jail(JailOptions(with_landlock=False, **options), name=name)
    bwrap = find_bwrap()
    if bwrap is None:
        pytest.skip("bubblewrap is not installed")
    return open_bwrap_jail(bwrap, JailOptions(**options))


async def run(sandbox: SandboxBackend, code: str, args: Any = None, **limits: Any) -> SandboxResult:
    """Run code with 5 s unless told."""
    return await sandbox.run(Program(code=code), args, Limits(**{"wall_s": 5.0, **limits}))


async def assert_well(sandbox: SandboxBackend) -> None:
    """The sandbox still works."""
    result = await run(sandbox, "def run(args):\n    return args + 1", 41)
    assert (result.status, result.value) == ("ok", 42)
