"""Which routes a call may take, in which order. Pure: what is usable and every random draw come in as arguments."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from shared.llm.models import Route


def usable_routes(routes: Sequence[Route], resolve: Callable[[Route], str | None]) -> list[Route]:
    """The routes that can serve a call now, with the provider's own model names; ``resolve`` gives None for the others.

    A last resort counts only when nothing else does.
    """
    named = [(route, resolve(route)) for route in routes]
    usable = [replace(route, model=name) for route, name in named if name]
    return [route for route in usable if not route.last_resort] or usable


def order_routes(routes: Sequence[Route], draw: Callable[[], float]) -> list[Route]:
    """The order to try routes in: by priority, then at random so that first places fall in proportion to the weights.

    ``draw`` gives numbers in [0, 1). Weighted sampling without replacement: Efraimidis and Spirakis 2006, keys u^(1/w).
    """
    keyed = [(route.priority, -(draw() ** (1.0 / route.weight)), route) for route in routes]
    return [route for _, _, route in sorted(keyed, key=lambda item: item[:2])]
