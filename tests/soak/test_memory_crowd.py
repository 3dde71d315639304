"""A crowd that changes one agent's memory in every way at once: whoever stands in another's way is done again."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta

import pytest

from localstack.postgres import EmbeddedPostgres
from shared.clock import utc_now
from shared.db.database import Database
from shared.errors import Conflict, NotFound, Unavailable
from shared.memory.channels import Message
from shared.memory.documents.documents import NewDocument
from shared.memory.memory import Memory
from shared.memory.model import Filters, MemoryChange, ScopeRef
from tests.embeddings import add_tenant, own_database, simple_memory
from tests.memories import AGENT, ask, kept, new, queued

TENANT = "microdao:crowd"
USERS = ("olena", "petro")
CROWD, STEPS = 8, 100


class Member:
    """One of the crowd: random changes of a few memories that all have in common."""

    def __init__(self, memory: Memory, database: Database, seed: int) -> None:
        self.memory = memory
        self.database = database
        self.chance = random.Random(seed)
        self.outcomes: Counter[str] = Counter()

    async def work(self) -> None:
        often = [self.store, self.post, self.add, self.forget, self.change, self.index, self.ask]
        for _ in range(STEPS):
            step = self.chance.choice(3 * often + [self.delete, self.clear, self.forget_user, self.sweep, self.restore])
            self.outcomes[await outcome(step)] += 1

    async def store(self) -> None:
        user = self.chance.choice((None, None, *USERS))
        scope = ScopeRef("user", user) if user else None
        ends = self.chance.choice((None, None, utc_now() + timedelta(milliseconds=50)))
        await self.memory.store(new(TENANT, f"fact {self.chance.randrange(20)}", scope=scope, expires_at=ends))

    async def post(self) -> None:
        numbers = self.chance.sample(range(20), 5)
        said = [Message(id=str(number), text=f"message {number}") for number in numbers]
        await self.memory.channels.post(TENANT, AGENT, "general", said)

    async def add(self) -> None:
        text = "\n\n".join(f"paragraph {number} {'word ' * 150}" for number in range(self.chance.randrange(1, 4)))
        data = text.encode()
        await self.memory.documents.add(
            NewDocument(microdao_id=TENANT, agent_id=AGENT, data=data, media_type="text/plain", title="crowded")
        )

    async def delete(self) -> None:
        for found in await self.memory.documents.list_page(TENANT, AGENT, "", 1):
            await self.memory.documents.delete(TENANT, AGENT, found["id"])

    async def forget(self) -> None:
        if ids := await kept(self.database, TENANT):
            await self.memory.forget(TENANT, AGENT, self.chance.choice(sorted(ids)))

    async def clear(self) -> None:
        filters = self.chance.choice((Filters(channel_id="general"), Filters(documents_only=True)))
        await self.memory.forget_matching(TENANT, AGENT, filters)

    async def forget_user(self) -> None:
        await self.memory.users.forget(TENANT, AGENT, self.chance.choice(USERS))

    async def change(self) -> None:
        if ids := await kept(self.database, TENANT):
            content = {"text": f"fact {self.chance.randrange(20)}"}
            await self.memory.items.change(
                MemoryChange(
                    microdao_id=TENANT, agent_id=AGENT, item_id=self.chance.choice(sorted(ids)), content=content
                )
            )

    async def index(self) -> None:
        await self.memory.index(self.chance.sample(jobs := await queued(self.database, TENANT), min(9, len(jobs))))

    async def ask(self) -> None:
        await self.memory.query(ask(TENANT, f"fact {self.chance.randrange(20)}", user_id=self.chance.choice(USERS)))

    async def sweep(self) -> None:
        await self.memory.sweep()

    async def restore(self) -> None:
        saved = await self.memory.snapshots.save(TENANT, AGENT, "crowded")
        mode = self.chance.choice(("merge", "replace"))
        await self.memory.snapshots.restore(TENANT, saved["id"], AGENT, mode)
        await self.memory.snapshots.delete(TENANT, saved["id"])


async def outcome(step: Callable[[], Awaitable[None]]) -> str:
    """What came of it: what somebody else has just forgotten may be missed; nothing else may go wrong."""
    try:
        await step()
    except (Conflict, NotFound) as error:
        return error.code
    except Unavailable as error:
        return f"{step.__name__}: {error}"
    return "done"


@pytest.fixture
async def database(postgres: EmbeddedPostgres) -> AsyncIterator[Database]:
    async with own_database(postgres) as database:
        await add_tenant(database, TENANT, AGENT)
        yield database


@pytest.fixture
async def memory(database: Database) -> AsyncIterator[Memory]:
    async with simple_memory(database) as memory:
        yield memory


@pytest.mark.parametrize("seed", range(2))
async def test_nobody_is_turned_away(memory: Memory, database: Database, seed: int):
    crowd = [Member(memory, database, CROWD * seed + number) for number in range(CROWD)]
    async with asyncio.TaskGroup() as group:
        for member in crowd:
            group.create_task(member.work())
    outcomes = sum((member.outcomes for member in crowd), Counter())
    assert outcomes.keys() <= {"done", "not_found", "conflict"}
    assert outcomes["done"] > CROWD * STEPS / 2
