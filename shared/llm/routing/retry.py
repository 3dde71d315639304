"""When a failed attempt is repeated, and after which wait. Pure: time left and random draws come in as arguments."""

import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from shared.errors import ApiError, LlmTimeout, RateLimitExceeded, Unavailable, UpstreamError

BACKOFF_BASE_S = 0.2
BACKOFF_CAP_S = 5.0
LONGEST_STATED_WAIT_S = 15.0
"""A provider that wants a longer pause is not waited for: the next route answers, or the caller hears of the wait."""

_LONGEST_TOLD_S = 3600.0
_ROUTE_FAULTS = (UpstreamError, LlmTimeout, RateLimitExceeded, Unavailable)


def is_route_fault(error: BaseException | None) -> bool:
    """Whether another route may not have this fault. Any other is the caller's own, and would be met everywhere."""
    return isinstance(error, _ROUTE_FAULTS)


def wait_before_repeating(
    error: ApiError, tries: int, *, allowed: int, time_left_s: float, draw: Callable[[], float]
) -> float | None:
    """Seconds to wait before the same route is tried again after ``tries`` failures; None when it is not.

    Full jitter: a random part of ``base * 2^(tries - 1)``, at least what the provider asked for (M. Brooker,
    "Exponential Backoff and Jitter", AWS Architecture Blog, 2015).
    """
    if tries >= allowed or not is_route_fault(error) or error.headers.get("x-should-retry") == "false":
        return None
    stated = wait_from_headers(error.headers) or 0.0
    wait = stated + draw() * min(BACKOFF_CAP_S, BACKOFF_BASE_S * 2 ** (tries - 1))
    return wait if stated <= LONGEST_STATED_WAIT_S and wait < time_left_s else None


def wait_from_headers(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Seconds that ``retry-after-ms`` or ``retry-after`` ask for; None when neither says anything sensible.

    ``retry-after`` is a number of seconds or an HTTP date (RFC 9110 §10.2.3).
    """
    milliseconds = _number(headers.get("retry-after-ms", ""))
    if milliseconds is not None:
        return milliseconds / 1000
    text = headers.get("retry-after", "")
    seconds = _number(text)
    return seconds if seconds is not None else _until(text, now or datetime.now(UTC))


def waiting_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """What a provider's answer says of waiting, as headers of our error; empty when it says nothing.

    Clients wait for whole seconds, at least 1, or to the millisecond if they know how.
    """
    wait = wait_from_headers(headers)
    if wait is None:
        return {}
    bounded = min(wait, _LONGEST_TOLD_S)
    return {"retry-after": str(max(1, math.ceil(bounded))), "retry-after-ms": str(math.ceil(bounded * 1000))}


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 <= value < float("inf") else None


def _until(text: str, now: datetime) -> float | None:
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, (moment.replace(tzinfo=moment.tzinfo or UTC) - now).total_seconds())
