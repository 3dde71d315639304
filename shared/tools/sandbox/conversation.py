"""What host and program say to each other during one run. All that comes from the program is untrusted."""

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

from shared.tools.sandbox.jail.frames import HEADER_BYTES
from shared.tools.sandbox.port import MB, HostCall, HostCallRefused, KilledBy

_MAX_CALLS = 1_000
_FRAME_OVERHEAD = 4_096
_MAX_CALL_BYTES = 2 * MB
_NO_HOST_CALLS = {"refused": "this tool may not reach the network"}


@dataclass(frozen=True, slots=True)
class Answer:
    """The program's last word: its value or its error; ``over`` names the limit that it passed instead."""

    frame: dict[str, Any] = field(default_factory=dict)
    over: KilledBy | None = None


class Conversation:
    """Sends the request, serves what the program asks of the host, and returns its answer."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        result_bytes: int,
        host_call: HostCall | None,
    ) -> None:
        self.is_serving = False
        self._reader = reader
        self._writer = writer
        self._max_answer_bytes = result_bytes + _FRAME_OVERHEAD
        self._host_call = host_call

    async def hold(self, request: dict[str, Any]) -> Answer | None:
        """The program's answer, or None when it ended without one."""
        try:
            await self._send(request)
            return await self._listen()
        except _TooLarge:
            return Answer(over="result")
        except (asyncio.IncompleteReadError, OSError, ValueError, RecursionError):
            return None

    async def _listen(self) -> Answer:
        for _ in range(_MAX_CALLS):
            size, frame = await self._receive()
            if "call" not in frame:
                if size > self._max_answer_bytes:
                    raise _TooLarge
                return Answer(frame)
            await self._send(await self._serve(frame))
        raise _TooLarge

    async def _serve(self, frame: dict[str, Any]) -> dict[str, Any]:
        name, asked = frame["call"], frame.get("with")
        if self._host_call is None:
            return _NO_HOST_CALLS
        if not isinstance(name, str) or not isinstance(asked, dict):
            return {"refused": "this is no call that the host knows"}
        self.is_serving = True
        try:
            return {"result": await self._host_call(name, asked)}
        except HostCallRefused as error:
            return {"refused": str(error)}
        finally:
            self.is_serving = False

    async def _send(self, body: dict[str, Any]) -> None:
        data = json.dumps(body, allow_nan=False, separators=(",", ":")).encode()
        self._writer.write(len(data).to_bytes(HEADER_BYTES, "big") + data)
        await self._writer.drain()

    async def _receive(self) -> tuple[int, dict[str, Any]]:
        size = int.from_bytes(await self._reader.readexactly(HEADER_BYTES), "big")
        if size > max(self._max_answer_bytes, _MAX_CALL_BYTES if self._host_call else 0):
            raise _TooLarge
        frame = json.loads(await self._reader.readexactly(size))
        if not isinstance(frame, dict):
            raise ValueError("a frame must be an object")
        return size, frame


class _TooLarge(Exception):
    """More than the result may have, or more calls than a run may make."""
