"""The line before a provider: never more inside than allowed, first come first served, nobody lost."""

import asyncio

import pytest

from shared.errors import Overloaded
from shared.llm.attempts.capacity import Capacity
from shared.llm.routing.models import ProviderLimits

TWO = ProviderLimits(max_concurrency=2, max_queue=3, queue_timeout_s=5)
ONE = ProviderLimits(max_concurrency=1, max_queue=50, queue_timeout_s=5)


async def line_up(capacity: Capacity, limits: ProviderLimits, count: int) -> list[asyncio.Task]:
    tasks = [asyncio.create_task(capacity.enter("openai", limits, 60)) for _ in range(count)]
    await asyncio.sleep(0)
    return tasks


async def test_no_limits_no_line():
    capacity = Capacity()
    for _ in range(100):
        await capacity.enter("openai", None, 60)


async def test_places_pass_on_in_order():
    capacity = Capacity()
    leave_first, leave_second = [await capacity.enter("openai", TWO, 60) for _ in range(2)]
    waiting = await line_up(capacity, TWO, 3)
    with pytest.raises(Overloaded) as caught:
        await capacity.enter("openai", TWO, 60)
    assert caught.value.headers["retry-after"] == "1"
    await capacity.enter("deepseek", TWO, 60)
    for leave, task in zip((leave_first, leave_second), waiting, strict=False):
        leave()
        await asyncio.wait_for(task, 1)
    assert not waiting[2].done()
    waiting[0].result()()
    await asyncio.wait_for(waiting[2], 1)


@pytest.mark.parametrize("patience_s", [0.01, -1.0])
async def test_no_turn_in_time(patience_s):
    capacity = Capacity()
    leave = await capacity.enter("openai", ONE, 60)
    with pytest.raises(Overloaded):
        await capacity.enter("openai", ONE, patience_s)
    leave()
    await asyncio.wait_for(capacity.enter("openai", ONE, 60), 1)


async def test_one_who_goes_away_keeps_no_place():
    capacity = Capacity()
    leave = await capacity.enter("openai", ONE, 60)
    first, second, third = await line_up(capacity, ONE, 3)
    second.cancel()
    leave()  # the first in line gets the place, and is cancelled before it can take it
    first.cancel()
    await asyncio.gather(first, second, return_exceptions=True)
    assert first.cancelled()
    leave_third = await asyncio.wait_for(third, 1)
    leave_third()
    await asyncio.wait_for(capacity.enter("openai", ONE, 60), 1)


async def test_a_line_of_many_never_holds_more_inside_than_allowed():
    capacity, inside, most = Capacity(), 0, 0

    async def visit() -> None:
        nonlocal inside, most
        leave = await capacity.enter("openai", ProviderLimits(max_concurrency=3, max_queue=100), 60)
        inside += 1
        most = max(most, inside)
        await asyncio.sleep(0)
        inside -= 1
        leave()

    await asyncio.gather(*(visit() for _ in range(90)))
    assert (inside, most) == (0, 3)


async def test_a_raised_limit_lets_more_in():
    capacity = Capacity()
    leave = await capacity.enter("openai", ONE, 60)
    waiting = await line_up(capacity, ProviderLimits(max_concurrency=1), 2)
    leave()
    await asyncio.wait_for(waiting[0], 1)
    await asyncio.sleep(0)
    assert not waiting[1].done()
    waiting[0].result()()
    await asyncio.wait_for(waiting[1], 1)
