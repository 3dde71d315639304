"""Which sandbox this machine can give: each is tried on a program that attacks it, and the strongest that held is used.

It fails closed: where none holds, no program runs.
"""

import asyncio
import os
import sysconfig
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from shared.observability import Log
from shared.tools.sandbox.bwrap import find_bwrap, open_bwrap_jail
from shared.tools.sandbox.jail.confine import is_supported
from shared.tools.sandbox.jail.landlock import landlock_abi
from shared.tools.sandbox.jail_backend import Jail, JailOptions, scrub
from shared.tools.sandbox.port import HostCall, Limits, Program, SandboxBackend, SandboxResult, SandboxUnavailable

_TRIAL_S = 10.0
_TRIAL = """
import os, socket

ESCAPES = {
    "files": lambda args: open(args["secret"]).read(),
    "network": lambda args: socket.socket(),
    "processes": lambda args: os.fork(),
    "programs": lambda args: os.execv("/bin/true", ["true"]),
    "signals": lambda args: os.kill(os.getppid(), 0),
}

def run(args):
    held = []
    for name, attempt in ESCAPES.items():
        try:
            attempt(args)
        except (OSError, MemoryError):
            held.append(name)
    return {"held": held, "secrets": sorted(os.environ)}
"""
_MUST_HOLD = {"held": ["files", "network", "processes", "programs", "signals"], "secrets": []}

_log = Log("sandbox")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A backend that may be tried, strongest first."""

    name: str
    open: Callable[[], SandboxBackend]


@dataclass(frozen=True, slots=True)
class Choice:
    """What was found: the backend, if any, and why each stronger one was passed over."""

    backend: SandboxBackend | None
    refused: dict[str, str]


def with_modules(names: str) -> JailOptions:
    """Options whose tools may have entry points in the installed modules ``names``, parted by commas."""
    modules = tuple(name.strip() for name in names.split(",") if name.strip())
    packages = (sysconfig.get_path("purelib"),) if modules else ()
    return JailOptions(modules=modules, path=packages, readable=packages)


def candidates(options: JailOptions | None = None) -> list[Candidate]:
    """What this machine may have, strongest first."""
    if not is_supported():
        return []
    jail = Candidate("jail", lambda: Jail(options))
    bwrap = find_bwrap()
    return [Candidate("bwrap+jail", lambda: open_bwrap_jail(bwrap, options)), jail] if bwrap else [jail]


class ProbedSandbox:
    """A backend that finds out with its first use what this machine can give."""

    def __init__(self, tried: Sequence[Candidate] | None = None) -> None:
        self._candidates = candidates() if tried is None else list(tried)
        self._choice: Choice | None = None
        self._choosing = asyncio.Lock()

    @property
    def name(self) -> str:
        """Of the backend in use; ``none`` where none holds or none was needed yet."""
        return self._choice.backend.name if self._choice and self._choice.backend else "none"

    async def run(
        self, program: Program, args: Any, limits: Limits, host_call: HostCall | None = None
    ) -> SandboxResult:
        """Run a program in the strongest sandbox that holds. Raises SandboxUnavailable."""
        started = asyncio.get_running_loop().time()
        choice = await self.choose()
        if choice.backend is None:
            raise SandboxUnavailable(f"this machine has no sandbox that holds ({_reasons(choice)})")
        waited_s = asyncio.get_running_loop().time() - started
        limits = replace(limits, wall_s=max(0.0, limits.wall_s - waited_s))
        return await choice.backend.run(program, args, limits, host_call)

    async def choose(self) -> Choice:
        """What this machine can give; found out once."""
        async with self._choosing:
            if self._choice is None:
                self._choice = await _strongest(self._candidates)
                _log.info("sandbox chosen", backend=self.name, refused=self._choice.refused)
            return self._choice

    async def describe(self) -> dict[str, Any]:
        """For ``/readyz``: the backend's name, and what was passed over and why."""
        choice = await self.choose()
        abi = landlock_abi() if is_supported() else 0
        refused = {name: scrub(reason) for name, reason in choice.refused.items()}
        return {"backend": self.name, "landlock_abi": abi, "refused": refused}

    async def close(self) -> None:
        """End the backend's processes."""
        choice, self._choice = self._choice, None
        if choice is not None and choice.backend is not None:
            await choice.backend.close()


async def _strongest(tried: Sequence[Candidate]) -> Choice:
    refused: dict[str, str] = {}
    for candidate in tried:
        backend = candidate.open()
        fault = await _fault_of(backend)
        if fault is None:
            return Choice(backend, refused)
        refused[candidate.name] = fault
        await backend.close()
    return Choice(None, refused)


async def _fault_of(backend: SandboxBackend) -> str | None:
    """What the backend let through, or why it does not run at all; None when it held."""
    with tempfile.NamedTemporaryFile(mode="w", prefix="daarion-trial.") as secret:
        secret.write("not for tools")
        secret.flush()
        os.chmod(secret.name, 0o644)  # nothing but the sandbox may stand before it
        try:
            result = await backend.run(Program(code=_TRIAL), {"secret": secret.name}, Limits(wall_s=_TRIAL_S))
        except SandboxUnavailable as error:
            return str(error)
    if result.status != "ok":
        return f"the trial {result.status}: {result.error or result.killed_by}"
    return None if result.value == _MUST_HOLD else f"the trial got past it: {result.value}"


def _reasons(choice: Choice) -> str:
    return (
        "; ".join(f"{name}: {reason}" for name, reason in choice.refused.items()) or "it needs Linux on x86-64 or arm64"
    )
