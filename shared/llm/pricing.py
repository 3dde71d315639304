"""What a call costs: unit prices from the override table, then from genai-prices, frozen per call."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import yaml

from shared.errors import SettingError, Unavailable
from shared.wire.chat import Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitPrices:
    """USD per million tokens, which is also micro-USD per token. ``cached_input`` is for tokens read from a cache."""

    input: Decimal
    output: Decimal
    cached_input: Decimal


def cost_microusd(usage: Usage, prices: UnitPrices) -> int:
    """The cost in whole micro-USD, halves rounded up. Each token is priced once: cached ones are part of the prompt."""
    cached = usage.get("prompt_tokens_details", {}).get("cached_tokens", 0)
    total = (
        prices.input * (usage["prompt_tokens"] - cached)
        + prices.cached_input * cached
        + prices.output * usage["completion_tokens"]
    )
    return int(total.quantize(Decimal(1), rounding=ROUND_HALF_UP))


class PriceTable:
    """Unit prices by provider and model. An unknown price is refused, or has the configured default; it is never 0."""

    def __init__(self, overrides: Mapping[str, UnitPrices], unknown: UnitPrices | None = None) -> None:
        self._overrides = overrides
        self._unknown = unknown

    def unit_prices(self, provider: str, model: str, moment: datetime, prompt_tokens: int) -> UnitPrices:
        """The prices for a call of that moment with so many prompt tokens (large prompts may cost more per token).

        Raises Unavailable when nobody knows the price.
        """
        own = self._overrides.get(f"{provider}/{model}") or self._overrides.get(f"{provider}/*")
        prices = own or _published_prices(provider, model, moment, prompt_tokens) or self._unknown
        if prices is None:
            raise Unavailable(
                f"the price of {provider}/{model} is unknown, so the call was refused; an operator can state it in"
                " infra/config/prices.yaml"
            )
        return prices


def load_price_table(path: Path) -> PriceTable:
    """Read and check the override table. Raises SettingError that names the entry at fault."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, yaml.YAMLError) as error:
        raise SettingError(f"DAARION_PRICES: cannot read {path}: {error}") from None
    entries = document.get("models") or {}
    unknown = document.get("unknown")
    return PriceTable(
        {str(name): _parse_prices(f"{path}: models.{name}", entry) for name, entry in entries.items()},
        None if unknown is None else _parse_prices(f"{path}: unknown", unknown),
    )


def _parse_prices(where: str, entry: Any) -> UnitPrices:
    if not isinstance(entry, dict) or not {"input", "output"} <= set(entry) <= {"input", "output", "cached_input"}:
        raise SettingError(f"{where} must have input and output, and may have cached_input (USD per million tokens)")
    values = {name: _parse_price(f"{where}.{name}", value) for name, value in entry.items()}
    return UnitPrices(**{"cached_input": values["input"], **values})


def _parse_price(where: str, value: Any) -> Decimal:
    try:
        price = Decimal(str(value))
    except InvalidOperation:
        price = Decimal(-1)
    if not price.is_finite() or price < 0:
        raise SettingError(f"{where} must be a number, 0 or above; it is {value!r}")
    return price


def _published_prices(provider: str, model: str, moment: datetime, prompt_tokens: int) -> UnitPrices | None:
    """From the genai-prices wheel: 0.4 s to import, so only when a call needs it."""
    from genai_prices import Usage as PricedUsage
    from genai_prices import calc_price

    try:
        found = calc_price(
            PricedUsage(input_tokens=prompt_tokens, output_tokens=0),
            model,
            provider_id=provider,
            genai_request_timestamp=moment,
        ).model_price
    except LookupError:
        return None
    regular = _at_size(found.input_mtok, prompt_tokens)
    output = _at_size(found.output_mtok, prompt_tokens)
    if regular is None or output is None:
        return None
    cached = _at_size(found.cache_read_mtok, prompt_tokens)
    return UnitPrices(input=regular, output=output, cached_input=regular if cached is None else cached)


def _at_size(price: Any, prompt_tokens: int) -> Decimal | None:
    """A price that depends on the prompt's size: passing a tier's start moves all tokens to that tier."""
    if price is None or isinstance(price, Decimal):
        return price
    reached = [tier.price for tier in price.tiers if prompt_tokens > tier.start]
    return Decimal(reached[-1] if reached else price.base)
