"""The turns of this process: each shows that it lives while it runs, and a process that stops waits for their books."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from shared.agents.sessions import Session, Sessions
from shared.observability import Log

HEARTBEAT_S = 20.0
"""Well under the time after which a silent session may be taken over."""
_CLOSE_WITHIN_S = 2.0

_Result = TypeVar("_Result")
_log = Log("agents")


class Turns:
    """Keeps turns alive and knows which are under way."""

    def __init__(self, sessions: Sessions, heartbeat_s: float) -> None:
        self._sessions = sessions
        self._heartbeat_s = heartbeat_s
        self._under_way: set[asyncio.Future[Any]] = set()

    @asynccontextmanager
    async def alive(self, session: Session) -> AsyncIterator[None]:
        """A turn: until the end of the block its session is renewed, and ``close`` waits for it."""
        ended = self._track(asyncio.get_running_loop().create_future())
        beating = self._track(asyncio.create_task(self._beat(session), name="agents-heartbeat"))
        try:
            yield
        finally:
            beating.cancel()
            ended.set_result(None)

    async def finish(self, bookkeeping: Coroutine[Any, Any, _Result]) -> _Result:
        """Wait for work that goes on even if the caller does not: a client that left cancels its turn."""
        return await asyncio.shield(self._track(asyncio.create_task(bookkeeping, name="agents-finish")))

    async def close(self) -> None:
        """Wait a little for the turns under way: what was said and spent must still be written."""
        try:
            async with asyncio.timeout(_CLOSE_WITHIN_S):
                while self._under_way:  # a turn that ends may leave its bookkeeping
                    await asyncio.wait(self._under_way)
        except TimeoutError:
            _log.warning("turns were cut off by the end of the process", parts=len(self._under_way))

    async def _beat(self, session: Session) -> None:
        while True:
            await asyncio.sleep(self._heartbeat_s)
            try:
                if not await self._sessions.keep_alive(session):
                    return  # another request has the session; the turn is told when it next writes
            except Exception:
                _log.exception("a session could not be renewed", session_id=session.id)

    def _track(self, future: "asyncio.Future[_Result]") -> "asyncio.Future[_Result]":
        self._under_way.add(future)
        future.add_done_callback(self._under_way.discard)
        return future
