"""From what a model writes to a moment: RFC 3339, a local time with its time zone, or an ISO 8601 duration. Pure."""

import re
from datetime import UTC, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from shared.tools.model import ToolFailed

MOST_YEARS_AHEAD: Final = 10

_MOMENT = re.compile(
    r"(\d{4}-\d{2}-\d{2})(?:[Tt ](\d{2}:\d{2}(?::\d{2}(?:\.\d{1,6})?)?)([Zz]|[+-]\d{2}:\d{2})?)?", re.ASCII
)
_DURATION = re.compile(
    r"P(?=\d|T\d)(?:(\d{1,4})Y)?(?:(\d{1,5})M)?(?:(\d{1,5})W)?(?:(\d{1,6})D)?"
    r"(?:T(?=\d)(?:(\d{1,6})H)?(?:(\d{1,8})M)?(?:(\d{1,9})S)?)?",
    re.ASCII,
)
_FORMS = (
    "a time with its offset (2026-12-01T09:00:00+02:00), a local time with time_zone (2026-12-01T09:00), or a duration"
    " from now (PT30M, P2D, P1W)"
)


def parse_moment(text: str, zone_name: str | None, now: datetime, *, takes_date: bool = False) -> datetime:
    """The moment in UTC. Days, weeks, months and years of a duration keep the zone's time of day.

    ``takes_date``: a date alone is the end of that day in the zone (UTC unless named). Raises ToolFailed saying what is
    wrong.
    """
    zone = _zone(zone_name) if zone_name else None
    text = text.strip()
    try:
        if found := _DURATION.fullmatch(text):
            return _after(now, zone, [int(part or 0) for part in found.groups()])
        if found := _MOMENT.fullmatch(text):
            return _moment(found, zone, takes_date=takes_date)
    except (ValueError, OverflowError):
        raise ToolFailed(f"{text!r} is no moment of the calendar", code="invalid_args") from None
    raise ToolFailed(f"{text[:100]!r} is not understood; give {_FORMS}", code="invalid_args")


def check_ahead(moment: datetime, now: datetime) -> datetime:
    """The moment. Raises ToolFailed when it lies in the past, or too far ahead for anybody to mean it."""
    if moment <= now:
        raise ToolFailed(
            f"{moment:%Y-%m-%dT%H:%M:%SZ} has passed; it is {now:%Y-%m-%dT%H:%M:%SZ} now", code="invalid_args"
        )
    if moment > now + timedelta(days=366 * MOST_YEARS_AHEAD):
        raise ToolFailed(f"at most {MOST_YEARS_AHEAD} years ahead", code="invalid_args")
    return moment


def _moment(found: re.Match[str], zone: ZoneInfo | None, *, takes_date: bool) -> datetime:
    day, time, offset = found.groups()
    if time is None:
        if not takes_date:
            raise ToolFailed(f"{day} names no time of day; give {_FORMS}", code="invalid_args")
        return _placed(datetime.fromisoformat(f"{day}T23:59:59"), zone or ZoneInfo("UTC"))
    if offset:
        return datetime.fromisoformat(f"{day}T{time}{offset.upper()}").astimezone(UTC)
    if zone is None:
        raise ToolFailed(
            f"{day}T{time} names no offset; add one (Z, +02:00) or name the time_zone", code="invalid_args"
        )
    return _placed(datetime.fromisoformat(f"{day}T{time}"), zone)


def _placed(local: datetime, zone: ZoneInfo) -> datetime:
    """A local time in UTC; of two such times the first. Raises ToolFailed for one that clocks skip."""
    moment = local.replace(tzinfo=zone).astimezone(UTC)
    if moment.astimezone(zone).replace(tzinfo=None) != local:
        raise ToolFailed(f"there is no {local:%Y-%m-%d %H:%M} in {zone.key}: clocks skip it", code="invalid_args")
    return moment


def _after(now: datetime, zone: ZoneInfo | None, parts: list[int]) -> datetime:
    years, months, weeks, days, hours, minutes, seconds = parts
    local = now.astimezone(zone or UTC)
    months += local.month - 1 + 12 * years
    year, month = local.year + months // 12, months % 12 + 1
    moved = local.replace(year=year, month=month, day=min(local.day, _last_day(year, month)))
    moved += timedelta(days=7 * weeks + days)  # of the wall clock
    return moved.astimezone(UTC) + timedelta(hours=hours, minutes=minutes, seconds=seconds)


def _last_day(year: int, month: int) -> int:
    return (datetime(year + month // 12, month % 12 + 1, 1, tzinfo=UTC) - timedelta(days=1)).day


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ToolFailed(f"no time zone {name[:100]!r}; give one such as Europe/Kyiv", code="invalid_args") from None
