"""The index of tools, what of it may be found, and in which order."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.tools.search.filters import Entry, facets_of, permitted
from shared.tools.search.frame import Frame, cosines, fit_frame, mean_view, unit
from shared.tools.search.index import CatalogueIndex, Words, empty_index, in_frame, next_index, with_vectors, with_words
from shared.tools.search.model import ToolQuery
from shared.tools.search.ranking import Question, best, score, score_words

X, Y, Z = np.eye(3, dtype=np.float32)
PLAIN = Frame(np.zeros(3, np.float32), np.zeros(3, np.float32), Z)
TEXTS = {1: "book hotel", 2: "book flight book", 3: "weather", 4: "hotel prices"}


def entry(number: int, **fields: object) -> Entry:
    return replace(Entry(number, f"tool-{number}", f"name-{number}", "A", "builtin"), **fields)


def words(number: int, text: str) -> Words:
    split = text.split()
    return Words(number, sorted(set(split)), [split.count(word) for word in sorted(set(split))])


def built(texts: dict[int, str], vectors: dict[int, np.ndarray] | None = None) -> CatalogueIndex:
    index = next_index(empty_index(3), [entry(number) for number in texts])
    index = with_words(index, [words(number, text) for number, text in sorted(texts.items())])
    return in_frame(with_vectors(index, vectors or {}), PLAIN)


def everything(index: CatalogueIndex) -> np.ndarray:
    return np.arange(len(index.tools))


def test_the_best_match_by_words_scores_one_and_no_match_nothing():
    index = built(TEXTS)
    scores = score_words(index, everything(index), ["hotel", "book"])
    assert scores[0] == 1
    assert 0 < scores[1] < 1
    assert scores[2] == 0


def test_how_rare_a_word_is_counts_among_the_permitted_tools_only():
    index = built({1: "book hotel", 2: "book flight", 3: "book train", 4: "hotel hotel"})
    everywhere = score_words(index, everything(index), ["book", "hotel"])
    assert everywhere[1] < everywhere[0] == 1
    # Of the first two every one books: only "hotel" tells them apart, whatever others hold.
    few = score_words(index, np.array([0, 1]), ["book", "hotel"])
    assert (
        few.tolist()
        == score_words(built({1: "book hotel", 2: "book flight"}), np.array([0, 1]), ["book", "hotel"]).tolist()
    )


def test_meaning_outweighs_words_and_words_decide_between_equals():
    index = built({1: "a", 2: "b", 3: "c"}, {1: X, 2: X, 3: Y})
    scores = score(index, everything(index), Question(np.array([X]), ["b", "c"]))
    assert best(scores.total, 3).tolist() == [1, 0, 2]


def test_each_clause_finds_its_tool():
    index = built({1: "a", 2: "b", 3: "c"}, {1: X, 2: Y, 3: unit(np.array([[-1, -1, 0]]))[0]})
    whole = unit(np.array([X + Y]))[0]
    scores = score(index, everything(index), Question(np.array([whole, X, Y]), []))
    assert set(best(scores.total, 2).tolist()) == {0, 1}
    assert scores.meaning[2] < 0


def test_a_tool_without_a_vector_is_found_by_its_words():
    index = built({1: "book hotel", 2: "weather"}, {2: X})
    scores = score(index, everything(index), Question(np.array([Y]), ["hotel"]))
    assert best(scores.total, 1).tolist() == [0]
    assert scores.total[0] == pytest.approx(1)


def test_without_an_embedder_words_are_all_there_is():
    index = built(TEXTS, dict.fromkeys(TEXTS, X))
    scores = score(index, everything(index), Question(None, ["weather"]))
    assert scores.found
    assert best(scores.total, 1).tolist() == [2]
    assert not score(index, everything(index), Question(None, ["unheard"])).found


def test_only_the_slots_asked_for_are_scored():
    index = built(TEXTS, {1: X, 2: X, 3: Y, 4: X})
    scores = score(index, np.array([2]), Question(np.array([X]), ["book"]))
    assert scores.total.shape == (1,)
    assert score(index, np.empty(0, np.intp), Question(np.array([X]), ["book"])).total.shape == (0,)


def test_the_best_come_first_and_of_equals_the_first():
    scores = np.array([0.1, 0.9, 0.5, 0.9, 0.5], np.float32)
    assert best(scores, 3).tolist() == [1, 3, 2]
    assert best(scores, 99).tolist() == [1, 3, 2, 4, 0]


def test_the_frame_takes_out_what_requests_share():
    random = np.random.default_rng(1)
    shared = np.array([5, 0, 0, 0], np.float32)
    requests = unit(random.normal(size=(40, 4)) * [1, 3, 1, 1] + shared)
    tools = unit(random.normal(size=(40, 4)) + shared)
    frame = fit_frame(requests, tools)
    framed = frame.requests(requests)
    assert np.allclose(np.linalg.norm(framed, axis=1), 1, atol=1e-5)
    assert np.allclose(framed @ frame.direction, 0, atol=1e-5)


def test_cosines_in_the_frame_are_those_of_vectors_put_into_it():
    random = np.random.default_rng(2)
    requests, tools = unit(random.normal(size=(5, 8))), unit(random.normal(size=(7, 8)))
    frame = fit_frame(unit(random.normal(size=(30, 8))), unit(random.normal(size=(30, 8))))
    mean = frame.mean_of(tools, len(tools))
    centred = tools - mean
    put = unit(centred - np.outer(centred @ frame.direction, frame.direction))
    framed = frame.requests(requests)
    assert np.allclose(cosines(framed, tools, mean, frame.lengths(tools, mean)), put @ framed.T, atol=1e-5)


def test_one_vector_stands_for_all_views():
    assert mean_view(np.array([X, Y])).tolist() == pytest.approx([0.5**0.5, 0.5**0.5, 0])


def test_an_index_goes_on_with_what_it_has():
    old = built(TEXTS, {1: X, 2: Y})
    new = next_index(old, [entry(2), entry(4), entry(9)])
    assert new.without_words() == [9]
    assert new.without_vector() == [4, 9]
    assert new.vectors[0].tolist() == Y.tolist()
    assert score_words(new, everything(new), ["hotel"]).tolist() == [0, 1, 0]
    assert score_words(new, everything(new), ["weather"]).tolist() == [0, 0, 0]
    assert len(old.tools) == 4


numbers = st.sets(st.integers(1, 12))


@given(st.lists(numbers, min_size=1, max_size=5), st.sampled_from(["book", "hotel", "weather", "prices"]))
def test_whatever_comes_and_goes_the_index_is_as_one_built_at_once(steps: list[set[int]], term: str):
    texts = {number: TEXTS[number % 4 + 1] for number in range(1, 13)}
    index = empty_index(3)
    for step in steps:
        index = next_index(index, [entry(number) for number in step])
        index = with_words(index, [words(number, texts[number]) for number in index.without_words()])
    fresh = built({number: texts[number] for number in steps[-1]})
    assert index.entries.tolist() == fresh.entries.tolist()
    assert (
        score_words(index, everything(index), [term]).tolist() == score_words(fresh, everything(fresh), [term]).tolist()
    )


TOOLS = (
    entry(1, name="read", risk="A"),
    entry(2, name="write", risk="B", executor="http"),
    entry(3, name="pay", risk="C", executor="http"),
    entry(4, name="erase", risk="D"),
    entry(5, name="deploy", risk="A", environments=("prod",)),
)


@pytest.mark.parametrize(
    ("granted", "fields", "required", "others"),
    [
        ([0, 1, 2, 3, 4], {}, [], ["read", "write", "pay", "erase"]),
        ([1, 3], {}, [], ["write", "erase"]),
        ([], {"required": ["read"]}, [], []),
        ([0, 1, 2, 3], {"risk_max": "B"}, [], ["read", "write"]),
        ([0, 1, 2, 3], {"confidential": True}, [], ["read", "write"]),
        ([0, 1, 2, 3], {"executors": ["http"]}, [], ["write", "pay"]),
        ([0, 1, 2, 3], {"executors": ["mcp"]}, [], []),
        ([0, 1, 2, 3], {"deny": ["pay", "unheard"]}, [], ["read", "write", "erase"]),
        ([0, 1, 2, 3], {"allow": ["pay", "read"]}, [], ["read", "pay"]),
        ([0, 1, 2, 3], {"allow": ["unheard"]}, [], []),
        ([0, 1, 2], {"allow": ["read"], "required": ["pay"]}, ["pay"], ["read"]),
        ([0, 1, 2], {"required": ["pay", "erase"]}, ["pay"], ["read", "write"]),
        ([0, 1, 2], {"required": ["pay"], "confidential": True}, [], ["read", "write"]),
        ([0, 1, 2], {"required": ["pay"], "deny": ["pay"]}, [], ["read", "write"]),
    ],
)
def test_what_may_be_found(granted: list[int], fields: dict, required: list[str], others: list[str]):
    query = ToolQuery(microdao_id="m", agent_id="a", text="", **fields)
    found = permitted(facets_of(TOOLS), np.array(granted, np.intp), query, "dev")
    assert [TOOLS[place].name for place in found.required] == required
    assert [TOOLS[place].name for place in found.others] == others


def test_a_tool_bound_to_an_environment_is_found_there():
    query = ToolQuery(microdao_id="m", agent_id="a", text="")
    assert permitted(facets_of(TOOLS), np.array([4]), query, "prod").others.tolist() == [4]
