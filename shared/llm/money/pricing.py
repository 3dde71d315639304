"""What a call costs: unit prices from the override table, then from genai-prices, frozen per call."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from shared.errors import SettingError, Unavailable
from shared.wire.chat import Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitPrices:
    """USD per million tokens, which is also micro-USD per token.

    ``cached_input`` is for tokens read from the provider's cache, ``cache_creation`` for those written to it, and
    ``cache_creation_1h`` for those written to stay for an hour.
    """

    input: Decimal
    output: Decimal
    cached_input: Decimal
    cache_creation: Decimal
    cache_creation_1h: Decimal

    @property
    def dearest_input(self) -> Decimal:
        """The most that a token of a prompt can cost."""
        return max(self.input, self.cached_input, self.cache_creation, self.cache_creation_1h)


FREE = UnitPrices(**dict.fromkeys((field.name for field in fields(UnitPrices)), Decimal(0)))


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenParts:
    """A call's tokens by price: disjoint, never negative, together the prompt and the completion."""

    plain: int
    cached: int
    created: int
    created_1h: int
    completion: int

    @property
    def prompt(self) -> int:
        """All of the prompt."""
        return self.plain + self.cached + self.created + self.created_1h


def token_parts(usage: Usage) -> TokenParts:
    """Usage split so that each token is in one part. A provider's details that exceed its prompt are cut to fit."""
    details = usage.get("prompt_tokens_details", {})
    left = max(usage["prompt_tokens"], 0)
    counts = []
    created, created_1h = details.get("cache_creation_tokens", 0), details.get("cache_creation_1h_tokens", 0)
    for wanted in (details.get("cached_tokens", 0), created_1h, created - created_1h):
        counts.append(min(max(wanted, 0), left))
        left -= counts[-1]
    cached, long_kept, short_kept = counts
    completion = max(usage["completion_tokens"], 0)
    return TokenParts(plain=left, cached=cached, created=short_kept, created_1h=long_kept, completion=completion)


def cost_microusd(usage: Usage, prices: UnitPrices) -> int:
    """The cost in whole micro-USD, halves rounded up; each token is priced once."""
    parts = token_parts(usage)
    total = (
        prices.input * parts.plain
        + prices.cached_input * parts.cached
        + prices.cache_creation * parts.created
        + prices.cache_creation_1h * parts.created_1h
        + prices.output * parts.completion
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
    known = {field.name for field in fields(UnitPrices)}
    if not isinstance(entry, dict) or not {"input", "output"} <= set(entry) <= known:
        optional = ", ".join(sorted(known - {"input", "output"}))
        raise SettingError(f"{where} must have input and output, and may have {optional} (USD per million tokens)")
    return _with_defaults({name: _parse_price(f"{where}.{name}", value) for name, value in entry.items()})


def _with_defaults(prices: Mapping[str, Decimal | None]) -> UnitPrices:
    """A part of the prompt without a price of its own costs what plain tokens do."""
    plain = prices["input"]
    created = prices.get("cache_creation")
    values = {"cached_input": plain, "cache_creation": plain, "cache_creation_1h": created or plain}
    return UnitPrices(**{**values, **{name: price for name, price in prices.items() if price is not None}})  # type: ignore[arg-type]


def _parse_price(where: str, value: Any) -> Decimal:
    try:
        price = Decimal(str(value))
    except InvalidOperation:
        price = Decimal(-1)
    if not price.is_finite() or price < 0:
        raise SettingError(f"{where} must be a number, 0 or above; it is {value!r}")
    return price


def _published_prices(provider: str, model: str, moment: datetime, prompt_tokens: int) -> UnitPrices | None:
    """From the genai-prices wheel."""
    minute = moment.replace(second=0, microsecond=0)
    passed = sum(prompt_tokens > start for start in _tier_starts(provider, model, minute))
    return _published_at(provider, model, minute, passed)


@lru_cache(maxsize=512)
def _tier_starts(provider: str, model: str, minute: datetime) -> tuple[int, ...]:
    """The sizes of a prompt at which a price of the model changes, smallest first."""
    found = _published_model(provider, model, minute)
    prices = () if found is None else _named(found).values()
    return tuple(sorted({tier.start for price in prices for tier in getattr(price, "tiers", ())}))


@lru_cache(maxsize=512)
def _published_at(provider: str, model: str, minute: datetime, passed: int) -> UnitPrices | None:
    """The prices for a prompt that has passed so many of the starts."""
    found = _published_model(provider, model, minute)
    if found is None:
        return None
    prompt_tokens = ([-1, *_tier_starts(provider, model, minute)])[passed] + 1
    prices = {name: _at_size(price, prompt_tokens) for name, price in _named(found).items()}
    if prices["input"] is None:
        return None
    if prices["output"] is None:  # an embedding model
        prices["output"] = Decimal(0)
    return _with_defaults(prices)


def _named(found: Any) -> dict[str, Any]:
    """Their prices by our names; each a number, or one that depends on the prompt's size."""
    return {
        "input": found.input_mtok,
        "output": found.output_mtok,
        "cached_input": found.cache_read_mtok,
        "cache_creation": found.cache_write_mtok,
        "cache_creation_1h": found.cache_write_1h_mtok,
    }


@lru_cache(maxsize=512)
def _published_model(provider: str, model: str, minute: datetime) -> Any:
    """The model's prices in that minute (some depend on the time of day), or None.

    genai_prices takes 0.4 s to import, so it is imported when a call needs it.
    """
    from genai_prices import Usage as PricedUsage
    from genai_prices import calc_price

    try:
        nothing = PricedUsage(input_tokens=0, output_tokens=0)
        return calc_price(nothing, model, provider_id=provider, genai_request_timestamp=minute).model_price
    except LookupError:
        return None


def _at_size(price: Any, prompt_tokens: int) -> Decimal | None:
    """A price that depends on the prompt's size: passing a tier's start moves all tokens to that tier."""
    if price is None or isinstance(price, Decimal):
        return price
    reached = [tier.price for tier in price.tiers if prompt_tokens > tier.start]
    return Decimal(reached[-1] if reached else price.base)
