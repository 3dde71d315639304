"""The ``jail`` backend: a fork server whose children confine themselves before they read the program."""

import asyncio
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from signal import Signals
from typing import Any

from shared.settings import ROOT
from shared.tools.sandbox.conversation import Answer, Conversation
from shared.tools.sandbox.fork_server import Call, Ended, ForkServer
from shared.tools.sandbox.jail.preloaded import PRELOADED
from shared.tools.sandbox.port import MB, HostCall, KilledBy, Limits, Program, SandboxResult, SandboxUnavailable

_STARTER = (
    "import sys; sys.path.append(sys.argv[1]); from shared.tools.sandbox.jail.zygote import main; main(sys.argv[2])"
)
_GRACE_S = 2.0
_EXIT_S = 0.02
_KILLERS: tuple[KilledBy, ...] = ("wall", "cpu", "disk", "files", "threads")
_WORKDIR = re.compile(r"/[^\s'\":]*/daarion-jail\.\w+/\w+")


@dataclass(frozen=True, slots=True, kw_only=True)
class JailOptions:
    """How a jail differs from another. ``modules`` may hold entry points; ``path`` is where they are imported from."""

    modules: tuple[str, ...] = ()
    path: tuple[str, ...] = ()
    readable: tuple[str, ...] = ()
    with_landlock: bool = True
    recycle_after: int = 1_000
    max_parallel: int = 8


def python_command() -> list[str]:
    """An interpreter without site-packages and environment that starts a fork server."""
    return [os.path.realpath(sys.executable), "-I", "-S", "-X", "utf8", "-c", _STARTER, str(ROOT)]


class Jail:
    """Keeps one fork server, started with the first run, replaced when it dies or has served its number of calls."""

    def __init__(
        self, options: JailOptions | None = None, *, name: str = "jail", command: Sequence[str] | None = None
    ) -> None:
        self.name = name
        self._options = options or JailOptions()
        self._command = command or python_command()
        self._server: ForkServer | None = None
        self._retired: list[ForkServer] = []
        self._starting = asyncio.Lock()
        self._slots = asyncio.Semaphore(self._options.max_parallel)

    async def run(
        self, program: Program, args: Any, limits: Limits, host_call: HostCall | None = None
    ) -> SandboxResult:
        """Run a program; the wait for a free place counts as its time. Raises SandboxUnavailable."""
        self._check(program)
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            async with asyncio.timeout(limits.wall_s):
                await self._slots.acquire()
        except TimeoutError:
            return SandboxResult(status="killed", killed_by="wall", ms=_ms(started))
        try:
            server = await self._live_server()
            limits = replace(limits, wall_s=max(0.0, limits.wall_s - (loop.time() - started)))
            result = await _run_in(server, _request(program, args, limits), limits, host_call)
            return replace(result, ms=_ms(started))
        finally:
            self._slots.release()
            await self._close_retired()

    async def close(self) -> None:
        """End its fork servers and whatever runs in them."""
        servers = [*self._retired, *([self._server] if self._server else [])]
        self._server, self._retired = None, []
        for server in servers:
            await server.close()

    async def _close_retired(self) -> None:
        idle = [server for server in self._retired if server.is_idle]
        self._retired = [server for server in self._retired if server not in idle]
        for server in idle:
            await server.close()

    def _check(self, program: Program) -> None:
        module = program.entrypoint.partition(":")[0]
        if program.entrypoint and module not in self._options.modules:
            raise SandboxUnavailable(
                f"the entry point {program.entrypoint!r} is not in a module that this installation lets tools use"
            )

    async def _live_server(self) -> ForkServer:
        async with self._starting:
            server = self._server
            if server is not None and server.is_alive and server.calls_started < self._options.recycle_after:
                return server
            if server is not None:
                self._retired.append(server)
            self._server, server = None, ForkServer()
            await server.start(self._command, self._config())
            self._server = server
            return server

    def _config(self) -> dict[str, Any]:
        options = self._options
        return {
            "preload": PRELOADED,
            "modules": options.modules,
            "path": options.path,
            "readable": options.readable,
            "landlock": options.with_landlock,
        }


async def _run_in(
    server: ForkServer, request: dict[str, Any], limits: Limits, host_call: HostCall | None
) -> SandboxResult:
    call = server.run(_call_limits(limits))
    try:
        first: set[asyncio.Future[Any]] = {call.started, call.ended}
        await asyncio.wait(first, timeout=limits.wall_s + _GRACE_S, return_when=asyncio.FIRST_COMPLETED)
        if not call.started.done():
            return _result(None, await _gone(server, call, 0.0), "", False, limits)
        return await _attend(server, call, request, limits, host_call)
    finally:
        server.kill(call.id)
        await _gone(server, call, _GRACE_S)
        if call.started.done():
            for one in call.started.result():
                one.close()


async def _attend(
    server: ForkServer, call: Call, request: dict[str, Any], limits: Limits, host_call: HostCall | None
) -> SandboxResult:
    """Serve a running child until it answers or ends."""
    channel, output = call.started.result()
    reader, writer = await asyncio.open_unix_connection(sock=channel)
    printed, printed_writer = await asyncio.open_unix_connection(sock=output)
    conversation = Conversation(reader, writer, limits.result_bytes, host_call)
    talk = asyncio.create_task(conversation.hold(request))
    listen = asyncio.create_task(_collect(printed, limits.output_bytes, lambda: server.kill(call.id)))
    try:
        ends: set[asyncio.Future[Any]] = {talk, call.ended}
        await asyncio.wait(ends, timeout=limits.wall_s + _GRACE_S, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait({call.ended}, timeout=_EXIT_S if talk.done() else 0.0)  # it ends by itself, as a rule
        server.kill(call.id)
        report = await _gone(server, call, _GRACE_S)
        answer = None if conversation.is_serving else await talk
        stdout, is_over = await listen
        return _result(answer, report, stdout, is_over, limits)
    finally:
        for task in (talk, listen):
            task.cancel()
        for stream in (writer, printed_writer):
            stream.close()


async def _gone(server: ForkServer, call: Call, within_s: float) -> Ended:
    """How the child ended. A fork server that does not say so in time is ended itself, and its children with it."""
    await asyncio.wait({call.ended}, timeout=within_s)
    if not call.ended.done():
        server.abandon()
    return await call.ended


async def _collect(reader: asyncio.StreamReader, limit: int, on_over: Any) -> tuple[str, bool]:
    """What was printed, up to the limit, and whether there was more."""
    kept = bytearray()
    while part := await _read_some(reader):
        kept += part[: limit - len(kept) + 1]
        if len(kept) > limit:
            on_over()
            return kept[:limit].decode(errors="replace"), True
    return kept.decode(errors="replace"), False


async def _read_some(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read(65_536)
    except OSError:
        return b""


def _request(program: Program, args: Any, limits: Limits) -> dict[str, Any]:
    return {
        "code": program.code,
        "entrypoint": program.entrypoint,
        "args": args,
        "result_bytes": limits.result_bytes,
    }


def _call_limits(limits: Limits) -> dict[str, Any]:
    return {
        "wall_s": limits.wall_s,
        "cpu_s": limits.cpu_s,
        "memory_bytes": limits.memory_mb * MB,
        "workdir_bytes": limits.workdir_bytes,
        "files": limits.files,
        "threads": limits.threads,
    }


def _result(answer: Answer | None, report: Ended, stdout: str, is_over: bool, limits: Limits) -> SandboxResult:
    stdout = scrub(stdout)
    if killer := _killer(answer, report, is_over):
        return SandboxResult(status="killed", killed_by=killer, stdout=stdout)
    frame = answer.frame if answer else {}
    if "value" in frame:
        return SandboxResult(status="ok", value=frame["value"], stdout=stdout)
    if "broken" in frame:
        raise SandboxUnavailable(f"the jail could not be made: {str(frame['broken'])[:300]}")
    if isinstance(frame.get("error"), dict):
        return _raised(frame["error"], stdout, limits)
    cause = f"signal {Signals(report.signal).name}" if report.signal else f"exit code {report.exit}"
    return SandboxResult(status="crashed", stdout=stdout, error=f"the program ended without an answer ({cause})")


def _killer(answer: Answer | None, report: Ended, is_over: bool) -> KilledBy | None:
    if is_over:
        return "output"
    return (answer.over if answer else None) or next((by for by in _KILLERS if by == report.by), None)


def _raised(error: dict[str, Any], stdout: str, limits: Limits) -> SandboxResult:
    """The program's exception, in words that name no path of this machine."""
    kind, message, line = (error.get(name) for name in ("type", "message", "line"))
    if kind == "MemoryError":
        text = f"MemoryError: more than {limits.memory_mb} MB"
        return SandboxResult(status="killed", killed_by="memory", stdout=stdout, error=text)
    where = f" (line {line})" if isinstance(line, int) else ""
    text = scrub(f"{str(kind)[:100]}: {str(message)[:2_000]}{where}")
    return SandboxResult(status="error", stdout=stdout, error=text)


def scrub(text: str) -> str:
    """The text without the places where things lie on this machine."""
    text = _WORKDIR.sub("<workdir>", text)
    for folder, name in (
        (os.path.dirname(os.__file__), "<python>"),
        (sys.base_prefix, "<python>"),
        (str(ROOT), "<app>"),
    ):
        text = text.replace(folder, name) if len(folder) > len("/usr") else text
    return text


def _ms(started: float) -> int:
    return round((asyncio.get_running_loop().time() - started) * 1000)
