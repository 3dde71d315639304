"""Prices: every token once, halves up, overrides first, an unknown price never free."""

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import SettingError, Unavailable
from shared.llm.pricing import PriceTable, UnitPrices, cost_microusd, load_price_table
from shared.settings import CONFIG_DIR
from shared.wire.chat import new_usage

NOW = datetime(2026, 11, 20, tzinfo=UTC)
MINI = UnitPrices(input=Decimal("0.4"), output=Decimal("1.6"), cached_input=Decimal("0.1"))
counts = st.integers(0, 1_000_000)


def test_cost_of_a_known_call():
    # 800 × 0.4 + 200 × 0.1 + 500 × 1.6 = 1140 micro-USD
    assert cost_microusd(new_usage(1000, 500, cached=200), MINI) == 1140


@pytest.mark.parametrize(("tokens", "cost"), [(1, 1), (2, 1), (3, 2), (0, 0)])
def test_halves_are_rounded_up(tokens, cost):
    half = UnitPrices(input=Decimal("0.5"), output=Decimal(0), cached_input=Decimal(0))
    assert cost_microusd(new_usage(tokens, 0), half) == cost


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
    prices = load_price_table(CONFIG_DIR / "prices.yaml").unit_prices(provider, "anything", NOW, 10)
    assert cost_microusd(new_usage(10_000, 10_000), prices) == 0


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
