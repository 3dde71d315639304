"""What is held for a call is never less than what it can come to."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import Unavailable
from shared.llm.money.pricing import PriceTable, UnitPrices, cost_microusd
from shared.llm.money.worst_case import WorstCase, most_completion_tokens, worst_case
from shared.llm.routing.models import Route
from shared.llm.tokens import estimate_prompt_tokens, most_prompt_tokens, most_text_tokens
from shared.wire.chat import ChatRequest, new_usage

NOW = datetime(2026, 11, 20, tzinfo=UTC)


def prices(plain: str, output: str) -> UnitPrices:
    one, more = Decimal(plain), Decimal(plain) * 2
    return UnitPrices(
        input=one, output=Decimal(output), cached_input=one / 10, cache_creation=more, cache_creation_1h=more
    )


TABLE = PriceTable({"openai/a": prices("0.4", "1.6"), "anthropic/b": prices("3", "15"), "offline/*": prices("0", "0")})
CHEAP, DEAR = Route(provider="openai", model="a"), Route(provider="anthropic", model="b")
FREE, UNKNOWN = Route(provider="offline", model="x"), Route(provider="local", model="nobody-knows")
tokens = st.integers(0, 100_000)


def request(**more) -> ChatRequest:
    return ChatRequest.model_validate({"model": "m", "messages": [{"role": "user", "content": "hello"}], **more})


def test_the_dearest_route_decides():
    held = worst_case(100, 50, [CHEAP, DEAR, UNKNOWN], TABLE, NOW)
    assert held == WorstCase(prompt_tokens=100, completion_tokens=50, cost_microusd=100 * 6 + 50 * 15)
    assert held.tokens == 150
    assert worst_case(100, 50, [FREE], TABLE, NOW).cost_microusd == 0


def test_no_known_price_is_refused():
    for routes in ([UNKNOWN], []):
        with pytest.raises(Unavailable):
            worst_case(1, 1, routes, TABLE, NOW)


def test_a_route_s_cap_bounds_its_answer():
    capped = Route(provider="anthropic", model="b", max_tokens=10)
    assert worst_case(0, 5000, [capped], TABLE, NOW).cost_microusd == 150
    assert worst_case(0, 5000, [capped, CHEAP], TABLE, NOW).completion_tokens == 5000


@given(tokens, tokens, tokens, tokens, tokens, st.sampled_from([CHEAP, DEAR]))
def test_no_use_within_the_bounds_costs_more(plain, cached, short, long, completion, route):
    prompt = plain + cached + short + long
    usage = new_usage(prompt, completion, cached=cached, cache_creation=short + long, cache_creation_1h=long)
    held = worst_case(prompt, completion, [CHEAP, DEAR], TABLE, NOW)
    assert cost_microusd(usage, TABLE.unit_prices(route.provider, route.model, NOW, prompt)) <= held.cost_microusd


def test_what_a_request_allows_for_its_answer():
    assert most_completion_tokens(request(), 8192) == 8192
    assert most_completion_tokens(request(max_tokens=7), 8192) == 7
    assert most_completion_tokens(request(max_tokens=7, max_completion_tokens=9), 8192) == 9


@given(st.text(max_size=300), st.text(max_size=300))
def test_the_bound_is_above_the_estimate(text, extra):
    tool = {"type": "function", "function": {"name": "f", "description": extra}}
    asked = request(
        messages=[{"role": "system", "content": extra, "name": "n"}, {"role": "user", "content": text}], tools=[tool]
    )
    assert most_prompt_tokens(asked) >= estimate_prompt_tokens(asked) // 2
    assert most_prompt_tokens(asked) >= (len(text.encode(errors="replace")) + len(extra)) / 2


def test_images_count_for_what_they_show_not_for_their_bytes():
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 900_000}}
    asked = request(messages=[{"role": "user", "content": [{"type": "text", "text": "what is it?"}, picture]}])
    assert 6_000 < most_prompt_tokens(asked) < 7_000


def test_inputs_of_embeddings():
    assert most_text_tokens(["abcd", "ї"]) == 3
    assert most_text_tokens([[1, 2, 3], [4]]) == 4
