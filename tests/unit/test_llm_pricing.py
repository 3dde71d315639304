"""Prices: every token once, halves up, overrides first, an unknown price never free."""

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import SettingError, Unavailable
from shared.llm.money.pricing import PriceTable, UnitPrices, cost_microusd, load_price_table, token_parts
from shared.settings import CONFIG_DIR
from shared.wire.chat import new_usage

NOW = datetime(2026, 11, 20, tzinfo=UTC)


def prices(plain: str, output: str, **more: str) -> UnitPrices:
    parts = {"cached_input": plain, "cache_creation": plain, "cache_creation_1h": plain, **more}
    return UnitPrices(input=Decimal(plain), output=Decimal(output), **{name: Decimal(p) for name, p in parts.items()})


MINI = prices("0.4", "1.6", cached_input="0.1")
SONNET = prices("3", "15", cached_input="0.3", cache_creation="3.75", cache_creation_1h="6")
counts = st.integers(0, 1_000_000)


def test_cost_of_a_known_call():
    # 800 × 0.4 + 200 × 0.1 + 500 × 1.6 = 1140 micro-USD
    assert cost_microusd(new_usage(1000, 500, cached=200), MINI) == 1140


@pytest.mark.parametrize(("tokens", "cost"), [(1, 1), (2, 1), (3, 2), (0, 0)])
def test_halves_are_rounded_up(tokens, cost):
    assert cost_microusd(new_usage(tokens, 0), prices("0.5", "0")) == cost


def test_written_cache_tokens_are_charged_once():
    """litellm issue 9812: charged as plain tokens and as written ones, 0.091311 USD instead of 0.054399."""
    usage = new_usage(3 + 12304, 550, cache_creation=12304)
    table = load_price_table(CONFIG_DIR / "prices.yaml")
    assert table.unit_prices("anthropic", "claude-3-7-sonnet-20250219", NOW, usage["prompt_tokens"]) == SONNET
    assert cost_microusd(usage, SONNET) == 54_399


@given(counts, counts, counts, counts, counts)
def test_each_token_is_priced_once(plain, cached, short, long, completion):
    usage = new_usage(
        plain + cached + short + long, completion, cached=cached, cache_creation=short + long, cache_creation_1h=long
    )
    parts = token_parts(usage)
    assert (parts.plain, parts.cached, parts.created, parts.created_1h) == (plain, cached, short, long)
    exact = plain * 3 + cached * Decimal("0.3") + short * Decimal("3.75") + long * 6 + completion * 15
    assert abs(cost_microusd(usage, SONNET) - exact) <= Decimal("0.5")


@given(*[st.integers(-10, 1_000)] * 5)
def test_nonsense_of_a_provider_never_costs_less_than_nothing(prompt, cached, created, long, completion):
    usage = new_usage(prompt, completion, cached=cached, cache_creation=created, cache_creation_1h=long)
    parts = token_parts(usage)
    assert min(parts.plain, parts.cached, parts.created, parts.created_1h, parts.completion) >= 0
    assert parts.prompt == max(prompt, 0)
    assert cost_microusd(usage, SONNET) >= 0


@given(counts, counts, counts)
def test_caching_never_costs_more_and_parts_sum_up(fresh, cached, completion):
    usage = new_usage(fresh + cached, completion, cached=cached)
    whole = cost_microusd(usage, MINI)
    parts = Decimal("0.4") * fresh + Decimal("0.1") * cached + Decimal("1.6") * completion
    assert abs(whole - parts) <= Decimal("0.5")
    assert whole <= cost_microusd(new_usage(fresh + cached, completion), MINI)


def test_published_prices_and_size_tiers():
    table = load_price_table(CONFIG_DIR / "prices.yaml")
    assert table.unit_prices("openai", "gpt-4.1-mini", NOW, 1000) == MINI
    small = table.unit_prices("anthropic", "claude-haiku-5-5", NOW, 100_000)
    large = table.unit_prices("anthropic", "claude-haiku-5-5", NOW, 100_001)
    assert large.input > small.input
    assert large.output > small.output


@pytest.mark.parametrize("provider", ["local", "offline"])
def test_local_models_are_free(provider):
    free = load_price_table(CONFIG_DIR / "prices.yaml").unit_prices(provider, "anything", NOW, 10)
    assert cost_microusd(new_usage(10_000, 10_000), free) == 0


def test_an_unknown_price_is_refused_or_has_the_default():
    with pytest.raises(Unavailable, match="openai/gpt-99"):
        PriceTable({}).unit_prices("openai", "gpt-99", NOW, 0)
    assert PriceTable({}, MINI).unit_prices("openai", "gpt-99", NOW, 0) == MINI


def test_overrides_win_exact_before_wildcard(tmp_path: Path):
    path = tmp_path / "prices.yaml"
    path.write_text("models:\n  openai/*: {input: 9, output: 9}\n  openai/gpt-4.1-mini: {input: 1.5, output: 2}\n")
    table = load_price_table(path)
    assert table.unit_prices("openai", "gpt-4.1-mini", NOW, 0).cached_input == Decimal("1.5")
    assert table.unit_prices("openai", "gpt-4.1", NOW, 0).output == 9


@pytest.mark.parametrize("entry", ["{input: 1}", "{input: -1, output: 1}", "{input: cheap, output: 1}", "3"])
def test_a_fault_names_its_entry(tmp_path: Path, entry):
    path = tmp_path / "prices.yaml"
    path.write_text(f"models:\n  openai/x: {entry}\n")
    with pytest.raises(SettingError, match=r"models\.openai/x"):
        load_price_table(path)
