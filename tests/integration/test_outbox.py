"""Jobs are rows first: lost messages come again, doubled ones find nothing to do."""

import asyncio
import random
from collections.abc import Sequence

import pytest

from shared.cloud.outbox import Outbox, claim, enqueue
from shared.cloud.queue import Outgoing
from shared.db.database import Database, fetch_all
from shared.ids import new_id


class MemoryQueue:
    """A queue that keeps what it is sent and can be told to lose or refuse it."""

    def __init__(self) -> None:
        self.sent: list[Outgoing] = []
        self.refuse = 0
        self.down = False

    async def send(self, messages: Sequence[Outgoing]) -> set[str]:
        if self.down:
            raise ConnectionError("the queue is down")
        taken = messages[self.refuse :]
        self.refuse = 0
        self.sent.extend(taken)
        return {message.id for message in taken}


@pytest.fixture
def name() -> str:
    """A queue of this test's own: the database is shared."""
    return new_id("queue")


@pytest.fixture
def queue() -> MemoryQueue:
    return MemoryQueue()


@pytest.fixture
def outbox(database: Database, queue: MemoryQueue, name: str) -> Outbox:
    return Outbox(database, {name: queue}, inline=True)  # type: ignore[dict-item]


async def _enqueue(database: Database, microdao: str, name: str, count: int) -> list[str]:
    async with database.tenant(microdao) as connection:
        return [await enqueue(connection, microdao, name, {"n": number}) for number in range(count)]


async def test_committed_jobs_leave_once(
    database: Database, microdao: str, name: str, queue: MemoryQueue, outbox: Outbox
) -> None:
    jobs = await _enqueue(database, microdao, name, 25)
    await outbox.committed()
    await outbox.committed()
    assert sorted(message.id for message in queue.sent) == sorted(jobs)
    assert queue.sent[0].body["microdao_id"] == microdao
    assert queue.sent[0].body["job_id"] == queue.sent[0].id


async def test_a_rolled_back_job_never_leaves(
    database: Database, microdao: str, name: str, queue: MemoryQueue, outbox: Outbox
) -> None:
    async def fail_after_enqueue() -> None:
        async with database.tenant(microdao) as connection:
            await enqueue(connection, microdao, name, {})
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await fail_after_enqueue()
    await outbox.committed()
    assert queue.sent == []


async def test_what_the_queue_did_not_take_is_sent_later(
    database: Database, microdao: str, name: str, queue: MemoryQueue, outbox: Outbox
) -> None:
    jobs = await _enqueue(database, microdao, name, 5)
    queue.down = True
    await outbox.committed()
    queue.down, queue.refuse = False, 2
    await outbox.committed()
    assert len(queue.sent) == 3
    await outbox.committed()
    assert sorted(message.id for message in queue.sent) == sorted(jobs)


async def test_a_lost_message_is_sent_again_until_its_effect(
    database: Database, microdao: str, name: str, queue: MemoryQueue, outbox: Outbox
) -> None:
    (job,) = await _enqueue(database, microdao, name, 1)
    await outbox.committed()
    assert await outbox.sweep(name, older_than_s=60) == 0
    assert await outbox.sweep(name, older_than_s=0) == 1
    assert [message.id for message in queue.sent] == [job, job]
    async with database.tenant(microdao) as connection:
        assert await claim(connection, job)
    assert await outbox.sweep(name, older_than_s=0) == 0


async def test_each_sending_doubles_the_wait_for_the_next(
    database: Database, microdao: str, name: str, queue: MemoryQueue, outbox: Outbox
) -> None:
    (job,) = await _enqueue(database, microdao, name, 1)
    await outbox.committed()

    async def sweep_after(seconds: float, sends: int, older_than_s: float = 60) -> int:
        await database.run(
            "UPDATE outbox SET sent_at = now() - make_interval(secs => %s), sends = %s WHERE id = %s",
            (seconds, sends, job),
        )
        return await outbox.sweep(name, older_than_s=older_than_s)

    assert [await sweep_after(seconds, 1) for seconds in (59, 61)] == [0, 1]
    assert [await sweep_after(seconds, 3) for seconds in (61, 239, 241)] == [0, 0, 1]
    assert [await sweep_after(seconds, 500) for seconds in (3599, 3601)] == [0, 1]
    assert await sweep_after(1, 500, older_than_s=0) == 1


async def test_a_job_at_work_is_not_sent_again(
    database: Database, microdao: str, name: str, queue: MemoryQueue, outbox: Outbox
) -> None:
    (job,) = await _enqueue(database, microdao, name, 1)
    await outbox.committed()
    async with database.tenant(microdao) as connection, asyncio.timeout(5):
        assert await claim(connection, job)
        assert await outbox.sweep(name, older_than_s=0) == 0


async def test_jobs_of_simultaneous_calls_leave_in_one_batch(database: Database, microdao: str, name: str) -> None:
    class CountingQueue(MemoryQueue):
        batches = 0

        async def send(self, messages: Sequence[Outgoing]) -> set[str]:
            self.batches += 1
            return await super().send(messages)

    queue = CountingQueue()
    outbox = Outbox(database, {name: queue})  # type: ignore[dict-item]
    for _ in range(3):
        await _enqueue(database, microdao, name, 1)
    await outbox.committed()
    await asyncio.sleep(0)  # the relay is awake
    jobs = await _enqueue(database, microdao, name, 3)
    await outbox.committed()
    await outbox.close()
    assert len(queue.sent) == 3 + len(jobs)
    assert queue.batches <= 2


async def test_one_of_many_consumers_claims(database: Database, microdao: str, name: str) -> None:
    (job,) = await _enqueue(database, microdao, name, 1)

    async def consume(fails: bool) -> bool:
        async with database.tenant(microdao) as connection:
            won = await claim(connection, job)
            await asyncio.sleep(random.random() / 100)
            if won and fails:
                raise RuntimeError("died before commit")
            return won

    results = await asyncio.gather(*(consume(number < 3) for number in range(8)), return_exceptions=True)
    assert [one for one in results if one is True] == [True]
    async with database.system() as connection:
        assert await fetch_all(connection, "SELECT 1 FROM outbox WHERE id = %s", (job,)) == []


async def test_jobs_that_can_wait_are_gathered_and_leave_with_an_urgent_one(
    database: Database, microdao: str, name: str, queue: MemoryQueue
) -> None:
    relay = Outbox(database, {name: queue})  # type: ignore[dict-item]
    await _enqueue(database, microdao, name, 1)
    await relay.committed(within_s=60)
    await asyncio.sleep(0.1)
    assert queue.sent == []
    await _enqueue(database, microdao, name, 1)
    await relay.committed()
    for _ in range(500):
        if len(queue.sent) == 2:
            break
        await asyncio.sleep(0.02)
    assert len(queue.sent) == 2
    await _enqueue(database, microdao, name, 1)
    await relay.committed(within_s=60)
    await relay.close()
    assert len(queue.sent) == 3


async def test_who_has_nothing_to_send_leaves_no_task_behind(
    database: Database, microdao: str, name: str, queue: MemoryQueue
) -> None:
    relay = Outbox(database, {name: queue})  # type: ignore[dict-item]
    for _ in range(2):  # it begins anew
        await _enqueue(database, microdao, name, 1)
        await relay.committed()
        async with asyncio.timeout(10):
            await asyncio.gather(*(task for task in asyncio.all_tasks() if task.get_name() == "outbox-relay"))
    assert len(queue.sent) == 2
    await relay.close()
