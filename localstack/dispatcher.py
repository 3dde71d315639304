"""What AWS does between a queue or a clock and a function: one poller for each event source mapping, one loop a schedule."""

import asyncio
from contextlib import suppress
from typing import Any

import aiohttp

from localstack.gateway import READY_PATH
from localstack.wiring import EventSourceMapping, Schedule, Wiring
from shared.cloud.aws import Aws
from shared.cloud.poller import Deliver, EventSource, Poller, http_deliver
from shared.observability import Log
from shared.settings import VARIABLES, Settings, current_settings

_log = Log("dispatcher")

_MAX_CONCURRENCY = 8  # of one mapping: a local engine is one process
_ENGINE_POLL_S = 0.05
_RETRY_S = 2.0


async def dispatch(wiring: Wiring, functions_url: str, stop: asyncio.Event) -> None:
    """Poll every queue and keep every schedule until ``stop``; waits for the engine first."""
    settings = current_settings()
    aws = Aws(settings.aws_region, settings.aws_endpoint_url)
    async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as tasks:
        await wait_for_engine(session, settings.aws_endpoint_url, stop)
        for mapping in wiring.event_sources:
            deliver = _deliver_to(session, wiring, mapping.function, functions_url)
            tasks.create_task(Poller(aws, _source(mapping, wiring, settings), deliver).run(stop))
        for schedule in wiring.schedules:
            deliver = _deliver_to(session, wiring, schedule.function, functions_url)
            tasks.create_task(keep_schedule(schedule, deliver, stop))


async def wait_for_engine(session: aiohttp.ClientSession, endpoint_url: str, stop: asyncio.Event) -> None:
    """Return when the engine says that it is ready (our own and LocalStack do) or answers at all (others)."""
    while not stop.is_set():
        with suppress(aiohttp.ClientError, TimeoutError):
            async with session.get(f"{endpoint_url}{READY_PATH}") as response:
                if response.status != 503:
                    return
        await _pause(stop, _ENGINE_POLL_S)


async def keep_schedule(schedule: Schedule, deliver: Deliver, stop: asyncio.Event) -> None:
    """Fire at once, so that work left by a crash is found, then at each interval; a failed call is repeated soon."""
    while not stop.is_set():
        wait_s: float = schedule.interval_s
        try:
            await deliver(schedule.payload)
        except Exception as error:
            _log.warning("schedule failed; trying again", function=schedule.function, error=type(error).__name__)
            wait_s = _RETRY_S
        await _pause(stop, wait_s)


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
