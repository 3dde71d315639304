"""The host's side of one fork server: starts it, hands it calls, hears how they ended, and notices its death."""

import asyncio
import json
import signal
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from shared.ids import new_id
from shared.tools.sandbox.port import SandboxUnavailable

_START_WITHIN_S = 20.0
_STOP_WITHIN_S = 2.0
_MAX_MESSAGE = 65_536


@dataclass(frozen=True, slots=True)
class Ended:
    """How a child ended: by a signal or with an exit code, and which limit made the fork server end it."""

    signal: int | None
    exit: int | None
    cpu_ms: int
    by: str | None


class ForkServer:
    """A process that forks children for us. It gets no environment, no descriptors of ours and no secrets."""

    def __init__(self) -> None:
        self.landlock_abi = 0
        self.calls_started = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._running: dict[str, asyncio.Future[Ended]] = {}

    @property
    def is_alive(self) -> bool:
        """Whether calls can be handed to it."""
        return self._control is not None

    @property
    def is_idle(self) -> bool:
        """Whether no call runs in it."""
        return not self._running

    async def start(self, command: Sequence[str], config: dict[str, Any]) -> None:
        """Start it and wait until it is ready. ``command`` takes the configuration as its last argument.

        Raises SandboxUnavailable with what it said.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        with theirs, tempfile.TemporaryFile() as said:
            arguments = json.dumps({**config, "control": theirs.fileno()})
            try:
                self._process = subprocess.Popen(  # noqa: S603, ASYNC220 - execs at once; its parent must be this thread
                    [*command, arguments],
                    pass_fds=[theirs.fileno()],
                    env={},
                    cwd="/",
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=said,
                    start_new_session=True,
                )
            except OSError as error:
                ours.close()
                raise SandboxUnavailable(f"{command[0]}: {error.strerror}") from error
            theirs.close()
            self._control = ours
            try:
                self.landlock_abi = await _await_ready(ours)
            except SandboxUnavailable as error:
                await self.close()
                said.seek(0)
                raise SandboxUnavailable(_with_last_line(error, said.read())) from error
            except BaseException:  # the caller goes away; the process must not stay
                await self.close()
                raise
        asyncio.get_running_loop().add_reader(ours, self._receive)

    def run(
        self, limits: dict[str, Any], channel: socket.socket, output: socket.socket
    ) -> "tuple[str, asyncio.Future[Ended]]":
        """Fork a child that speaks over ``channel`` and prints to ``output``: its id, and how it will have ended.

        Raises SandboxUnavailable when the fork server is gone.
        """
        call_id = new_id("call")
        message = json.dumps({"run": call_id, "limits": limits}).encode()
        self._send(message, [channel.fileno(), output.fileno()])
        self.calls_started += 1
        ended = self._running[call_id] = asyncio.get_running_loop().create_future()
        return call_id, ended

    def kill(self, call_id: str) -> None:
        """End a call now; harmless when it has ended."""
        if self.is_alive and call_id in self._running:
            with suppress(SandboxUnavailable):
                self._send(json.dumps({"kill": call_id}).encode(), [])

    def abandon(self) -> None:
        """End it at once; its children die with it. ``close`` still has to wait for it."""
        if self._process is not None:
            self._process.kill()
        self._disconnect()

    async def close(self) -> None:
        """End its calls and itself, and wait until it is gone."""
        self._disconnect()
        process, self._process = self._process, None
        if process is not None:
            await asyncio.to_thread(_wait_or_kill, process)

    def _send(self, message: bytes, descriptors: list[int]) -> None:
        if self._control is None:
            raise SandboxUnavailable("the fork server is gone")
        try:
            socket.send_fds(self._control, [message], descriptors)
        except OSError as error:
            self._disconnect()
            raise SandboxUnavailable("the fork server is gone") from error

    def _receive(self) -> None:
        if self._control is None:
            return
        try:
            data = self._control.recv(_MAX_MESSAGE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._disconnect()
            return
        message = json.loads(data)
        future = self._running.pop(message.pop("ended"), None)
        if future is not None and not future.done():
            future.set_result(Ended(**message))

    def _disconnect(self) -> None:
        """Let go of it. It ends when it hears that; its children die with it."""
        control, self._control = self._control, None
        if control is not None:
            asyncio.get_running_loop().remove_reader(control)
            control.close()
        for future in self._running.values():
            if not future.done():
                future.set_result(Ended(signal.SIGKILL, None, 0, None))
        self._running.clear()


async def _await_ready(control: socket.socket) -> int:
    """The version of Landlock that children will be under. Raises SandboxUnavailable."""
    try:
        async with asyncio.timeout(_START_WITHIN_S):
            data = await asyncio.get_running_loop().sock_recv(control, _MAX_MESSAGE)
    except (TimeoutError, OSError) as error:
        raise SandboxUnavailable("the fork server did not start") from error
    message = json.loads(data) if data else {"failed": "the fork server ended at once"}
    if "failed" in message:
        raise SandboxUnavailable(message["failed"])
    return int(message["ready"])


def _wait_or_kill(process: "subprocess.Popen[bytes]") -> None:
    try:
        process.wait(_STOP_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _with_last_line(error: Exception, said: bytes) -> str:
    lines = said.decode(errors="replace").strip().splitlines()
    return f"{error}: {lines[-1][:300]}" if lines else str(error)
