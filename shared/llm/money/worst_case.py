"""The most that a call can use and cost: what admission holds until the call is settled. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_CEILING, Decimal

from shared.errors import Unavailable
from shared.llm.money.pricing import PriceTable
from shared.llm.routing.models import Route
from shared.wire.chat import ChatRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class WorstCase:
    """Upper bounds of one call."""

    prompt_tokens: int
    completion_tokens: int
    cost_microusd: int

    @property
    def tokens(self) -> int:
        """What counts against a limit of tokens per minute."""
        return self.prompt_tokens + self.completion_tokens


def worst_case(
    prompt_tokens: int, completion_tokens: int, routes: Sequence[Route], prices: PriceTable, moment: datetime
) -> WorstCase:
    """The call at the dearest of its routes. One attempt is held for: a provider bills none that fails before content.

    Raises Unavailable when no route's price is known.
    """
    cases: list[WorstCase] = []
    unknown: Unavailable | None = None
    for route in routes:
        try:
            cases.append(_at_route(prompt_tokens, completion_tokens, route, prices, moment))
        except Unavailable as error:
            unknown = error
    if not cases:
        raise unknown or Unavailable("no route can serve this call now")
    return WorstCase(
        prompt_tokens=prompt_tokens,
        completion_tokens=max(case.completion_tokens for case in cases),
        cost_microusd=max(case.cost_microusd for case in cases),
    )


def most_completion_tokens(request: ChatRequest, default: int) -> int:
    """What the request allows for its answer, or ``default`` tokens when it does not say."""
    return request.max_completion_tokens or request.max_tokens or default


def _at_route(
    prompt_tokens: int, completion_tokens: int, route: Route, prices: PriceTable, moment: datetime
) -> WorstCase:
    unit = prices.unit_prices(route.provider, route.model, moment, prompt_tokens)
    completion = completion_tokens if route.max_tokens is None else min(completion_tokens, route.max_tokens)
    cost: Decimal = unit.dearest_input * prompt_tokens + unit.output * completion
    return WorstCase(
        prompt_tokens=prompt_tokens,
        completion_tokens=completion,
        cost_microusd=int(cost.to_integral_value(rounding=ROUND_CEILING)),
    )
