"""What an agent is shown of its memory in a conversation: what it may read, and what was said in the channel."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import httpx
import pytest

from shared.clock import utc_now
from shared.db.database import Database, fetch_all
from shared.memory.channels import Message
from shared.memory.model import Grantee, ScopeRef
from shared.settings import Settings
from tests.fakes.openai_server import FakeOpenAI
from tests.integration.api_server import Api, running_agents
from tests.memories import AGENT, new

BOB, CHANNEL = "agent:bob", "channel-1"
CHANNEL_HEADING, MEMORIES_HEADING = "Said lately in this channel:", "Relevant memories:"


@pytest.fixture
async def fake() -> AsyncIterator[FakeOpenAI]:
    async with FakeOpenAI() as server:
        yield server


@pytest.fixture
async def api(settings: Settings, fake: FakeOpenAI, microdao: str, database: Database) -> AsyncIterator[Api]:
    async with database.tenant(microdao) as connection:
        await connection.execute("INSERT INTO agent VALUES (%s, %s, 'Bob', 'sofia')", (microdao, BOB))
    async with running_agents(settings, fake.base_url, microdao) as running:
        yield running


async def shown(api: Api, fake: FakeOpenAI, said: str, **metadata: Any) -> dict[str, list[str]]:
    """The quoted sections of the agent's prompt when it answers this."""
    body = {"model": "sofia", "messages": [{"role": "user", "content": said}], "metadata": metadata}
    async with httpx.AsyncClient(base_url=api.url, headers={"authorization": f"Bearer {api.key}"}) as client:
        answer = await client.post("/v1/chat/completions", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    sections: dict[str, list[str]] = {MEMORIES_HEADING: [], CHANNEL_HEADING: []}
    lines = fake.requests[-1].body["messages"][0]["content"].splitlines()
    for heading, quoted in sections.items():
        if heading in lines:
            for line in lines[lines.index(heading) + 1 :]:
                if not line.startswith("- "):
                    break
                quoted.append(line[2:])
    return sections


async def post(api: Api, microdao: str, *messages: Message, agent: str = AGENT, channel: str = CHANNEL) -> list[str]:
    return await api.services.memory.channels.post(microdao, agent, channel, messages)


def message(text: str, minutes_ago: int, author: str | None = "ann") -> Message:
    return Message(text=text, author=author, occurred_at=utc_now() - timedelta(minutes=minutes_ago))


async def test_the_newest_messages_of_the_channel_are_shown_in_order(api, fake, microdao):
    await post(api, microdao, message("first things first", 3), message("line\n\none", 2, None), message("and last", 1))
    await post(api, microdao, message("elsewhere", 1), channel="channel-2")
    assert (await shown(api, fake, "hm?", channel_id=CHANNEL))[CHANNEL_HEADING] == [
        "ann: first things first",
        "line one",
        "ann: and last",
    ]
    assert (await shown(api, fake, "hm?"))[CHANNEL_HEADING] == []
    assert (await shown(api, fake, "hm?", channel_id="channel-3"))[CHANNEL_HEADING] == []


async def test_the_channel_has_a_budget_and_long_messages_are_cut(api, fake, microdao):
    await post(api, microdao, *(message(f"{number} {'word ' * 400}", 60 - number) for number in range(20)))
    lines = (await shown(api, fake, "hm?", channel_id=CHANNEL))[CHANNEL_HEADING]
    assert 4 <= len(lines) <= 10
    assert lines[-1].startswith("ann: 19 ")
    assert sum(map(len, lines)) < 6 * 1000
    assert {len(line) for line in lines} <= {599, 600}


async def test_what_is_quoted_from_the_channel_is_not_a_memory_twice(api, fake, microdao):
    (item,) = await post(api, microdao, message("the zeppelin leaves at noon", 1))
    sections = await shown(api, fake, "the zeppelin leaves at noon", channel_id=CHANNEL)
    assert sections == {MEMORIES_HEADING: [], CHANNEL_HEADING: ["ann: the zeppelin leaves at noon"]}
    assert item.startswith("mem_")


async def test_what_was_said_is_not_stored_again(api, fake, microdao, database):
    await post(api, microdao, message("the zeppelin leaves at noon", 1))
    await shown(api, fake, "so when?", channel_id=CHANNEL)
    async with database.tenant(microdao) as connection:
        rows = await fetch_all(connection, "SELECT text, source FROM memory_item ORDER BY number")
    assert [row["source"] for row in rows] == ["channel", "session"]
    assert "zeppelin" not in rows[1]["text"]


async def test_an_agent_is_shown_what_it_may_read_and_no_more(api, fake, microdao):
    memory = api.services.memory
    text = "The zeppelin leaves at noon."
    await memory.store(new(microdao, text, agent_id=BOB))
    await post(api, microdao, message("Bob heard this", 1), agent=BOB)

    async def sections() -> dict[str, list[str]]:
        return await shown(api, fake, text, channel_id=CHANNEL)

    assert text not in (await sections())[MEMORIES_HEADING]
    grant = await memory.sharing.share(microdao, Grantee("agent", BOB), Grantee("agent", AGENT), "read")
    seen = await sections()
    assert (text in seen[MEMORIES_HEADING], seen[CHANNEL_HEADING]) == (True, ["ann: Bob heard this"])
    await memory.sharing.revoke(microdao, grant["id"])
    seen = await sections()
    assert (text in seen[MEMORIES_HEADING], seen[CHANNEL_HEADING]) == (False, [])
    everyones = new(microdao, text, scope=ScopeRef("microdao", microdao), by_admin=True)
    await memory.store(everyones)
    assert text in (await sections())[MEMORIES_HEADING]
