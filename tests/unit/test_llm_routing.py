"""Routing: priority first, weight by chance, nothing unusable or unhealthy, a last resort only when nothing is left."""

import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from shared.llm.routing.models import LogicalModel, Route
from shared.llm.routing.order import Outlook, chain, order_routes, plan_routes, usable_routes

PROVIDERS = ["openai", "deepseek", "local", "offline"]

routes_strategy = st.lists(
    st.builds(
        Route,
        provider=st.sampled_from(PROVIDERS),
        model=st.sampled_from(["a", "b"]),
        priority=st.integers(1, 3),
        weight=st.floats(0.01, 100),
        last_resort=st.booleans(),
    ),
    max_size=8,
)
draws = st.integers(0, 2**32).map(lambda seed: random.Random(seed).random)


@given(routes_strategy, draws)
def test_order_keeps_every_route_and_respects_priority(routes, draw):
    ordered = order_routes(routes, draw)
    assert Counter(ordered) == Counter(routes)
    assert [route.priority for route in ordered] == sorted(route.priority for route in routes)


@given(routes_strategy, st.sets(st.sampled_from(PROVIDERS)))
def test_only_usable_routes_and_no_needless_last_resort(routes, available):
    found = usable_routes(routes, lambda route: f"{route.model}!" if route.provider in available else None)
    assert all(route.provider in available and route.model.endswith("!") for route in found)
    regular = [route for route in routes if route.provider in available and not route.last_resort]
    assert len(found) == len(regular) if regular else all(route.last_resort for route in found)


def test_weights_share_the_first_place():
    heavy = Route(provider="openai", model="a", weight=3.0)
    light = Route(provider="deepseek", model="b", weight=1.0)
    draw = random.Random(7).random
    firsts = Counter(order_routes([light, heavy], draw)[0].model for _ in range(4000))
    assert 0.72 < firsts["a"] / 4000 < 0.78


def test_a_draw_of_zero_is_fine():
    route = Route(provider="openai", model="a", weight=0.01)
    assert order_routes([route], lambda: 0.0) == [route]


NAMES = ["m0", "m1", "m2", "m3"]


@st.composite
def tables(draw):
    """Up to four models that fall back on each other in any way, circles included."""
    models = {}
    for name in NAMES:
        others = [other for other in NAMES if other != name]
        routes = draw(routes_strategy)
        fallbacks = draw(st.lists(st.sampled_from(others), unique=True, max_size=3))
        models[name] = LogicalModel(id=name, routes=tuple(routes), fallbacks=tuple(fallbacks))
    return models


def outlook(available: set[str], open_circuits: set[str]) -> Outlook:
    return Outlook(
        resolve=lambda route: route.model if route.provider in available else None,
        permits=lambda route: route.name not in open_circuits,
        last_failed_at=lambda route: float(hash(route.name) % 100),
    )


circuits = st.sets(st.sampled_from([f"{provider}/{model}" for provider in PROVIDERS for model in "ab"]))


@given(tables(), st.sets(st.sampled_from(PROVIDERS)), circuits, draws)
def test_a_plan(models, available, open_circuits, draw):
    planned = plan_routes(models["m0"], models, outlook(available, open_circuits), draw)
    linked = [one.id for one in chain(models["m0"], models)]
    assert linked[0] == "m0"
    assert len(set(linked)) == len(linked)
    usable = [route for name in linked for route in models[name].routes if route.provider in available]
    regular = [route for route in usable if not route.last_resort]
    candidates = {route.name for route in regular or usable}
    permitted = candidates - open_circuits
    names = [route.name for route in planned]
    assert len(set(names)) == len(names), "a route is tried once"
    if permitted:
        assert set(names) == permitted
    else:
        assert len(names) == min(1, len(candidates)), "with every circuit open one route is probed"
        probed = min((hash(name) % 100 for name in candidates), default=None)
        assert [hash(name) % 100 for name in names] == ([] if probed is None else [probed])


@given(tables(), draws)
def test_a_model_s_own_routes_come_before_its_fallbacks(models, draw):
    planned = plan_routes(models["m0"], models, outlook(set(PROVIDERS), set()), draw)
    own = {route.name for route in models["m0"].routes if not route.last_resort}
    places = [index for index, route in enumerate(planned) if route.name in own]
    assert places == list(range(len(own)))
