"""The time of day, in one place so that nothing reads a naive clock."""

from datetime import UTC, datetime


def utc_now() -> datetime:
    """The present moment, always with its zone (UTC)."""
    return datetime.now(UTC)


def rfc3339(moment: datetime) -> str:
    """``2026-11-20T12:00:00.123Z``: the form of every time in the API (RFC 3339, UTC)."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
