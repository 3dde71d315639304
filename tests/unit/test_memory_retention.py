"""Retention's decisions: what goes and why, caps that are met and not overshot, summaries without a model."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.memory.retention.consolidation import MOST_SOURCES, split
from shared.memory.retention.extract import extract
from shared.memory.retention.policy import RetentionPolicy, cutoffs, effective_policy
from shared.memory.retention.pruning import Excess, Unit, evict, excess, judge, reason_to_remove

NOW = datetime(2026, 11, 25, tzinfo=UTC)


def unit(name: str = "mem_1", **fields) -> Unit:
    defaults = {
        "id": name,
        "is_document": False,
        "scope_id": 1,
        "tier": "mid_term",
        "items": 1,
        "bytes": 100,
        "importance": 0.2,
        "hits": 0,
        "created_at": NOW - timedelta(days=10),
        "value": 0.3,
    }
    return Unit(**{**defaults, **fields})


UNITS = st.lists(
    st.builds(
        unit,
        name=st.uuids().map(str),
        items=st.integers(1, 20),
        bytes=st.integers(0, 10_000),
        importance=st.sampled_from([0.0, 0.5, 0.9, 1.0]),
        value=st.floats(-1, 1),
    ),
    max_size=40,
    unique_by=lambda one: one.id,
)


def test_what_went_in_vain_before_a_large_document_stays():
    notes = [unit(f"mem_{number:02}", value=number / 100) for number in range(12)]
    document = unit("doc", is_document=True, items=18, value=0.5)
    gone = {one.unit.id for one in evict([*notes, document], Excess(items=25), "size")}
    assert gone == {"doc", *(f"mem_{number:02}" for number in range(7))}


def test_nothing_goes_by_default():
    limits = cutoffs(RetentionPolicy(), NOW)
    ancient = unit(created_at=datetime(1, 1, 1, tzinfo=UTC), importance=0)
    assert [
        reason_to_remove(replace(ancient, tier=tier), limits) for tier in ("short_term", "mid_term", "long_term")
    ] == [None] * 3
    assert not RetentionPolicy().removes


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, "unused"),
        ({"hits": 1}, None),
        ({"importance": 0.3}, None),
        ({"created_at": NOW - timedelta(days=7)}, None),
        ({"created_at": NOW - timedelta(days=31), "hits": 9, "importance": 0.9}, "age"),
        ({"created_at": NOW - timedelta(days=31), "importance": 1.0}, None),
        ({"created_at": NOW - timedelta(days=30), "hits": 1}, None),
        ({"tier": "long_term", "created_at": NOW - timedelta(days=99), "hits": 1}, None),
    ],
)
def test_reasons(fields, reason):
    policy = RetentionPolicy(mid_term_max_age_days=30, unused_after_days=7)
    one = unit(**fields)
    assert reason_to_remove(one, cutoffs(policy, NOW)) == reason
    assert [removal.reason for removal in judge([one], {1: cutoffs(policy, NOW)})] == ([reason] if reason else [])


@given(UNITS, st.none() | st.integers(0, 100), st.none() | st.integers(0, 50_000))
def test_caps_are_met_and_not_overshot(units, max_items, max_bytes):
    items, size = sum(one.items for one in units), sum(one.bytes for one in units)
    gone = [removal.unit for removal in evict(units, excess(items, size, max_items, max_bytes), "size")]
    left = [one for one in units if one not in gone]

    def fits(kept):
        return (max_items is None or sum(one.items for one in kept) <= max_items) and (
            max_bytes is None or sum(one.bytes for one in kept) <= max_bytes
        )

    assert all(one.importance < 1 for one in gone)
    assert fits(left) or all(one.importance == 1 for one in left)
    assert not any(fits([*left, one]) for one in gone)
    evictable = sorted((one for one in units if one.importance < 1), key=lambda one: (one.value, one.id))
    assert gone == [one for one in evictable if one in gone]


def test_no_cap_evicts_nothing():
    assert evict([unit()], Excess(), "size") == []


def test_levels_override_each_other():
    policy = effective_policy({"max_items": 5, "max_bytes": 7, "gone_setting": 1}, {"max_items": None})
    assert policy == RetentionPolicy(max_bytes=7)


def test_a_thread_is_split_and_a_rest_waits():
    ids = [f"mem_{number}" for number in range(MOST_SOURCES + 3)]
    assert split(ids, 3) == [tuple(ids[:MOST_SOURCES]), tuple(ids[MOST_SOURCES:])]
    assert split(ids, 4) == [tuple(ids[:MOST_SOURCES])]
    assert split(ids[:3], 4) == []


TALK = [
    "Olena: The budget for marketing is twelve thousand euros this quarter.",
    "Ihor: Nice weather.\nOlena: The marketing budget covers ads and the fair in Lviv.",
    "Ihor: So the budget for the fair in Lviv is part of the marketing budget.",
    "Olena: The budget for marketing is twelve thousand euros this quarter!",
]


def test_an_extract_is_telling_short_and_the_same_each_time():
    made = extract(TALK, 150)
    assert made == extract(list(TALK), 150)
    assert len(made) <= 150
    assert "marketing" in made
    assert "weather" not in made
    assert made.count("twelve thousand") <= 1


@settings(max_examples=30)
@given(st.lists(st.text(min_size=1, max_size=300).filter(str.strip), min_size=1, max_size=8), st.integers(1, 500))
def test_an_extract_quotes(texts, characters):
    made = extract(texts, characters)
    assert made.strip()
    assert all(any(line in text for text in texts) for line in made.split("\n"))
