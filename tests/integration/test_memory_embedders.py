"""Embeddings from a provider: in batches, paid by whom they are for, kept, and waited for when a budget is spent."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

import pytest

from localstack.postgres import EmbeddedPostgres
from shared.bootstrap import Services
from shared.cloud.outbox import Outbox
from shared.db.database import Database, Row, fetch_all, fetch_one
from shared.errors import InsufficientQuota, InvalidRequest, Unavailable
from shared.llm.money.scopes import ScopeKey
from shared.memory.embedding import store_embedding_cache
from shared.memory.embedding.caches import KeptEmbedder, RecentVectors
from shared.memory.embedding.embedders import Embedders
from shared.memory.embedding.provider import ProviderEmbedder
from shared.memory.embedding.spaces import Spaces
from shared.memory.indexing import reindexing
from shared.memory.memory import Memory
from shared.settings import Settings
from tests.embeddings import BagOfWords, FakeEmbeddings, add_tenant, own_database
from tests.fakes.openai_server import Reply
from tests.memories import AGENT, ask, index_all, new, queued

MODEL = "text-embedding-3-small"
TENANT, OTHER = "microdao:payer", "microdao:other"


@pytest.fixture
async def provider() -> AsyncIterator[FakeEmbeddings]:
    async with FakeEmbeddings() as fake:
        yield fake


@pytest.fixture
async def database(postgres: EmbeddedPostgres) -> AsyncIterator[Database]:
    async with own_database(postgres) as database:
        await add_tenant(database, TENANT, AGENT)
        await add_tenant(database, OTHER, AGENT)
        yield database


@pytest.fixture
async def services(settings: Settings, provider: FakeEmbeddings, database: Database) -> AsyncIterator[Services]:
    services = Services(
        replace(settings, openai_api_key="sk-fake", openai_base_url=provider.base_url, embedding_model=MODEL)
    )
    services.__dict__ |= {"database": database, "outbox": Outbox(database, {})}  # this test's own database
    yield services
    await services.close()


@pytest.fixture(autouse=True)
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reindexing, "_FIRST_WAIT_S", 0.0)


@pytest.fixture
async def memory(services: Services) -> Memory:
    """Its active space is the provider's."""
    await services.memory.sweep()
    assert (await services.memory.spaces.active()).embedder.model == MODEL
    return services.memory


def embedder(services: Services) -> ProviderEmbedder:
    return ProviderEmbedder(lambda: services.gateway, MODEL)


async def ledger(database: Database, microdao: str = TENANT) -> list[Row]:
    async with database.tenant(microdao) as connection:
        return await fetch_all(
            connection, "SELECT model, provider, outcome, prompt_tokens, cost_microusd FROM llm_ledger ORDER BY id"
        )


async def budget(services: Services, limit_microusd: int | None) -> None:
    key = ScopeKey(microdao_id=TENANT, scope="microdao", id=TENANT)
    await services.limits.set_budget(key, "total", limit_microusd)


async def test_batches_of_vectors_of_length_one(services: Services, database: Database, provider: FakeEmbeddings):
    texts = [f"text number {number} and {number}" for number in range(150)]
    vectors = await embedder(services).embed(texts, "passage", TENANT)
    assert provider.texts == [texts[:64], texts[64:128], texts[128:]]
    assert provider.requests[0].body["model"] == MODEL
    assert [len(vector) for vector in vectors] == [48] * 150
    assert all(sum(value * value for value in vector) == pytest.approx(1) for vector in vectors)
    rows = await ledger(database)
    assert [(row["model"], row["provider"], row["outcome"]) for row in rows] == [(MODEL, "openai", "succeeded")] * 3
    assert all(row["prompt_tokens"] > 0 for row in rows)
    assert await ledger(database, OTHER) == []


async def test_a_vector_without_direction_is_an_error(services: Services, provider: FakeEmbeddings):
    nothing = '{"data": [{"index": 0, "embedding": [0, 0]}], "usage": {"prompt_tokens": 1, "total_tokens": 1}}'
    provider.will(Reply(raw=nothing))
    with pytest.raises(Exception, match="without a direction"):
        await embedder(services).embed(["x"], "passage", TENANT)


async def test_the_configured_model_takes_over(services: Services, database: Database, provider: FakeEmbeddings):
    """The local model serves from the start; the provider's replaces it once it has everything."""
    memory = services.memory
    stored = await memory.store(new(TENANT, "tea is served at five"))
    await index_all(memory, database, TENANT)
    assert provider.requests == []
    await memory.sweep()
    assert provider.texts == [["memory"]], "the length of vectors is learnt from the first answer"
    assert [one.id for one in await memory.query(ask(TENANT, "when is tea", mode="vector"))] == [stored.id]
    assert len(provider.requests) == 1
    await index_all(memory, database, TENANT)
    assert (await memory.spaces.active()).dimensions == 48
    assert [one.id for one in await memory.query(ask(TENANT, "when is tea", mode="vector"))] == [stored.id]
    assert provider.texts[1:] == [["tea is served at five"], ["when is tea"]]
    assert len(await ledger(database)) == 3


async def test_nothing_is_paid_twice(memory: Memory, database: Database, provider: FakeEmbeddings):
    provider.reset()
    first = await memory.store(new(TENANT, "tea is served at five"))
    await index_all(memory, database, TENANT)
    await memory.forget(TENANT, AGENT, first.id)
    await memory.store(new(TENANT, "tea is served at five"))
    await memory.store(new(TENANT, "tea is served at five", session_id="sess_2"))
    await index_all(memory, database, TENANT)
    assert provider.texts == [["tea is served at five"]]
    await memory.reindexing.start(MODEL)
    await index_all(memory, database, TENANT)
    assert (await memory.reindexing.progress()).state == "done"
    assert provider.texts == [["tea is served at five"], ["memory"]], "only the length of vectors is asked for"
    found = await memory.query(ask(TENANT, "tea is served at five", mode="vector", k=1))
    assert found[0].score == pytest.approx(1, abs=1e-3), "what is kept is the same vector"

    await memory.store(new(OTHER, "tea is served at five"))
    await index_all(memory, database, OTHER)
    assert provider.texts[2:] == [["tea is served at five"], ["tea is served at five"]], "a question; another tenant"


async def test_questions_are_remembered(memory: Memory, database: Database, provider: FakeEmbeddings):
    await memory.store(new(TENANT, "tea is served at five"))
    await index_all(memory, database, TENANT)
    provider.reset()
    answers = [await memory.query(ask(TENANT, "when is tea", mode="vector")) for _ in range(3)]
    assert [len(answer) for answer in answers] == [1, 1, 1]
    assert provider.texts == [["when is tea"]]
    memory.spaces.recent = RecentVectors()
    await memory.query(ask(TENANT, "when is tea", mode="vector"))
    assert provider.texts == [["when is tea"]], "another process finds it in the database"


async def test_remembered_questions_are_bounded():
    model, recent = BagOfWords("words"), RecentVectors(size=2)
    first = await recent.embed(model, 64, "a b", "query", TENANT)
    assert await recent.embed(model, 64, "a b", "query", OTHER) == first
    for text in ("c", "a b", "d", "a b", "c"):
        await recent.embed(model, 64, text, "query", TENANT)
    assert model.asked == ["a b", "c", "d", "c"]
    await recent.embed(model, 64, "c", "passage", TENANT)
    assert model.asked[-2:] == ["c", "c"], "a passage may be embedded differently"


async def test_a_spent_budget_is_waited_for(
    services: Services, memory: Memory, database: Database, provider: FakeEmbeddings
):
    provider.reset()
    await budget(services, 0)
    stored = await memory.store(new(TENANT, "tea is served at five"))
    elsewhere = await memory.store(new(OTHER, "coffee is served at six"))
    for _ in range(3):
        assert await memory.index([*await queued(database, TENANT), *await queued(database, OTHER)]) == set()
    assert provider.texts == [["coffee is served at six"]]
    assert (await memory.stats(OTHER, AGENT)).pending == 0, elsewhere
    stats = await memory.stats(TENANT, AGENT)
    assert (stats.pending, stats.failed) == (1, 0)
    async with database.tenant(TENANT) as connection:
        row = await fetch_one(connection, "SELECT failure FROM memory_item WHERE id = %s", (stored.id,))
    assert "budget" in row["failure"]
    assert await queued(database, TENANT) == [], "no job goes round and round"
    assert [one.id for one in await memory.query(ask(TENANT, "tea"))] == [stored.id], "words cost nothing"
    with pytest.raises(InsufficientQuota):
        await memory.query(ask(TENANT, "tea", mode="vector"))

    assert await memory.sweep() == 0, "not at once"
    await budget(services, None)
    assert await memory.sweep(older_than_s=0) == 1
    await index_all(memory, database, TENANT)
    assert (await memory.stats(TENANT, AGENT)).pending == 0
    assert [one.id for one in await memory.query(ask(TENANT, "tea", mode="vector"))] == [stored.id]


async def test_a_provider_that_is_down_loses_nothing(memory: Memory, database: Database, provider: FakeEmbeddings):
    await memory.store(new(TENANT, "tea is served at five"))
    jobs = await queued(database, TENANT)
    provider.will(*[Reply(status=401)] * 2)
    assert await memory.index(jobs) == {job.message_id for job in jobs}, "delivered again"
    stats = await memory.stats(TENANT, AGENT)
    assert (stats.pending, stats.failed) == (1, 0)
    provider.reset()
    assert await memory.index(jobs) == set()
    assert (await memory.stats(TENANT, AGENT)).pending == 0


async def test_a_refused_text_is_its_items_fault(memory: Memory, database: Database, provider: FakeEmbeddings):
    good = await memory.store(new(TENANT, "tea is served at five"))
    bad = await memory.store(new(TENANT, "coffee is served at six"))
    jobs = await queued(database, TENANT)
    (poisonous,) = [job for job in jobs if job.item_ids == (bad.id,)]
    batch, *_ = sorted([good.id, bad.id])
    provider.will(
        Reply(status=400), *([Reply(status=400), Reply()] if batch == bad.id else [Reply(), Reply(status=400)])
    )
    assert await memory.index(jobs) == {poisonous.message_id}
    assert (await memory.stats(TENANT, AGENT)).failed == 1
    assert await memory.index([poisonous]) == set()
    assert (await memory.stats(TENANT, AGENT)).failed == 0


async def test_another_length_of_vectors_is_told(memory: Memory, database: Database, provider: FakeEmbeddings):
    await memory.store(new(TENANT, "tea is served at five"))
    jobs = await queued(database, TENANT)
    provider.dimensions = 32
    assert await memory.index(jobs) == {job.message_id for job in jobs}
    with pytest.raises(Unavailable, match=r"32 numbers.*48.*reindex"):
        await memory.query(ask(TENANT, "tea", mode="vector"))
    await memory.reindexing.start(MODEL)
    await memory.index(await queued(database, TENANT))
    assert (await memory.spaces.active()).dimensions == 32
    assert (await memory.stats(TENANT, AGENT)).pending == 0
    assert await memory.index(jobs) == set()
    assert len(await memory.query(ask(TENANT, "served", mode="vector"))) == 1


async def test_kept_vectors_are_pruned_and_apart(services: Services, database: Database):
    model = BagOfWords("dear")
    kept = KeptEmbedder(model, database)
    texts = [f"text {number}" for number in range(100)]
    first = await kept.embed(texts, "passage", TENANT)
    again = await kept.embed([texts[5], texts[5]], "passage", TENANT)
    assert again[0] == pytest.approx(first[5], abs=1e-3)
    assert again[0] == again[1]
    assert len(model.asked) == 100
    async with database.tenant(OTHER) as connection:
        assert await fetch_all(connection, "SELECT 1 FROM memory_embedding_cache") == []
    async with database.system() as connection:
        await connection.execute(
            "UPDATE memory_embedding_cache SET used_at = now() - interval '2 days'"
            " WHERE hash IN (SELECT hash FROM memory_embedding_cache LIMIT 30)"
        )
        prune = store_embedding_cache.prune
        assert await prune(connection, most=200, unused_s=3 * 86_400, batch=50) == 0
        assert await prune(connection, most=200, unused_s=86_400, batch=20) == 20
        assert await prune(connection, most=200, unused_s=86_400, batch=20) == 10
        assert await prune(connection, most=60, unused_s=86_400, batch=50) == 10
        rows = await fetch_all(connection, "SELECT used_at FROM memory_embedding_cache")
    assert len(rows) == 60
    await kept.embed(texts, "passage", TENANT)
    assert len(model.asked) == 140, "what was dropped is made again"


async def test_a_use_is_noted_once_a_day(database: Database):
    kept = KeptEmbedder(BagOfWords("dear"), database)
    await kept.embed(["a", "b"], "query", TENANT)
    async with database.system() as connection:
        await connection.execute("UPDATE memory_embedding_cache SET used_at = now() - interval '2 days'")
    await kept.embed(["a"], "query", TENANT)
    async with database.system() as connection:
        rows = await fetch_all(
            connection, "SELECT used_at > now() - interval '1 hour' AS fresh FROM memory_embedding_cache"
        )
    assert sorted(row["fresh"] for row in rows) == [False, True]


async def test_the_offline_gateway_keeps_the_local_model(services: Services, memory: Memory):
    """The gateway's own offline embeddings do not go round through the memory's provider."""
    (vector,) = await services._embed_texts(["tea"])
    assert len(vector) != 48
    assert (await memory.spaces.active()).dimensions == 48


async def test_without_a_tenant_there_is_nothing_to_ask_with(settings: Settings, postgres: EmbeddedPostgres):
    async with own_database(postgres) as empty:
        services = Services(settings)
        services.__dict__ |= {"database": empty, "outbox": Outbox(empty, {})}
        with pytest.raises(InvalidRequest):
            await services.memory.reindexing.start()
        await services.close()


class _Asking(BagOfWords):
    """A model that needs a connection to the database for each text, as kept vectors do."""

    def __init__(self, database: Database, *, is_at_hand: bool) -> None:
        super().__init__(f"asking, {is_at_hand}")
        self.is_at_hand = is_at_hand
        self._database = database

    async def embed(self, texts: Sequence[str], purpose: str, microdao_id: str) -> list[list[float]]:
        await asyncio.sleep(0.05)
        await self._database.run("SELECT 1")
        return await super().embed(texts, purpose, microdao_id)


@pytest.mark.parametrize("is_at_hand", [True, False])
async def test_a_question_holds_no_connection_while_a_model_that_is_not_at_hand_is_asked(
    postgres: EmbeddedPostgres, is_at_hand: bool
):
    async with own_database(postgres, max_size=1, checkout_timeout_s=0.5) as narrow:
        await add_tenant(narrow, TENANT, AGENT)
        embedders = Embedders(_Asking(narrow, is_at_hand=is_at_hand))
        memory = Memory(narrow, Outbox(narrow, {}), Spaces(narrow, embedders))
        query = memory.query(ask(TENANT, "What does it cost?", mode="vector"))
        if is_at_hand:  # the transaction has begun meanwhile, and has the one connection
            with pytest.raises(Unavailable):
                await query
        else:
            assert await query == []
