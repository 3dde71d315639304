"""What callers are told of their limits and budgets: headers on every answer, and the two refusals. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shared.errors import InsufficientQuota, RateLimitExceeded


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The running minute of one scope: what was admitted in it, what may be (None: any number), when it ends."""

    scope: str
    id: str
    requests: int
    requests_per_minute: int | None
    tokens: int
    tokens_per_minute: int | None
    remaining_ms: int

    @property
    def requests_left(self) -> int | None:
        """Requests that still fit."""
        return None if self.requests_per_minute is None else max(self.requests_per_minute - self.requests, 0)

    @property
    def tokens_left(self) -> int | None:
        """Tokens that still fit."""
        return None if self.tokens_per_minute is None else max(self.tokens_per_minute - self.tokens, 0)

    def has_room_for(self, tokens: int) -> bool:
        """Whether one more request of so many tokens fits."""
        return self.requests_left != 0 and (self.tokens_left is None or tokens <= self.tokens_left)


def rate_headers(windows: Sequence[Window]) -> dict[str, str]:
    """``x-ratelimit-{limit,remaining,reset}-{requests,tokens}`` of the scope with the least left, if any limits."""
    headers: dict[str, str] = {}
    by_requests = [(one.requests_left, one.requests_per_minute, one.remaining_ms) for one in windows]
    by_tokens = [(one.tokens_left, one.tokens_per_minute, one.remaining_ms) for one in windows]
    for unit, figures in (("requests", by_requests), ("tokens", by_tokens)):
        limited = [(left, limit, ms) for left, limit, ms in figures if left is not None]
        if limited:
            left, limit, ms = min(limited)
            headers[f"x-ratelimit-limit-{unit}"] = str(limit)
            headers[f"x-ratelimit-remaining-{unit}"] = str(left)
            headers[f"x-ratelimit-reset-{unit}"] = duration(ms)
    return headers


def rate_refusal(windows: Sequence[Window], tokens: int) -> RateLimitExceeded:
    """The error for a call of so many tokens that does not fit in one of these windows."""
    too_large = [one for one in windows if one.tokens_per_minute is not None and tokens > one.tokens_per_minute]
    if too_large:
        return _too_large(too_large[0], tokens)
    full = [one for one in windows if not one.has_room_for(tokens)]
    last = max(full, key=lambda one: one.remaining_ms)
    what = "requests" if last.requests_left == 0 else "tokens"
    limit = last.requests_per_minute if what == "requests" else last.tokens_per_minute
    wait_ms = max(last.remaining_ms, 1)
    waits = {"retry-after": str(-(-wait_ms // 1000)), "retry-after-ms": str(wait_ms)}
    return RateLimitExceeded(
        f"Rate limit reached for {_scope(last.scope, last.id)}: {limit} {what} per minute."
        f" Try again in {duration(wait_ms)}.",
        headers={**rate_headers(windows), **waits},
    )


def budget_refusal(budget: Mapping[str, Any]) -> InsufficientQuota:
    """The error for a call that does not fit in a budget (a row of llm_budget_period, its limit_microusd, ends_at)."""
    figures = (
        ""
        if budget["scope"] == "platform"  # what all tenants spend is not one tenant's to know
        else f": limit {_usd(budget['limit_microusd'])} USD, spent {_usd(budget['spent_microusd'])} USD, held for"
        f" calls in flight {_usd(budget['reserved_microusd'])} USD"
    )
    resets = str(budget["ends_at"]).replace("+00:00", "Z") if budget["ends_at"] else None
    return InsufficientQuota(
        f"The {budget['period']} budget of {_scope(budget['scope'], budget['id'])} has no room for this call{figures}."
        f" {f'It resets at {resets}.' if resets else 'It does not reset.'}"
        " An administrator can raise it (PUT /admin/budgets).",
        headers={"x-should-retry": "false"},
    )


def duration(milliseconds: int) -> str:
    """A length of time as OpenAI writes it: ``120ms``, ``1s``, ``59.2s``, ``1m0s``."""
    if milliseconds < 1000:
        return f"{max(milliseconds, 0)}ms"
    minutes, rest = divmod(milliseconds, 60_000)
    seconds = f"{rest / 1000:.3f}".rstrip("0").rstrip(".") + "s"
    return f"{minutes}m{seconds}" if minutes else seconds


def _too_large(window: Window, tokens: int) -> RateLimitExceeded:
    return RateLimitExceeded(
        f"This request may use {tokens} tokens, more than {_scope(window.scope, window.id)} may use in a minute"
        f" ({window.tokens_per_minute}). Send less, lower max_tokens, or have the limit raised (PUT /admin/limits).",
        headers={"x-should-retry": "false"},
    )


def _scope(scope: str, identifier: str) -> str:
    return "the platform" if scope == "platform" else f"{scope} {identifier}"


def _usd(microusd: int) -> str:
    return f"{microusd / 1_000_000:.6f}"
