"""The port behind which tools of unknown authors run."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

SandboxStatus = Literal["ok", "error", "killed", "crashed"]
KilledBy = Literal["wall", "cpu", "memory", "output", "result", "disk", "files", "threads"]

HostCall = Callable[[str, dict[str, Any]], Awaitable[Any]]
"""Does on the host what the program asks for by name, and answers JSON. Raises HostCallRefused for the program."""

MB = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one run may use. Past any of them it is ended; nothing is cut short and returned as if whole."""

    wall_s: float = 10.0
    cpu_s: float = 10.0
    memory_mb: int = 256
    output_bytes: int = 64_000
    result_bytes: int = MB
    workdir_bytes: int = 16 * MB
    files: int = 256
    threads: int = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What to run: ``code`` that defines ``run(args)``, or the ``entrypoint`` ``package.module:function``."""

    code: str = ""
    entrypoint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxResult:
    """How a run went: ``error`` when the program raised, ``killed`` by a limit, ``crashed`` when it gave no answer.

    ``value`` is JSON; ``stdout`` is what it printed, standard error too; ``error`` is its exception's type and message.
    """

    status: SandboxStatus
    value: Any = None
    stdout: str = ""
    ms: int = 0
    killed_by: KilledBy | None = None
    error: str = ""


class HostCallRefused(Exception):
    """The host will not do what the program asked; the message is for the program."""


class SandboxUnavailable(Exception):
    """Nothing on this machine can run such a program safely, or not this one. The message says why."""


class SandboxBackend(Protocol):
    """Runs programs that nobody vouches for. Belongs to the event loop that first used it."""

    @property
    def name(self) -> str:
        """What operators call it."""

    async def run(
        self, program: Program, args: Any, limits: Limits, host_call: HostCall | None = None
    ) -> SandboxResult:
        """Run a program; when this returns or raises, its process is gone and its folder too.

        Raises SandboxUnavailable.
        """

    async def close(self) -> None:
        """End whatever runs and the processes kept for later runs."""
