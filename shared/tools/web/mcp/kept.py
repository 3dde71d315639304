"""Sessions kept from call to call: one for each microDAO, URL and set of credentials."""

import asyncio
import contextvars
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from shared.tools.web.client import Progress, lost
from shared.tools.web.errors import NothingSent
from shared.tools.web.mcp.once import Once, Stopped
from shared.tools.web.mcp.session import RemoteServer, Session

_CLOSE_WITHIN_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many sessions are kept in a process, and for how long. What was not used for longest makes room."""

    most: int = 256
    most_of_a_microdao: int = 32
    age_s: float = 3_600.0
    unused_s: float = 600.0
    sweep_every_s: float = 60.0


@dataclass(eq=False, slots=True)
class _Kept:
    session: Session
    key: bytes
    negotiated_at: float
    used_at: float
    users: int = 0
    is_dropped: bool = False
    is_over: bool = False


@dataclass(frozen=True, slots=True)
class Held:
    """A session for one conversation. ``is_new``: it was negotiated while the caller waited."""

    session: Session
    is_new: bool


class KeptSessions:
    """Of one process. ``negotiate`` raises ToolFailed; ``end`` tells a server, raises nothing and is brief."""

    def __init__(
        self,
        negotiate: Callable[[RemoteServer], Coroutine[Any, Any, Session]],
        end: Callable[[Session], Coroutine[Any, Any, None]],
        bounds: Bounds | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._negotiate = negotiate
        self._end = end
        self._bounds = bounds or Bounds()
        self._clock = clock
        self._kept: dict[bytes, _Kept] = {}  # what was not used for longest comes first
        self._negotiations = Once[_Kept]()
        self._endings: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None

    @asynccontextmanager
    async def held(self, server: RemoteServer, deadline: float) -> AsyncIterator[Held]:
        """The session with a server, negotiated by ``deadline`` (of the loop's clock) if there is none.

        Raises ToolFailed when there is none to be had; nothing was called then.
        """
        self._drop_old()
        key = server.fingerprint()
        kept, is_new = self._kept.pop(key, None), False
        if kept is None:
            kept, is_new = await self._negotiated(server, key, deadline), True
        else:
            self._kept[key] = kept
        kept.users += 1
        try:
            yield Held(kept.session, is_new)
        finally:
            kept.users -= 1
            kept.used_at = self._clock()
            self._end_unused(kept)

    def drop(self, session: Session, *, is_over: bool) -> None:
        """Give a session to nobody any more, and end it once nobody uses it, unless its server says that it is over."""
        kept = self._kept.get(session.server.fingerprint())
        if kept is not None and kept.session is session:
            kept.is_over = is_over
            self._drop(kept)

    async def close(self) -> None:
        """End every session, whoever uses it, as far as that goes in a moment."""
        if self._timer is not None:
            self._timer.cancel()
        self._negotiations.stop()
        for kept in list(self._kept.values()):
            kept.users = 0
            self._drop(kept)
        if self._endings:
            await asyncio.wait(self._endings, timeout=_CLOSE_WITHIN_S)

    async def _negotiated(self, server: RemoteServer, key: bytes, deadline: float) -> _Kept:
        try:
            async with asyncio.timeout_at(deadline):
                return await self._negotiations.done(key, lambda: self._keep(server, key))
        except TimeoutError:
            raise lost(server.place, Progress(), "did not answer in time", "tool_timeout") from None
        except Stopped:
            raise NothingSent("this process is being stopped; nothing was sent") from None

    async def _keep(self, server: RemoteServer, key: bytes) -> _Kept:
        session = await self._negotiate(server)
        if key in self._kept:  # of a negotiation that was to be stopped and had just ended
            self._drop(self._kept[key])
        self._make_room(server.microdao_id)
        now = self._clock()
        kept = self._kept[key] = _Kept(session, key, negotiated_at=now, used_at=now)
        self._sweep_later()
        return kept

    def _make_room(self, microdao_id: str) -> None:
        """A microDAO with many servers loses its own sessions first."""
        own = [kept for kept in self._kept.values() if kept.session.server.microdao_id == microdao_id]
        if len(own) >= self._bounds.most_of_a_microdao:
            self._drop(own[0])
        elif len(self._kept) >= self._bounds.most:
            self._drop(next(iter(self._kept.values())))

    def _drop_old(self) -> None:
        now = self._clock()
        for kept in list(self._kept.values()):
            is_unused = not kept.users and now - kept.used_at > self._bounds.unused_s
            if is_unused or now - kept.negotiated_at > self._bounds.age_s:
                self._drop(kept)

    def _drop(self, kept: _Kept) -> None:
        del self._kept[kept.key]
        kept.is_dropped = True
        self._end_unused(kept)

    def _end_unused(self, kept: _Kept) -> None:
        if not kept.is_dropped or kept.users > 0 or kept.is_over:
            return
        kept.is_over = True
        if kept.session.id:
            ending = asyncio.create_task(self._end(kept.session))
            self._endings.add(ending)
            ending.add_done_callback(self._endings.discard)

    def _sweep_later(self) -> None:
        if self._timer is None:
            # In no caller's context: it would outlive the caller, whose secrets it knows to redact them.
            loop, every_s = asyncio.get_running_loop(), self._bounds.sweep_every_s
            self._timer = loop.call_later(every_s, self._sweep, context=contextvars.Context())

    def _sweep(self) -> None:
        self._timer = None
        self._drop_old()
        if self._kept:
            self._sweep_later()
