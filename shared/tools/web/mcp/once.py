"""Doing a thing once for all who want it at the same time."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

V = TypeVar("V")


class Stopped(Exception):
    """The work was stopped before it was done."""


@dataclass(eq=False, slots=True)
class _Work(Generic[V]):
    task: asyncio.Task[V]
    waiting: int = 0


class Once(Generic[V]):
    """Work by key. It goes on while anybody waits for it, whoever began it, and is stopped when nobody does."""

    def __init__(self) -> None:
        self._works: dict[bytes, _Work[V]] = {}

    async def done(self, key: bytes, begin: Callable[[], Coroutine[Any, Any, V]]) -> V:
        """What the work under way for a key comes to; if there is none it is begun. Raises what it raises, Stopped."""
        work = self._works.get(key)
        if work is None:
            work = self._works[key] = _Work(asyncio.create_task(begin()))
            work.task.add_done_callback(_settled)
        work.waiting += 1
        try:
            await asyncio.wait({work.task})
        finally:
            work.waiting -= 1
            if not work.waiting:
                self._leave(key, work)
        if work.task.cancelled():
            raise Stopped
        return work.task.result()

    def stop(self) -> None:
        """Stop all work."""
        for work in list(self._works.values()):
            work.task.cancel()

    def _leave(self, key: bytes, work: _Work[V]) -> None:
        work.task.cancel()
        if self._works.get(key) is work:
            del self._works[key]


def _settled(task: asyncio.Task[Any]) -> None:
    """Look at how it ended, in case that nobody who waited is left to."""
    if not task.cancelled():
        task.exception()
