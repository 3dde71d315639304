"""Which failures are repeated on the same route, after which wait."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import (
    ApiError,
    ContextLengthExceeded,
    InsufficientQuota,
    Internal,
    InvalidRequest,
    LlmTimeout,
    Overloaded,
    RateLimitExceeded,
    Unavailable,
    UpstreamError,
)
from shared.llm.routing.retry import (
    BACKOFF_BASE_S,
    BACKOFF_CAP_S,
    LONGEST_STATED_WAIT_S,
    is_route_fault,
    wait_before_repeating,
    wait_from_headers,
)

NOW = datetime(2026, 11, 20, 12, 0, 0, tzinfo=UTC)
draws = st.floats(0, 1, exclude_max=True)


@pytest.mark.parametrize("kind", [UpstreamError, LlmTimeout, RateLimitExceeded, Unavailable])
def test_faults_of_a_route(kind):
    assert is_route_fault(kind("x"))
    assert wait_before_repeating(kind("x"), 1, allowed=2, time_left_s=60, draw=lambda: 0.5) is not None
    assert wait_before_repeating(kind("x"), 2, allowed=2, time_left_s=60, draw=lambda: 0.5) is None


@pytest.mark.parametrize(
    "kind", [InvalidRequest, ContextLengthExceeded, InsufficientQuota, Overloaded, Internal, ValueError]
)
def test_other_faults(kind):
    assert not is_route_fault(kind("x"))
    if issubclass(kind, ApiError):
        assert wait_before_repeating(kind("x"), 1, allowed=9, time_left_s=60, draw=lambda: 0.5) is None


def test_what_says_it_should_not_be_retried_is_not():
    error = UpstreamError("the key was refused", headers={"x-should-retry": "false"})
    assert wait_before_repeating(error, 1, allowed=2, time_left_s=60, draw=lambda: 0.5) is None


@given(st.integers(1, 9), st.floats(0, 40), st.floats(-1, 100), draws)
def test_the_wait_is_jittered_bounded_and_never_shorter_than_asked(tries, stated, left_s, drawn):
    error = RateLimitExceeded("x", headers={"retry-after-ms": str(stated * 1000)})
    wait = wait_before_repeating(error, tries, allowed=10, time_left_s=left_s, draw=lambda: drawn)
    if wait is None:
        assert stated > LONGEST_STATED_WAIT_S - 1e-6 or left_s <= stated + BACKOFF_CAP_S
    else:
        assert wait >= stated - 1e-6
        assert wait < left_s
        assert wait <= stated + min(BACKOFF_CAP_S, BACKOFF_BASE_S * 2 ** (tries - 1)) + 1e-6


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.25"}, 0.25),
        ({"retry-after": "9", "retry-after-ms": "120"}, 0.12),
        ({"retry-after": "Fri, 20 Nov 2026 12:00:30 GMT"}, 30.0),
        ({"retry-after": "Fri, 20 Nov 2026 11:00:00 GMT"}, 0.0),
        ({"retry-after": "Fri, 20 Nov 2026 12:00:30"}, 30.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after-ms": "soon", "retry-after": "2"}, 2.0),
    ],
)
def test_what_a_provider_asks_for(headers, wait):
    assert wait_from_headers(headers, NOW) == wait


@given(st.text(max_size=40))
def test_no_header_makes_it_fail(text):
    wait = wait_from_headers({"retry-after": text})
    assert wait is None or wait >= 0
