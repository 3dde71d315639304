"""Routing: priority first, weight by chance, nothing unusable, a last resort only when nothing else is left."""

import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from shared.llm.models import Route
from shared.llm.routing import order_routes, usable_routes

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
