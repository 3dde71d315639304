"""Moments as models write them: strict forms, time zones with their gaps, durations on the calendar."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.tools.builtin.moments import check_ahead, parse_moment
from shared.tools.model import ToolFailed

NOW = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "zone", "expected"),
    [
        ("2026-12-01T09:00:00Z", None, "2026-12-01T09:00:00"),
        ("2026-12-01t09:00:00.25z", None, "2026-12-01T09:00:00.250000"),
        ("2026-12-01 09:00+02:00", None, "2026-12-01T07:00:00"),
        ("2026-12-01T09:00", "Europe/Kyiv", "2026-12-01T07:00:00"),
        ("2026-07-01T09:00", "Europe/Kyiv", "2026-07-01T06:00:00"),
        ("2026-12-01T09:00:00-05:00", "Europe/Kyiv", "2026-12-01T14:00:00"),
        ("2026-10-25T03:30", "Europe/Kyiv", "2026-10-25T00:30:00"),  # twice on that night: the first
        (" PT30M ", None, "2026-01-31T12:30:00"),
        ("P2D", None, "2026-02-02T12:00:00"),
        ("P1W", None, "2026-02-07T12:00:00"),
        ("P1M", None, "2026-02-28T12:00:00"),
        ("P11M", None, "2026-12-31T12:00:00"),
        ("P2Y1M", None, "2028-02-29T12:00:00"),
        ("P1DT1H1M1S", None, "2026-02-01T13:01:01"),
        ("P60D", "Europe/Kyiv", "2026-04-01T11:00:00"),  # the same time of day, though clocks moved
        ("PT1440H", "Europe/Kyiv", "2026-04-01T12:00:00"),
    ],
)
def test_moments(text: str, zone: str | None, expected: str):
    assert parse_moment(text, zone, NOW) == datetime.fromisoformat(expected).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "zone", "complaint"),
    [
        ("tomorrow", None, "is not understood; give a time with its offset"),
        ("", None, "is not understood"),
        ("P", None, "is not understood"),
        ("PT", None, "is not understood"),
        ("P1DT", None, "is not understood"),
        ("-P1D", None, "is not understood"),
        ("P1.5D", None, "is not understood"),
        ("2026-W05-1", None, "is not understood"),
        ("20261201T090000Z", None, "is not understood"),
        ("2026-12-01T9:00Z", None, "is not understood"),
        ("2026-12-01T09:00:00+02", None, "is not understood"),
        ("٢٠٢٦-12-01T09:00:00Z", None, "is not understood"),
        ("P٢D", None, "is not understood"),
        ("2026-12-01", None, "names no time of day"),
        ("2026-12-01T09:00", None, "names no offset"),
        ("2026-13-01T09:00Z", None, "is no moment of the calendar"),
        ("2026-02-30T09:00Z", None, "is no moment of the calendar"),
        ("2026-12-01T25:00Z", None, "is no moment of the calendar"),
        ("2026-12-01T09:00:00+99:00", None, "is no moment of the calendar"),
        ("0001-01-01T00:00:00+14:00", None, "is no moment of the calendar"),
        ("9999-12-31T23:59:59-14:00", None, "is no moment of the calendar"),
        ("P9999Y", None, "is no moment of the calendar"),
        ("2026-03-29T03:30", "Europe/Kyiv", "clocks skip it"),
        ("2026-12-01T09:00", "Kyiv", "no time zone 'Kyiv'"),
        ("2026-12-01T09:00", "../../etc/passwd", "no time zone"),
        ("2026-12-01T09:00", "Europe", "no time zone"),
        ("PT1H", "Mars/Olympus", "no time zone"),
    ],
)
def test_what_is_no_moment(text: str, zone: str | None, complaint: str):
    with pytest.raises(ToolFailed, match=complaint) as caught:
        parse_moment(text, zone, NOW)
    assert caught.value.code == "invalid_args"


def test_a_date_alone_is_the_end_of_the_day_where_it_may_be_one():
    assert parse_moment("2026-12-01", None, NOW, takes_date=True) == datetime(2026, 12, 1, 23, 59, 59, tzinfo=UTC)
    assert parse_moment("2026-12-01", "Europe/Kyiv", NOW, takes_date=True).hour == 21


def test_ahead():
    assert check_ahead(NOW + timedelta(seconds=1), NOW) == NOW + timedelta(seconds=1)
    with pytest.raises(ToolFailed, match="has passed; it is 2026-01-31T12:00:00Z now"):
        check_ahead(NOW, NOW)
    with pytest.raises(ToolFailed, match="at most 10 years ahead"):
        check_ahead(NOW + timedelta(days=3700), NOW)


def parsed(text: str, zone: str | None) -> datetime | ToolFailed:
    try:
        return parse_moment(text, zone, NOW)
    except ToolFailed as refused:
        return refused


@given(st.text(max_size=40), st.none() | st.text(max_size=20))
def test_any_text_is_a_moment_of_utc_or_refused(text: str, zone: str | None):
    found = parsed(text, zone)
    assert isinstance(found, ToolFailed) or found.tzinfo is UTC


@given(st.from_regex(r"P(\d{1,4}Y)?(\d{1,5}M)?(\d{1,6}D)?(T\d{1,6}H)?", fullmatch=True), st.booleans())
def test_a_duration_never_lies_in_the_past(text: str, is_zoned: bool):
    found = parsed(text, "America/New_York" if is_zoned else None)
    assert isinstance(found, ToolFailed) or found >= NOW
