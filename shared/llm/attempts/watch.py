"""A bound for each of many waits in a row, with one timer for all of them.

``asyncio.timeout`` makes and cancels a timer every time, which for the pieces of a stream was a twentieth of its cost.
"""

import asyncio
from collections.abc import Awaitable
from types import TracebackType
from typing import Self, TypeVar

_T = TypeVar("_T")


class Watch:
    """A context manager for the time of all the waits."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[object] | None = None  # while it waits
        self._until = 0.0
        self._is_over = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()

    async def wait(self, awaitable: Awaitable[_T], seconds: float) -> _T:
        """Await it. Raises TimeoutError when it takes longer; it was cancelled then."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine that runs has a task
        others = task.cancelling()
        self._begin(task, seconds)
        try:
            return await awaitable
        except asyncio.CancelledError:
            if self._is_over and task.uncancel() <= others:
                raise TimeoutError from None
            raise
        finally:
            self._task = None

    def _begin(self, task: "asyncio.Task[object]", seconds: float) -> None:
        self._task, self._until = task, self._loop.time() + seconds
        if self._timer is not None and self._timer.when() > self._until:
            self._timer.cancel()
            self._timer = None
        if self._timer is None:
            self._timer = self._loop.call_at(self._until, self._look)

    def _look(self) -> None:
        """The timer of an earlier wait may go off in a later one, or between two."""
        self._timer = None
        if self._task is None:
            return
        if self._loop.time() < self._until:
            self._timer = self._loop.call_at(self._until, self._look)
        else:
            self._is_over = True
            self._task.cancel()
