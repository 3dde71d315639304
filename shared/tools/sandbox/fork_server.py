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


@dataclass(frozen=True, slots=True)
class Call:
    """A call that was handed over. ``started`` brings the child's channel and output, unless it ends before."""

    id: str
    started: "asyncio.Future[tuple[socket.socket, socket.socket]]"
    ended: "asyncio.Future[Ended]"


class ForkServer:
    """A process that forks children for us. It gets no environment, no descriptors of ours and no secrets."""

    def __init__(self) -> None:
        self.landlock_abi = 0
        self.calls_started = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._running: dict[str, Call] = {}

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

    def run(self, limits: dict[str, Any]) -> Call:
        """Have a child for one call. Raises SandboxUnavailable when the fork server is gone."""
        loop = asyncio.get_running_loop()
        call = Call(new_id("call"), loop.create_future(), loop.create_future())
        self._send({"run": call.id, "limits": limits})
        self.calls_started += 1
        self._running[call.id] = call
        return call

    def kill(self, call_id: str) -> None:
        """End a call now; harmless when it has ended."""
        if self.is_alive and call_id in self._running:
            with suppress(SandboxUnavailable):
                self._send({"kill": call_id})

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

    def _send(self, message: dict[str, Any]) -> None:
        if self._control is None:
            raise SandboxUnavailable("the fork server is gone")
        try:
            self._control.send(json.dumps(message).encode())
        except OSError as error:
            self._disconnect()
            raise SandboxUnavailable("the fork server is gone") from error

    def _receive(self) -> None:
        if self._control is None:
            return
        try:
            data, descriptors, _, _ = socket.recv_fds(self._control, _MAX_MESSAGE, 2)
        except BlockingIOError:
            return
        except OSError:
            data, descriptors = b"", []
        if not data:
            self._disconnect()
            return
        message = json.loads(data)
        if "started" in message:
            self._hand_over(message["started"], [socket.socket(fileno=one) for one in descriptors])
        elif call := self._running.pop(message.pop("ended"), None):
            _settle(call, Ended(**message))

    def _hand_over(self, call_id: str, ends: list[socket.socket]) -> None:
        call = self._running.get(call_id)
        if call is not None and not call.started.done():
            channel, output = ends
            call.started.set_result((channel, output))
            return
        for one in ends:
            one.close()

    def _disconnect(self) -> None:
        """Let go of it. It ends when it hears that; its children die with it."""
        control, self._control = self._control, None
        if control is not None:
            asyncio.get_running_loop().remove_reader(control)
            control.close()
        for call in self._running.values():
            _settle(call, Ended(signal.SIGKILL, None, 0, None))
        self._running.clear()


def _settle(call: Call, how: Ended) -> None:
    if not call.ended.done():
        call.ended.set_result(how)


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
