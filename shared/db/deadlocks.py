"""Doing again what Postgres broke off: two that wait for each other's rows are parted by failing one of them."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from shared.db.database import Deadlock
from shared.observability import Log

_WAITS_S = (0.02, 0.1, 0.5)
"""The longest waits before another try; each is random, so that those who met do not meet again."""

_log = Log("db")
Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def repeated_after_deadlocks(
    work: Callable[Parameters, Awaitable[Result]],
) -> Callable[Parameters, Coroutine[Any, Any, Result]]:
    """Let ``work`` be done up to three times more while a deadlock ends it. Raises Deadlock when that is not enough.

    For work whose effects are all in the transaction that is rolled back then.
    """

    @wraps(work)
    async def persistent(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        for longest in _WAITS_S:
            with suppress(Deadlock):
                return await work(*args, **kwargs)
            _log.warning("done again after a deadlock", work=work.__qualname__)
            await asyncio.sleep(random.uniform(0, longest))  # noqa: S311
        return await work(*args, **kwargs)

    return persistent
