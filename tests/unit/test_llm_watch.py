"""Many waits, one timer: each has its own bound, and a cancellation from elsewhere stays one."""

import asyncio

import pytest

from shared.llm.attempts.watch import Watch


async def test_waits_in_time_pass():
    with Watch() as watch:
        for bound in (5.0, 0.5, 9.0):
            assert await watch.wait(asyncio.sleep(0.001, "done"), bound) == "done"


async def test_no_time_is_no_fault_while_nothing_waits():
    with Watch() as watch:
        await watch.wait(asyncio.sleep(0), 0.01)
        await asyncio.sleep(0.03)
        assert await watch.wait(asyncio.sleep(0.001, "done"), 5.0) == "done"


@pytest.mark.parametrize("bounds", [[0.02], [9.0, 0.02], [0.2, 9.0, 0.02], [-1.0]])
async def test_a_wait_that_is_too_long(bounds):
    *before, last = bounds
    with Watch() as watch:
        for bound in before:
            await watch.wait(asyncio.sleep(0), bound)
        began = asyncio.get_running_loop().time()
        with pytest.raises(TimeoutError):
            await watch.wait(asyncio.sleep(9), last)
        assert asyncio.get_running_loop().time() - began < 5
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_the_bound_holds_from_the_wait_s_own_start():
    with Watch() as watch:
        await watch.wait(asyncio.sleep(0.03), 0.05)
        assert await watch.wait(asyncio.sleep(0.03, "done"), 5.0) == "done"


async def test_a_cancellation_from_elsewhere_stays_one():
    async def wait() -> None:
        with Watch() as watch:
            await watch.wait(asyncio.sleep(9), 5.0)

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
