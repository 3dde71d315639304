"""The score that orders what a search found."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.memory.search.fusion import DEFAULT, Candidate, Question, rank

NOW = datetime(2026, 5, 1, tzinfo=UTC)
QUESTION = Question(text="When did Olena paint a sunrise?", asked_at=NOW, idf=(2.0, 3.0, 4.0), cosines=(0.0, 1.0))
_share = st.floats(0, 1)
_held = st.integers(0, 7)


def _candidate(number=1, **changes):
    basis = {
        "number": number,
        "thread": "t1",
        "author": "Taras",
        "occurred_at": NOW - timedelta(days=900),
        "importance": 0.5,
        "length": 10,
        "cosine": 0.4,
        "bm25": 2.0,
        "held": 1,
        "asks": False,
    }
    return Candidate(**{**basis, **changes})


def _near(cosine=0.0, bm25=0.0, held=0, asks=False):
    """Neighbours that are all like this."""
    return {"near_cosine": cosine, "near_best": cosine, "near_bm25": bm25, "held_beside": held, "replies": asks}


_alone = st.builds(
    Candidate,
    number=st.integers(1, 1000),
    thread=st.sampled_from([None, "t1", "t2"]),
    author=st.sampled_from([None, "Olena", "Taras"]),
    occurred_at=st.datetimes(datetime(2020, 1, 1), datetime(2027, 1, 1), timezones=st.just(UTC)),
    importance=_share,
    length=st.integers(0, 500),
    cosine=st.none() | st.floats(-1, 1),
    bm25=st.floats(0, 20),
    held=_held,
    asks=st.booleans(),
    **dict.fromkeys(_near(), st.none()),
)
_surroundings = st.builds(_near, cosine=_share, bm25=st.floats(0, 20), held=_held, asks=st.booleans())
_together = st.builds(lambda one, near: one._replace(**near), _alone, _surroundings)
_candidates = st.lists(_alone | _together, max_size=15, unique_by=lambda one: one.number)


@given(_candidates, st.integers(1, 20), st.sampled_from(["hybrid", "vector", "lexical"]))
def test_every_candidate_is_ranked_once_with_a_score_of_0_to_1_made_of_its_parts(candidates, k, mode):
    ranked = rank(candidates, QUESTION, k, mode)
    assert sorted(one.number for one in ranked) == sorted(one.number for one in candidates)
    for one in ranked:
        assert 0 <= one.score <= 1
        assert one.score == pytest.approx(min(1, max(0, sum(one.why.values()))))
    scores = [one.score for one in ranked[:k]]
    assert scores == sorted(scores, reverse=True)


@given(_candidates, st.integers(1, 20), st.randoms())
def test_the_order_given_does_not_matter(candidates, k, random):
    shuffled = random.sample(candidates, len(candidates))
    assert rank(shuffled, QUESTION, k) == rank(candidates, QUESTION, k)


@pytest.mark.parametrize(
    "better",
    [
        {"cosine": 0.6},
        {"bm25": 4.0},
        {"author": "Olena"},
        {"held": 3},
        {"length": 30},
        {"importance": 0.9},
        _near(cosine=0.7, bm25=3.0),
        _near(cosine=0.3, bm25=1.1, held=6),
    ],
)
def test_each_signal_raises_the_score(better):
    other = _candidate(99, bm25=10.0)  # the top of the lexical scale, whatever changes below
    plain, changed = _candidate(1), _candidate(1, **better)
    before = {one.number: one.score for one in rank([plain, other], QUESTION, 10)}
    after = {one.number: one.score for one in rank([changed, other], QUESTION, 10)}
    assert after[1] > before[1]


def test_a_question_gives_way_to_the_reply():
    asking, reply = _candidate(1, asks=True), _candidate(2, **_near(cosine=0.4, bm25=2.0, asks=True))
    apart = _candidate(3, **_near(cosine=0.4, bm25=2.0))
    assert [one.number for one in rank([asking, apart, reply], QUESTION, 3)] == [2, 3, 1]


def test_a_better_thread_lifts_its_items():
    ranked = rank(
        [_candidate(1, thread="a"), _candidate(2, thread="b"), _candidate(3, thread="b", cosine=0.9)], QUESTION, 5
    )
    assert [one.number for one in ranked] == [3, 2, 1]


def test_a_lone_item_equal_to_the_question_scores_high():
    (one,) = rank([_candidate(cosine=1.0, bm25=9.0, held=7, thread=None, author="Olena")], QUESTION, 5)
    assert one.score > 0.75


def test_equal_scores_go_by_number():
    ranked = rank([_candidate(number, thread=None) for number in (3, 1, 2)], QUESTION, 3)
    assert [one.number for one in ranked] == [1, 2, 3]


def test_the_last_places_go_to_other_threads_when_these_are_nearly_as_good():
    same = [_candidate(number, cosine=0.6 + number / 1000) for number in range(20, 0, -1)]
    other = _candidate(50, thread="t2", cosine=0.59)
    level = replace(DEFAULT, thread=0.0)
    assert 50 in {one.number for one in rank([*same, other], QUESTION, 10, weights=level)[:10]}
    worse = other._replace(cosine=0.1, bm25=0.0, held=0)
    assert 50 not in {one.number for one in rank([*same, worse], QUESTION, 10, weights=level)[:10]}


def test_items_without_a_thread_do_not_shut_each_other_out():
    lone = [_candidate(number, thread=None, cosine=0.9 - number / 1000) for number in range(1, 21)]
    assert [one.number for one in rank(lone, QUESTION, 10)[:10]] == list(range(1, 11))


def test_recency_counts_only_when_asked_for_and_fades():
    old, new = _candidate(1, thread=None), _candidate(2, thread=None, occurred_at=NOW)
    assert [one.number for one in rank([old, new], QUESTION, 2)] == [1, 2]
    recent = rank([old, new], QUESTION, 2, weights=replace(DEFAULT, recency=0.03))
    assert [one.number for one in recent] == [2, 1]
    assert 0 < recent[1].why["recency"] < 1e-6
    assert recent[0].why["recency"] == pytest.approx(0.03 * recent[0].score / 1.03)


def test_modes_use_one_signal():
    words, meaning = _candidate(1, bm25=9.0, cosine=0.1), _candidate(2, bm25=0.0, cosine=0.8)
    assert rank([words, meaning], QUESTION, 2, "lexical")[0].why["lexical"] == 1.0
    assert rank([words, meaning], QUESTION, 2, "vector")[0].number == 2


@pytest.mark.parametrize(("cosine", "score"), [(0.6, 0), (0.7, 0), (0.75, 0.5), (0.8, 1), (0.9, 1)])
def test_cosines_count_between_the_marks_of_the_embedder(cosine, score):
    question = replace(QUESTION, cosines=(0.7, 0.8))
    (one,) = rank([_candidate(cosine=cosine)], question, 1, "vector")
    assert one.score == pytest.approx(score)


def test_the_best_of_poor_matches_is_still_poor():
    (one,) = rank([_candidate(bm25=1.8)], QUESTION, 1, "lexical")
    assert one.score == pytest.approx(1.8 / sum(QUESTION.idf))


def test_nothing_in_common_scores_next_to_nothing():
    (one,) = rank([_candidate(cosine=0.0, bm25=0.0, held=0, thread=None)], QUESTION, 1)
    assert one.score < 0.1


def test_only_asked_for_parts_are_told():
    told, untold = (rank([_candidate()], QUESTION, 1, explain=explain) for explain in (True, False))
    assert (told[0].score, untold[0].why) == (untold[0].score, {})
    assert told[0].why


@pytest.mark.parametrize("mode", ["hybrid", "vector", "lexical"])
def test_a_question_without_terms_can_be_ranked(mode):
    empty = Question(text="?", asked_at=NOW, idf=(), cosines=(0.0, 1.0))
    ranked = rank([_candidate(1, cosine=0.1, bm25=0.0, held=0), _candidate(2, bm25=0.0, held=0)], empty, 2, mode)
    assert {one.number for one in ranked} == {1, 2}
    assert ranked[0].number == (1 if mode == "lexical" else 2)


def test_an_author_of_an_inflected_language_is_named_in_part():
    question = Question(text="Що порадили Оленою?", asked_at=NOW, idf=(1.0, 1.0, 1.0))
    named = {
        author: rank([_candidate(author=author)], question, 1)[0].why["author"]
        for author in ("Оленою", "Олена Коваль", "Тарас", None)
    }
    assert named["Оленою"] > named["Олена Коваль"] > named["Тарас"] == named[None] == 0


def test_a_candidate_perfect_in_every_way_scores_1():
    perfect = {"cosine": 1.0, "bm25": 9.0, "held": 7}
    near = _near(**perfect, asks=True)
    (one,) = rank([_candidate(**perfect, author="Olena", length=100, **near)], QUESTION, 5)
    assert one.score == pytest.approx(1.0)
