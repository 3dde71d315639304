"""What search's statement says of a candidate's surroundings, against the same told from the candidates themselves."""

from datetime import UTC, datetime, timedelta

import pytest

from shared.cloud.outbox import Outbox
from shared.db.database import Database
from shared.memory.memory import Memory, open_memory
from shared.memory.model import Filters
from shared.memory.search import store_candidates, store_scopes
from shared.memory.search.fusion import Candidate
from shared.memory.search.terms import query_terms
from tests.memories import AGENT, index_all, new

MARKS = (0.8, 0.85)
THREAD = (
    "Did you paint the sunrise?",
    "Yes, the sunrise over the lake",
    "Lovely. Which colours?",
    "Orange, mostly",
    "Can I see it on Friday?",
    "Come at noon",
)
ALONE = "The budget for advertising is 9,000 euros"
QUESTION = "Who painted a sunrise in orange colours?"


@pytest.fixture
async def memory(settings, database: Database):
    outbox = Outbox(database, {})  # jobs stay in it
    yield open_memory(settings, database, outbox)
    await outbox.close()


async def _candidates(memory: Memory, database: Database, microdao: str) -> list[Candidate]:
    space = await memory.spaces.active()
    vector = await space.embed_query(memory.spaces.recent, QUESTION, microdao)
    async with database.agent(microdao, AGENT) as connection:
        scopes = await store_scopes.read_scopes(connection, space.id, Filters())
        plan = store_candidates.SearchPlan(
            space_id=space.id,
            dimensions=space.dimensions,
            marks=MARKS,
            vector=vector,
            terms=query_terms(QUESTION),
            scopes=[scope["scope_id"] for scope in scopes],
            large_scopes=[],
            filters=Filters(),
            depth=100,
            parts=100,
            reach=2,
            items=len(THREAD) + 1,
            mean_words=4.0,
        )
        found = await store_candidates.find_candidates(connection, plan)
    return sorted(map(Candidate._make, found.candidates))


def _held_between(cosine: float | None) -> float:
    return min(max(cosine or MARKS[0], MARKS[0]), MARKS[1])


async def test_a_candidate_comes_with_what_its_neighbours_have(memory: Memory, database: Database, microdao: str):
    began = datetime(2026, 5, 1, tzinfo=UTC)
    for number, text in enumerate(THREAD):
        await memory.store(new(microdao, text, session_id="s", occurred_at=began + timedelta(minutes=number)))
    await memory.store(new(microdao, ALONE))
    await index_all(memory, database, microdao)
    await memory.store(new(microdao, "No vector yet", session_id="s", occurred_at=began + timedelta(hours=1)))
    await memory.store(new(microdao, "The orange sunrise", session_id="s", occurred_at=began + timedelta(hours=2)))

    *thread, last = [one for one in await _candidates(memory, database, microdao) if one.thread]
    (alone,) = [one for one in await _candidates(memory, database, microdao) if not one.thread]

    assert alone[10:] == (None,) * 5
    assert [one.number for one in thread] == sorted(one.number for one in thread)
    assert len(thread) == len(THREAD), "what has neither a vector nor a word of the question is no candidate"
    assert last.cosine is None
    assert last.near_bm25 == pytest.approx(thread[-1].bm25 / 2)
    for place in range(len(thread) - 2):
        before = thread[max(0, place - 2) : place]
        near = [*before, *thread[place + 1 : place + 3]]
        beside = [*before[-1:], thread[place + 1]]
        one = thread[place]
        assert one.near_cosine == pytest.approx(sum(_held_between(other.cosine) for other in near) / len(near))
        assert one.near_best == pytest.approx(max(other.cosine or 0 for other in near))
        assert one.near_bm25 == pytest.approx(sum(other.bm25 for other in near) / len(near))
        assert one.held_beside == (beside[0].held | beside[-1].held)
        assert one.replies == (bool(before) and before[-1].asks)
    assert {one.replies for one in thread} == {True, False}
    # The turn without a vector counts as the lower mark.
    near = [_held_between(other.cosine) for other in thread[-3:-1]]
    assert thread[-1].near_cosine == pytest.approx((sum(near) + 2 * MARKS[0]) / 4)
    assert thread[-1].near_best == pytest.approx(max(other.cosine or 0 for other in thread[-3:-1]))
