"""Which routes a call may take, in which order. Pure: what is usable, how it fares and every random draw come in."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from shared.llm.routing.models import LogicalModel, Route


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What routing asks about a route: the provider's own model name (None: not set up), and its circuit."""

    resolve: Callable[[Route], str | None]
    permits: Callable[[Route], bool]
    last_failed_at: Callable[[Route], float]


def plan_routes(
    model: LogicalModel, models: Mapping[str, LogicalModel], outlook: Outlook, draw: Callable[[], float]
) -> list[Route]:
    """The routes to try for a call, first to last: the model's own, then those of its fallbacks, each route once.

    A route with an open circuit is left out; when all of them are open, the one that failed least recently is tried.
    """
    usable = usable_in_chain(model, models, outlook.resolve)
    ordered = _without_repeats([route for routes in usable for route in order_routes(routes, draw)])
    permitted = [route for route in ordered if outlook.permits(route)]
    return permitted or sorted(ordered, key=outlook.last_failed_at)[:1]


def chain(model: LogicalModel, models: Mapping[str, LogicalModel]) -> list[LogicalModel]:
    """The model and its fallbacks, theirs after them, each once."""
    found = {model.id: model}
    waiting = list(model.fallbacks)
    while waiting:
        name = waiting.pop(0)
        if name not in found:
            found[name] = models[name]
            waiting.extend(models[name].fallbacks)
    return list(found.values())


def usable_in_chain(
    model: LogicalModel, models: Mapping[str, LogicalModel], resolve: Callable[[Route], str | None]
) -> list[list[Route]]:
    """The usable routes of the model and of each of its fallbacks. One's last resort counts only when no other has any.

    Each list is as the file has it, see ``usable_routes``.
    """
    usable = [usable_routes(one.routes, resolve) for one in chain(model, models)]
    regular = [[route for route in routes if not route.last_resort] for routes in usable]
    return regular if any(regular) else usable


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


def _without_repeats(routes: Sequence[Route]) -> list[Route]:
    found: dict[str, Route] = {}
    for route in routes:
        found.setdefault(route.name, route)
    return list(found.values())
