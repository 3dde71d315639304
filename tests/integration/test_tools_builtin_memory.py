"""Tools that need memory or a model: documents, an agent's own memory, summaries of channels."""

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from shared.bootstrap import Services
from shared.clock import utc_now
from shared.db.database import Database, fetch_all
from shared.errors import InvalidArgs
from shared.memory.channels import Message
from shared.memory.documents.documents import NewDocument
from shared.memory.model import ScopeRef
from shared.policy.principal import agent_principal
from shared.settings import Settings
from shared.tools.builtin import OUTER_BUILTINS
from shared.tools.builtin.outer import open_outer_builtins
from shared.tools.model import ToolCallRequest, ToolOutcome
from tests.fakes.openai_server import FakeOpenAI, Reply
from tests.memories import index_all

SOFIA, BORYS = "agent:sofia", "agent:borys"
Call = Callable[..., Awaitable[ToolOutcome]]
SAID = [
    ("Olena", "The fair in Lviv begins in March and we need a stand."),
    ("Ihor", "A stand at the fair in Lviv costs three thousand euros."),
    ("Olena", "Then I book the stand at the fair today."),
]


@pytest.fixture(scope="module")
async def services(settings: Settings, models: Path) -> AsyncIterator[Services]:
    services = Services(settings)
    yield services
    await services.close()


@pytest.fixture
async def openai() -> AsyncIterator[FakeOpenAI]:
    async with FakeOpenAI() as fake:
        yield fake


@pytest.fixture
async def with_model(settings: Settings, models: Path, openai: FakeOpenAI) -> AsyncIterator[Services]:
    """Services that know a real model, and agents whose blueprint says ``smart``."""
    kept = {"database_url": settings.database_url, "home": settings.home, "secret_key": settings.secret_key}
    services = Services(
        Settings(**kept, local_llm_base_url="none", openai_api_key="sk-fake", openai_base_url=openai.base_url)
    )
    yield services
    await services.close()


async def caller(services: Services, microdao: str, agent_id: str = SOFIA) -> Call:
    await services.toolbox.seed(microdao, agent_id)

    async def call(tool: str, *, confidential: bool = False, **args: Any) -> ToolOutcome:
        request = ToolCallRequest(microdao, agent_id, tool, args, agent_id, confidential=confidential)
        return await services.toolbox.execute(agent_principal(agent_id, microdao), request)

    return call


@pytest.fixture
async def call(services: Services, microdao: str) -> Call:
    return await caller(services, microdao)


async def add_borys(database: Database, microdao: str) -> None:
    async with database.tenant(microdao) as connection:
        await connection.execute(
            "INSERT INTO agent (microdao_id, agent_id, name, blueprint_code) VALUES (%s, %s, 'Borys', 'borys')",
            (microdao, BORYS),
        )


async def talk(services: Services, microdao: str, *, channel: str = "general", days_ago: float = 0) -> None:
    begin = utc_now() - timedelta(days=days_ago, minutes=10)
    messages = [
        Message(text=text, author=author, occurred_at=begin + timedelta(minutes=number))
        for number, (author, text) in enumerate(SAID)
    ]
    await services.memory.channels.post(microdao, SOFIA, channel, messages)


def test_every_outer_function_is_made(services: Services):
    made = open_outer_builtins(services.database, lambda: services.memory, lambda: services.gateway, no_model)
    assert sorted(made) == sorted(OUTER_BUILTINS)


async def no_model(microdao_id: str, agent_id: str) -> None:
    return None


async def test_search_docs_finds_what_was_uploaded_beside_the_help_pages(
    services: Services, database: Database, microdao: str, call: Call
):
    handbook = b"# Bakery handbook\n\nThe sourdough rests for eighteen hours at twelve degrees before it is baked."
    document = await services.memory.documents.add(
        NewDocument(microdao_id=microdao, agent_id=SOFIA, data=handbook, media_type="text/markdown", source="wiki/1")
    )
    await call("memory.store", text="The sourdough of my grandmother rested in the cellar.")
    await index_all(services.memory, database, microdao)
    found = (await call("search_docs", query="how long does the sourdough rest")).result["results"]
    assert found[0]["id"] == document["id"]
    assert (found[0]["title"], found[0]["source"]) == ("Bakery handbook", "wiki/1")
    assert "eighteen hours" in found[0]["snippet"]
    assert {"the", "sourdough"} <= set(found[0]["matched"])
    assert not [one for one in found if "grandmother" in one["snippet"]], "a memory is no document"
    scores = [one["score"] for one in found]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)
    pages = (await call("search_docs", query="What is a microDAO?", k=1)).result["results"]
    assert [page["title"] for page in pages] == ["What a microDAO is"]


async def test_documents_of_another_agent_are_not_found_but_shared_ones_are(
    services: Services, database: Database, microdao: str, call: Call
):
    await add_borys(database, microdao)
    await call("document.create", title="Secret recipe", text="Cardamom goes into the buns, forty grams of it.")
    for_all = NewDocument(
        microdao_id=microdao,
        agent_id=SOFIA,
        data=b"Opening hours of the bakery: from seven to noon.",
        media_type="text/plain",
        scope=ScopeRef("microdao", microdao),
        by_admin=True,
    )
    await services.memory.documents.add(for_all)
    borys = await caller(services, microdao, BORYS)
    recipes = (await borys("search_docs", query="cardamom buns")).result["results"]
    assert not [one for one in recipes if "Cardamom" in one["snippet"]]
    hours = (await borys("search_docs", query="opening hours of the bakery")).result["results"]
    assert "from seven to noon" in hours[0]["snippet"]


async def test_the_same_text_is_one_document(call: Call):
    first = await call("create_document", title="Notes", text="Water the plants on Fridays.", source="chat")
    again = await call("document.create", title="Notes", text="Water the plants on Fridays.")
    assert first.result == again.result
    assert (first.result["title"], first.result["passages"]) == ("Notes", 1)
    found = (await call("search_docs", query="when are plants watered")).result["results"]
    assert (found[0]["id"], found[0]["source"]) == (first.result["id"], "chat")


async def test_an_agent_keeps_and_finds_its_own_memories(
    services: Services, database: Database, microdao: str, call: Call
):
    await add_borys(database, microdao)
    kept = await call("remember", text=" Olena drinks green tea. ", importance=0.9)
    assert (await call("memory.store", text="Olena drinks green tea.")).result == kept.result
    await call("memory.store", text="Ihor drives the van this month.", tier="mid_term")
    await index_all(services.memory, database, microdao)
    found = (await call("search_memory", query="what does Olena drink", k=1)).result["memories"]
    assert {**found[0], "score": 0, "occurred_at": ""} == {
        **{"id": kept.result["id"], "text": "Olena drinks green tea.", "tier": "long_term", "of": "agent"},
        **{"score": 0, "occurred_at": ""},
    }
    van = (await call("memory.search", query="van", tier="mid_term")).result["memories"]
    assert [one["text"] for one in van] == ["Ihor drives the van this month."]
    borys = await caller(services, microdao, BORYS)
    assert (await borys("memory.search", query="what does Olena drink")).result == {"memories": []}


@pytest.mark.parametrize(
    ("tool", "args"),
    [
        ("memory.store", {"text": " "}),
        ("memory.store", {"text": "x", "importance": 2}),
        ("memory.store", {"text": "x", "tier": "short_term"}),
        ("memory.search", {"query": "x", "k": 0}),
        ("document.create", {"title": "x"}),
        ("summarize_channel", {"channel": "general", "period": "a week"}),
        ("summarize_channel", {"channel": "general", "length": "endless"}),
    ],
)
async def test_arguments_that_do_not_fit(call: Call, tool: str, args: dict[str, Any]):
    with pytest.raises(InvalidArgs):
        await call(tool, **args)


async def test_without_a_model_a_channel_is_summed_up_in_its_own_words(
    services: Services, database: Database, microdao: str, call: Call
):
    await talk(services, microdao)
    made = (await call("summarize_channel", channel="channel:general", length="short")).result
    assert (made["messages"], made["method"]) == (3, "extractive")
    assert made["from"] < made["to"]
    lines = made["summary"].splitlines()
    assert lines
    assert all(any(text in line for _, text in SAID) for line in lines)
    assert sum(map(len, lines)) <= 360


async def test_only_the_period_is_summed_up(services: Services, microdao: str, call: Call):
    await talk(services, microdao, days_ago=3)
    nothing = {"summary": "", "messages": 0, "from": None, "to": None, "method": "extractive"}
    assert (await call("summarize_channel", channel="general")).result == nothing
    assert (await call("summarize_channel", channel="general", period="P1W")).result["messages"] == 3
    since = (utc_now() - timedelta(days=4)).isoformat(timespec="seconds")
    until = (utc_now() - timedelta(days=3, minutes=9, seconds=30)).isoformat(timespec="seconds")
    assert (await call("summarize_channel", channel="general", since=since, until=until)).result["messages"] == 1
    backwards = await call("summarize_channel", channel="general", since=since, until=since)
    assert (backwards.status, backwards.error_code) == ("failed", "invalid_args")


async def test_what_an_agent_may_not_read_is_not_summed_up(services: Services, database: Database, microdao: str):
    await add_borys(database, microdao)
    await talk(services, microdao)
    borys = await caller(services, microdao, BORYS)
    assert (await borys("summarize_channel", channel="general")).result["messages"] == 0


async def test_a_model_writes_the_summary_and_is_charged_for(
    with_model: Services, database: Database, microdao: str, openai: FakeOpenAI
):
    call = await caller(with_model, microdao)
    await talk(with_model, microdao)
    openai.will(Reply(text="Olena books a stand at the fair."))
    made = await call("summarize_channel", channel="general")
    assert (made.result["summary"], made.result["messages"]) == ("Olena books a stand at the fair.", 3)
    assert made.result["method"] != "extractive"
    asked = openai.requests[-1].body["messages"]
    assert "Ihor: A stand at the fair" in asked[1]["content"]
    assert "at most 150 words" in asked[0]["content"]
    await with_model.outbox.flush()
    async with database.tenant(microdao) as connection:
        used = await fetch_all(connection, "SELECT kind, agent_id, cost_microusd FROM usage_event WHERE kind = 'llm'")
    assert [(row["agent_id"], row["cost_microusd"] > 0) for row in used] == [(SOFIA, True)]


async def test_in_a_confidential_flow_no_model_reads_the_messages(
    with_model: Services, microdao: str, openai: FakeOpenAI
):
    call = await caller(with_model, microdao)
    await talk(with_model, microdao)
    made = await call("summarize_channel", channel="general", confidential=True)
    assert made.result["method"] == "extractive"
    assert openai.requests == []


async def test_a_model_that_fails_is_the_tools_failure(with_model: Services, microdao: str, openai: FakeOpenAI):
    call = await caller(with_model, microdao)
    await talk(with_model, microdao)
    openai.will(*[Reply(text=" ")] * 10)
    failed = await call("summarize_channel", channel="general")
    assert failed.status == "failed"
    assert "empty summary" in str(failed.error_message)


async def tables_with(database: Database, microdao: str, words: str) -> list[str]:
    """The tables in which the tenant has a row that says so."""
    async with database.tenant(microdao) as connection:
        tables = await fetch_all(
            connection,
            "SELECT table_name AS name FROM information_schema.columns JOIN pg_class ON relname = table_name"
            " WHERE table_schema = 'public' AND column_name = 'microdao_id' AND relkind = 'r' ORDER BY 1",
        )
        found = [
            (one["name"], await fetch_all(connection, f"SELECT 1 FROM {one['name']} t WHERE t::text LIKE %s", (words,)))
            for one in tables
        ]
    return [name for name, rows in found if rows]


async def test_what_was_forgotten_is_gone_from_tools_once_their_runs_are_old(
    services: Services, database: Database, microdao: str, call: Call
):
    kept = await call("memory.store", text="The xyzzyword of the safe hangs in the attic.")
    found = await call("memory.search", query="where hangs the xyzzyword?")
    assert "xyzzyword" in str(found.result)
    await services.memory.forget(microdao, SOFIA, kept.result["id"])
    assert await tables_with(database, microdao, "%xyzzyword%") == ["tool_execution"]
    async with database.tenant(microdao) as connection:
        await connection.execute("UPDATE tool_execution SET finished_at = finished_at - interval '89 days 23 hours'")
    await services.execution_pruning.sweep()
    assert await tables_with(database, microdao, "%xyzzyword%") == ["tool_execution"]
    async with database.tenant(microdao) as connection:
        await connection.execute("UPDATE tool_execution SET finished_at = finished_at - interval '2 hours'")
    await services.execution_pruning.sweep()
    assert await tables_with(database, microdao, "%xyzzyword%") == []
