"""Search in an agent's tools on a real database: who sees what, and what changes show at once."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from localstack.postgres import EmbeddedPostgres
from shared.db.database import Database
from shared.errors import InvalidRequest, NotFound, Unavailable
from shared.tools.model import Tool
from shared.tools.search.model import IndexToolsJob, ToolQuery
from shared.tools.search.searcher import ToolSearch
from tests.embeddings import BagOfWords, own_database
from tests.tools_search import SOFIA, Shop, every_row, open_shop

GUEST = "agent:guest"


@pytest.fixture(scope="module")
async def own(postgres: EmbeddedPostgres) -> AsyncIterator[Database]:
    async with own_database(postgres) as database:
        yield database


@pytest.fixture
async def shop(own: Database) -> Shop:
    shop = await open_shop(own, BagOfWords("bag"), GUEST)
    await shop.add("weather.read", "Weather forecast of a place")
    await shop.add("hotelBook", "Book a room in a hotel", risk="B", executor="http")
    await shop.add("invoice_pay", "Pay an open invoice", risk="C")
    return shop


async def test_a_new_tool_is_found_by_words_before_anybody_has_embedded_it(shop: Shop):
    assert await shop.find("pay this invoice", k=1) == ["invoice_pay"]
    assert shop.embedder.asked == ["pay this invoice"]
    await shop.add("train.book", "Book a seat on a train")
    assert await shop.find("a seat on the train", k=1) == ["train.book"]


async def test_each_version_is_embedded_once_by_the_jobs_of_whoever_made_it(shop: Shop):
    assert await shop.index() == set()
    assert await shop.jobs() == []
    rows = await shop.run(
        "SELECT e.embedded_in, count(v.*) AS vectors FROM tool_entry e JOIN tool_embedding v USING (entry) GROUP BY 1"
    )
    assert [row["vectors"] for row in rows] == [3]
    asked = len(shop.embedder.asked)
    assert await shop.find("weather forecast", k=1) == ["weather.read"]
    tools = [row["id"] for row in await shop.run("SELECT id FROM tool")]
    await shop.indexer.index([IndexToolsJob("again", "job_again", shop.microdao, tuple(tools))])
    assert len(shop.embedder.asked) == asked + 1


async def test_found_by_meaning_what_shares_no_term(shop: Shop):
    await shop.index()
    # A bag of words knows "the" where the terms do not: the two arms differ.
    await shop.add("the.the", "the the the")
    await shop.index()
    assert await shop.find("the the the", k=1) == ["the.the"]


async def test_equal_texts_are_embedded_once_whoever_has_them(
    own: Database, shop: Shop, caplog: pytest.LogCaptureFixture
):
    await shop.index()
    other = await open_shop(own, BagOfWords("bag"))
    await other.add("weather.read", "Weather forecast of a place")
    await other.index()
    assert other.embedder.asked == []
    assert await other.find("forecast") == ["weather.read"]
    assert len(await other.run("SELECT 1 FROM tool_embedding")) == 1
    assert "could not be embedded" not in caplog.text


async def test_only_granted_tools_are_found(shop: Shop):
    await shop.add("vault.open", "Open the vault", granted=False)
    assert "vault.open" not in await shop.find("open the vault")
    assert await shop.find("open the vault", agent=GUEST) == []
    assert await shop.find("open the vault", required=["vault.open"], allow=["vault.open"]) == []


async def test_a_grant_and_its_end_show_at_once_in_every_process(shop: Shop):
    other = shop.other_process()
    vault = await shop.add("vault.open", "Open the vault", granted=False)
    for search in (shop.search, other):
        assert await shop.find("open the vault", k=1, search=search) == ["invoice_pay"]
    await shop.run("INSERT INTO tool_grant VALUES (current_microdao(), %s, %s)", SOFIA, vault)
    for search in (shop.search, other):
        assert await shop.find("open the vault", k=1, search=search) == ["vault.open"]
    await shop.run("DELETE FROM tool_grant WHERE tool_id = %s", vault)
    for search in (shop.search, other):
        assert "vault.open" not in await shop.find("open the vault", search=search)


async def test_a_change_that_commits_late_shows_though_others_were_seen_before(shop: Shop):
    vault = await shop.add("vault.open", "Open the vault", granted=False)
    async with shop.database.tenant(shop.microdao) as connection:
        await connection.execute("INSERT INTO tool_grant VALUES (current_microdao(), %s, %s)", (SOFIA, vault))
        await shop.add("later.tool", "Something else")
        assert "vault.open" not in await shop.find("open the vault")
    assert await shop.find("open the vault", k=1) == ["vault.open"]


async def test_what_is_deactivated_or_deleted_is_gone_and_comes_back(shop: Shop):
    await shop.index()
    assert await shop.find("hotel room", k=1) == ["hotelBook"]
    await shop.run("UPDATE tool SET active = false WHERE name = 'hotelBook'")
    assert "hotelBook" not in await shop.find("hotel room")
    await shop.run("UPDATE tool SET active = true WHERE name = 'hotelBook'")
    assert await shop.find("hotel room", k=1) == ["hotelBook"]
    await shop.run("DELETE FROM tool WHERE name = 'hotelBook'")
    assert "hotelBook" not in await shop.find("hotel room")
    assert len(await shop.run("SELECT 1 FROM tool_entry")) == len(await shop.run("SELECT 1 FROM tool_embedding")) == 2


async def test_a_tool_is_found_by_its_active_version(shop: Shop):
    tool = await shop.add("helper", "Prunes apple trees")
    await shop.add_version(tool, 2, "Sharpens kitchen knives")
    await shop.index()
    for version, trees, knives in ((1, True, False), (2, False, True), (1, True, False)):
        await shop.run("UPDATE tool SET active_version = %s WHERE id = %s", version, tool)
        assert (await shop.score("prunes apple trees", "helper") > 0.7) == trees
        assert (await shop.score("sharpens kitchen knives", "helper") > 0.7) == knives


async def test_tenants_never_meet(own: Database, shop: Shop):
    other = await open_shop(own, shop.embedder)
    await other.add("secret.launch", "Launch the secret rocket")
    await other.index()
    together = ToolSearch(own, shop.spaces, "dev")
    assert await other.find("secret rocket", k=1, search=together) == ["secret.launch"]
    assert "secret.launch" not in await shop.find("secret rocket", search=together)
    with pytest.raises(NotFound, match="agent:guest"):
        await other.find("rocket", agent=GUEST, search=together)


async def test_filters(shop: Shop):
    everything = "weather hotel invoice"
    assert set(await shop.find(everything)) == {"weather.read", "hotelBook", "invoice_pay"}
    assert set(await shop.find(everything, risk_max="B")) == {"weather.read", "hotelBook"}
    assert set(await shop.find(everything, confidential=True)) == {"weather.read", "hotelBook"}
    assert await shop.find(everything, executors=["http"]) == ["hotelBook"]
    assert set(await shop.find(everything, deny=["hotelBook"])) == {"weather.read", "invoice_pay"}
    assert await shop.find(everything, allow=["invoice_pay"]) == ["invoice_pay"]
    assert len(await shop.find(everything, k=2)) == 2


async def test_a_tool_bound_to_another_environment_is_not_found(shop: Shop):
    await shop.add("deploy", "Deploy to production", environments=["prod"])
    assert "deploy" not in await shop.find("deploy to production")
    there = ToolSearch(shop.database, shop.spaces, "prod")
    assert await shop.find("deploy to production", k=1, search=there) == ["deploy"]


async def test_required_tools_come_first_and_beside_k(shop: Shop):
    assert await shop.find("weather forecast", k=1, required=["invoice_pay"]) == ["invoice_pay", "weather.read"]


@pytest.mark.parametrize("text", ["", "   ", "?!"])
async def test_where_nothing_is_found_the_allowlist_stands_in(shop: Shop, text: str):
    shop.embedder.refuses, shop.embedder.error = "?", Unavailable("down")
    query = ToolQuery(microdao_id=shop.microdao, agent_id=SOFIA, text=text, k=2, allow=["weather.read", "hotelBook"])
    found = await shop.search.search(query)
    assert [(tool.name, tool.why) for tool in found.tools] == [("hotelBook", "allowed"), ("weather.read", "allowed")]
    assert found.permitted == 2


async def test_without_the_embedder_tools_are_found_by_words(shop: Shop):
    await shop.index()
    shop.embedder.refuses, shop.embedder.error = "hotel", Unavailable("down")
    assert await shop.find("a hotel room", k=1) == ["hotelBook"]


async def test_an_unknown_agent_is_told_so_and_garbage_is_refused(shop: Shop):
    with pytest.raises(NotFound, match="agent:nobody"):
        await shop.find("weather", agent="agent:nobody")
    with pytest.raises(InvalidRequest):
        await shop.find("wea\0ther")


async def test_a_model_that_is_down_is_asked_again_and_words_serve_meanwhile(shop: Shop):
    await shop.add("tide", "Tide table of a harbour")
    shop.embedder.refuses, shop.embedder.error = "harbour", Unavailable("down")
    jobs = await shop.jobs()
    assert await shop.index() == {job.message_id for job in jobs}
    assert await shop.find("the harbour", k=1) == ["tide"]
    shop.embedder.refuses = ""
    assert await shop.index() == set()
    assert len(await shop.run("SELECT 1 FROM tool_embedding")) == 4


async def test_a_text_that_no_model_takes_does_not_stop_the_others(shop: Shop):
    await shop.add("cursed", "This text is cursed")
    shop.embedder.refuses = "cursed"
    assert await shop.index() == set()
    assert len(await shop.run("SELECT 1 FROM tool_embedding")) == 3
    (row,) = await shop.run("SELECT failure, embedded_in FROM tool_entry WHERE failure IS NOT NULL")
    assert "cannot be embedded" in row["failure"]
    shop.embedder.refuses = ""
    assert await shop.find("cursed text", k=1) == ["cursed"]


async def test_what_was_lost_is_swept_up_later_and_later(shop: Shop):
    await shop.run("DELETE FROM outbox")
    await shop.indexer.sweep()
    assert await shop.jobs() == []
    await shop.run("UPDATE tool_entry SET queued_at = now() - interval '20 minutes'")
    assert await shop.indexer.sweep() >= 3
    (job,) = await shop.jobs()
    assert len(job.tool_ids) == 3
    await shop.run("UPDATE tool_entry SET queued_at = now() - interval '20 minutes'")
    await shop.indexer.sweep()
    assert len(await shop.jobs()) == 1
    assert await shop.index() == set()
    await shop.run("UPDATE tool_entry SET queued_at = now() - interval '2 days'")
    await shop.indexer.sweep()
    assert await shop.jobs() == []


async def test_many_changes_are_pruned_and_searches_go_on(shop: Shop):
    await shop.find("weather")
    for _ in range(300):
        await shop.run("UPDATE tool SET active = active WHERE name = 'weather.read'")
    await shop.run("UPDATE tool_change SET changed_at = now() - interval '5 minutes'")
    await shop.indexer.sweep()
    assert await shop.run("SELECT 1 FROM tool_change") == []
    assert await shop.find("weather", k=1) == ["weather.read"]
    await shop.run("UPDATE tool SET active = false WHERE name = 'weather.read'")
    assert "weather.read" not in await shop.find("weather")


async def test_indexes_stay_within_their_memory(own: Database, shop: Shop):
    other = await open_shop(own, shop.embedder)
    await other.add("other.tool", "Something")
    small = ToolSearch(own, shop.spaces, "dev", most_bytes=15_000)
    for _ in range(2):
        assert await shop.find("weather", k=1, search=small) == ["weather.read"]
        assert await other.find("something", search=small) == ["other.tool"]
        assert small.catalogues.size <= 15_000
    none = ToolSearch(own, shop.spaces, "dev", most_bytes=10)
    assert await shop.find("weather", k=1, search=none) == ["weather.read"]
    assert none.catalogues.size == 0


async def test_searches_at_once_while_tools_come_all_find_what_is_there(shop: Shop):
    async def add(number: int) -> None:
        await shop.add(f"extra.{number}", f"Extra thing number{number}")

    async def look() -> None:
        assert await shop.find("weather forecast", k=1) == ["weather.read"]

    await asyncio.gather(*(add(number) for number in range(5)), *(look() for _ in range(20)))
    for number in range(5):
        assert await shop.find(f"number{number}", k=1) == [f"extra.{number}"]


async def test_few_tools_all_go_into_a_prompt_and_of_many_the_best(shop: Shop):
    await shop.index()
    tools = [tool(row["name"]) for row in await shop.run("SELECT name FROM tool ORDER BY name")]
    chosen = await shop.search.choose(shop.microdao, SOFIA, tools, text="weather", required=[], limit=3)
    assert chosen == tools
    chosen = await shop.search.choose(
        shop.microdao, SOFIA, tools, text="weather forecast", required=["invoice_pay"], limit=1
    )
    assert [one.name for one in chosen] == ["invoice_pay", "weather.read"]
    (counted,) = await shop.run("SELECT prompts, searched, tools, granted FROM tool_prompt")
    assert counted == {"prompts": 2, "searched": 1, "tools": 5, "granted": 6}


async def test_a_new_space_is_filled_beside_the_old_one(own: Database, shop: Shop):
    await shop.index()
    (space,) = await every_row(own, "SELECT space_id FROM memory_space WHERE state = 'active'")
    rows = await every_row(own, f"SELECT 1 FROM tool_frame WHERE space_id = {space['space_id']}")
    assert len(rows) == 1


def tool(name: str) -> Tool:
    return replace(_ANY, name=name)


_ANY = Tool(
    id="",
    name="",
    version=1,
    description="",
    parameters={},
    risk="A",
    executor="builtin",
    active=True,
    timeout_ms=1000,
    idempotent=True,
    config={},
)
