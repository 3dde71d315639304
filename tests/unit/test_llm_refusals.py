"""What callers are told of limits and budgets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.llm.money.refusals import Window, budget_refusal, duration, rate_headers, rate_refusal


def window(**more) -> Window:
    values = {
        "scope": "key",
        "id": "key_1",
        "requests": 3,
        "requests_per_minute": 10,
        "tokens": 500,
        "tokens_per_minute": None,
        "remaining_ms": 12_345,
    }
    return Window(**{**values, **more})


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [(0, "0ms"), (-3, "0ms"), (120, "120ms"), (1000, "1s"), (59_200, "59.2s"), (60_000, "1m0s"), (61_050, "1m1.05s")],
)
def test_durations_are_openai_s(milliseconds, text):
    assert duration(milliseconds) == text


def test_headers_tell_of_the_tightest_scope():
    windows = [window(), window(scope="microdao", requests=99, requests_per_minute=100, tokens_per_minute=600)]
    assert rate_headers(windows) == {
        "x-ratelimit-limit-requests": "100",
        "x-ratelimit-remaining-requests": "1",
        "x-ratelimit-reset-requests": "12.345s",
        "x-ratelimit-limit-tokens": "600",
        "x-ratelimit-remaining-tokens": "100",
        "x-ratelimit-reset-tokens": "12.345s",
    }
    assert rate_headers([]) == {}
    assert rate_headers([window(requests_per_minute=None)]) == {}


@given(st.integers(0, 60_000), st.integers(0, 60_000))
def test_a_refusal_says_when_every_full_window_has_ended(first, second):
    full = [window(requests=10, remaining_ms=first), window(tokens_per_minute=600, remaining_ms=second), window()]
    refused = rate_refusal(full, tokens=101)
    wait_ms = max(first, second, 1)
    assert refused.headers["retry-after-ms"] == str(wait_ms)
    assert int(refused.headers["retry-after"]) >= 1
    assert wait_ms <= int(refused.headers["retry-after"]) * 1000 < wait_ms + 1000
    assert "Try again in" in refused.message


def test_what_never_fits_is_not_to_be_retried():
    refused = rate_refusal([window(tokens_per_minute=600)], tokens=601)
    assert refused.headers["x-should-retry"] == "false"
    assert "601 tokens" in refused.message


def test_a_spent_budget_says_all_there_is_to_know():
    budget = {
        "scope": "agent",
        "id": "agent:sofia",
        "period": "day",
        "limit_microusd": 1_000_000,
        "spent_microusd": 990_000,
        "reserved_microusd": 5_000,
        "ends_at": "2026-11-21T00:00:00+00:00",
    }
    refused = budget_refusal(budget)
    assert refused.headers == {"x-should-retry": "false"}
    assert refused.message == (
        "The day budget of agent agent:sofia has no room for this call: limit 1.000000 USD, spent 0.990000 USD, held"
        " for calls in flight 0.005000 USD. It resets at 2026-11-21T00:00:00Z. An administrator can raise it"
        " (PUT /admin/budgets)."
    )
    assert "USD" not in budget_refusal({**budget, "scope": "platform"}).message
    assert "does not reset" in budget_refusal({**budget, "period": "total", "ends_at": None}).message
