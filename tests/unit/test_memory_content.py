"""What memory accepts, and the text it is found by."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import InvalidRequest
from shared.memory.content import canonical_json, check_new, check_query, compose_text, content_hash
from shared.memory.model import NewMemory
from tests import memories


def _new(**changes):
    return NewMemory(**{"microdao_id": "m", "agent_id": "a", "tier": "mid_term", "content": {"text": "x"}, **changes})


def _query(**changes):
    return memories.ask("m", changes.pop("query", "x"), **changes)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ({"user_message": "Hi", "agent_reply": "Hello"}, "Hi\nHello"),
        ({"text": " body ", "title": "Head", "source": "wiki"}, "Head\nbody"),
        ({"agent_reply": "Hello", "user_message": None, "context": {"a": 1}}, "Hello"),
    ],
)
def test_text_is_composed_from_the_words(content, text):
    assert compose_text(content) == text


@pytest.mark.parametrize("content", [{}, {"text": " "}, {"text": 5}, {"user_message": ["a"]}, {"context": {"a": "b"}}])
def test_content_without_words_is_refused(content):
    with pytest.raises(InvalidRequest):
        compose_text(content)


def test_equal_content_has_one_hash_whatever_its_order():
    one, other = {"text": "a", "context": {"b": 1, "c": 2}}, {"context": {"c": 2, "b": 1}, "text": "a"}
    assert content_hash(canonical_json(one)) == content_hash(canonical_json(other))


@pytest.mark.parametrize("content", [{"text": "a\0b"}, {"a\0": "b"}, {"text": "\ud800"}, {"context": {"n": 2**70}}])
def test_what_postgres_cannot_hold_is_refused(content):
    with pytest.raises(InvalidRequest):
        canonical_json(content)


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
def test_any_other_text_is_accepted(text):
    assert canonical_json({"text": text})


def test_a_written_out_escape_is_not_a_nul():
    assert canonical_json({"text": r"print('\u0000')"})


@pytest.mark.parametrize(
    "item",
    [
        _new(tier="forever"),
        _new(importance=1.1),
        _new(importance=float("nan")),
        _new(session_id="a\0"),
        _new(occurred_at=datetime(2026, 1, 1)),
    ],
)
def test_a_wrong_item_is_refused(item):
    with pytest.raises(InvalidRequest):
        check_new(item)


@pytest.mark.parametrize(
    "query",
    [
        _query(query=" "),
        _query(query="\ud800"),
        _query(k=0),
        _query(k=101),
        _query(tiers=("forever",)),
        _query(since=datetime(2026, 1, 1)),
    ],
)
def test_a_wrong_query_is_refused(query):
    with pytest.raises(InvalidRequest):
        check_query(query)


def test_right_ones_pass():
    check_new(_new(occurred_at=datetime(2026, 1, 1, tzinfo=UTC)))
    check_query(_query(tiers=("short_term",), k=100))
