"""What AWS does between a queue or a clock and a function: a poller a mapping, a loop a schedule."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import aiohttp

from localstack.gateway import IDENTITY_HEADER, READY_PATH
from localstack.wiring import EventSourceMapping, Schedule, Wiring
from shared.cloud.aws import Aws
from shared.cloud.poller import Deliver, EventSource, Poller, http_deliver
from shared.observability import Log
from shared.settings import VARIABLES, Settings, current_settings

_log = Log("dispatcher")

_MAX_CONCURRENCY = 8  # of one mapping: a local engine is one process
_ENGINE_POLL_S = 0.05
_RETRY_S = 2.0
_TICK_S = 1.0


class EngineWatch:
    """Knows which engine is up. Ours forgets its messages when it starts and has a new identity; others have none."""

    def __init__(self, session: aiohttp.ClientSession, endpoint_url: str) -> None:
        self._session = session
        self._url = f"{endpoint_url}{READY_PATH}"
        self.identity: str | None = None

    async def until_ready(self, stop: asyncio.Event) -> None:
        """Return when the engine answers (ours and LocalStack say 503 until they are ready)."""
        while not stop.is_set() and not await self._look():
            await _pause(stop, _ENGINE_POLL_S)

    async def run(self, stop: asyncio.Event) -> None:
        """Notice a restart of the engine within a second or so."""
        while not stop.is_set():
            await self._look()
            await _pause(stop, _TICK_S)

    def differs_from(self, identity: str | None) -> bool:
        """Whether another engine is up now."""
        return self.identity != identity

    async def _look(self) -> bool:
        try:
            async with self._session.get(self._url) as response:
                if response.status == 503:
                    return False
                self.identity = response.headers.get(IDENTITY_HEADER)
                return True
        except (aiohttp.ClientError, TimeoutError):
            return False


async def dispatch(wiring: Wiring, functions_url: str, stop: asyncio.Event) -> None:
    """Poll every queue and keep every schedule until ``stop``; waits for the engine first."""
    settings = current_settings()
    aws = Aws(settings.aws_region, settings.aws_endpoint_url)
    async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as tasks:
        engine = EngineWatch(session, settings.aws_endpoint_url)
        await engine.until_ready(stop)
        tasks.create_task(engine.run(stop))
        for mapping in wiring.event_sources:
            deliver = _deliver_to(session, wiring, mapping.function, functions_url)
            tasks.create_task(Poller(aws, _source(mapping, wiring, settings), deliver).run(stop))
        for schedule in wiring.schedules:
            deliver = _deliver_to(session, wiring, schedule.function, functions_url)
            tasks.create_task(keep_schedule(schedule, deliver, engine, stop))


async def keep_schedule(schedule: Schedule, deliver: Deliver, engine: EngineWatch, stop: asyncio.Event) -> None:
    """Fire at once, then at each interval, and when the engine is a new one; a failed call is repeated soon.

    With a new engine the payload says ``"lost_queue": true``: whatever was queued must be queued again now.
    """
    known: str | None = None
    while not stop.is_set():
        identity = engine.identity
        payload = {**schedule.payload, "lost_queue": True} if engine.differs_from(known) else schedule.payload
        if await _fire(schedule, payload, deliver):
            known = identity
            await _pause_until(schedule.interval_s, stop, partial(engine.differs_from, known))
        else:
            await _pause(stop, _RETRY_S)


async def _fire(schedule: Schedule, payload: dict[str, Any], deliver: Deliver) -> bool:
    try:
        await deliver(payload)
    except Exception as error:
        _log.warning("schedule failed; trying again", function=schedule.function, error=type(error).__name__)
        return False
    return True


def _deliver_to(session: aiohttp.ClientSession, wiring: Wiring, name: str, functions_url: str) -> Deliver:
    function = wiring.function(name)
    deliver = http_deliver(session, f"{functions_url}/{function.folder}")

    async def within_timeout(event: dict[str, Any]) -> object:
        async with asyncio.timeout(function.timeout_s):
            return await deliver(event)

    return within_timeout


def _source(mapping: EventSourceMapping, wiring: Wiring, settings: Settings) -> EventSource:
    variable = next(variable for variable, resource in wiring.variables.items() if resource == mapping.queue)
    setting = next(setting for setting, known in VARIABLES.items() if known == variable)
    return EventSource(
        queue_url=getattr(settings, setting),
        batch_size=mapping.batch_size,
        concurrency=min(mapping.concurrency, _MAX_CONCURRENCY),
    )


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)


async def _pause_until(seconds: float, stop: asyncio.Event, is_due: Callable[[], bool]) -> None:
    """Pause, but look every second whether something has become due before."""
    deadline = time.monotonic() + seconds
    while not stop.is_set() and not is_due() and (left := deadline - time.monotonic()) > 0:
        await _pause(stop, min(left, _TICK_S))
