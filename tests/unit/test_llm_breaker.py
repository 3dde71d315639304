"""The circuit breaker as a state machine: whatever happens in whatever order, these hold."""

from hypothesis import given
from hypothesis import strategies as st

from shared.errors import InvalidRequest, UpstreamError
from shared.llm.routing import breaker
from shared.llm.routing.breaker import Circuit, CircuitRule
from shared.llm.routing.health import Health
from shared.llm.routing.models import Route

RULE = CircuitRule(window_s=10, min_calls=4, failure_rate=0.5, cooldown_s=5)

steps = st.lists(
    st.tuples(st.sampled_from(["succeeded", "failed", "abandoned"]), st.floats(0, 4)), min_size=1, max_size=60
)


def step(circuit: Circuit, outcome: str, now: float) -> Circuit:
    circuit, is_probe = breaker.began(circuit, now)
    if outcome == "abandoned":
        return breaker.abandoned(circuit, is_probe=is_probe)
    end = breaker.succeeded if outcome == "succeeded" else breaker.failed
    return end(circuit, RULE, now, is_probe=is_probe)


@given(steps)
def test_it_opens_only_for_enough_failures_and_only_a_failure_opens_it(outcomes):
    circuit, now = Circuit(), 100.0
    seen: list[tuple[float, str]] = []
    for outcome, wait in outcomes:
        now += wait
        before = circuit
        circuit = step(circuit, outcome, now)
        if before.opened_at is None:
            seen.append((now, outcome))
            if circuit.opened_at is not None:
                assert outcome == "failed"
                recent = [kind for at, kind in seen if now - at <= RULE.window_s and kind != "abandoned"]
                assert len(recent) >= RULE.min_calls
                seen = []
        elif circuit.opened_at is None:
            assert outcome == "succeeded"
            seen = []


@given(steps)
def test_its_size_does_not_grow(outcomes):
    circuit, now = Circuit(), 0.0
    for outcome, wait in outcomes:
        now += wait
        circuit = step(circuit, outcome, now)
        assert len(circuit.tallies) <= 10


@given(st.integers(0, 30), st.integers(0, 30))
def test_it_opens_exactly_at_the_stated_share(successes, failures):
    circuit = Circuit()
    for _ in range(successes):
        circuit = step(circuit, "succeeded", 1.0)
    for _ in range(failures):
        if circuit.opened_at is None:
            circuit = step(circuit, "failed", 1.0)
    needed = max(RULE.min_calls - successes, successes, 1)
    assert (circuit.opened_at is not None) == (failures >= needed)


def opened() -> Circuit:
    circuit = Circuit()
    for _ in range(RULE.min_calls):
        circuit = step(circuit, "failed", 0.0)
    return circuit


@given(st.floats(0, 100))
def test_open_until_the_cooldown_is_over_then_one_probe(now):
    circuit = opened()
    assert breaker.permits(circuit, RULE, now) == (now >= RULE.cooldown_s)
    if now >= RULE.cooldown_s:
        probing, is_probe = breaker.began(circuit, now)
        assert is_probe
        assert not breaker.permits(probing, RULE, now)
        assert breaker.permits(probing, RULE, now + 2 * RULE.cooldown_s), (
            "a lost probe must not block the route for good"
        )
        assert breaker.permits(breaker.abandoned(probing, is_probe=True), RULE, now)
        assert breaker.state(breaker.succeeded(probing, RULE, now, is_probe=True), RULE, now) == "closed"
        assert breaker.state(breaker.failed(probing, RULE, now, is_probe=True), RULE, now) == "open"


def test_a_call_from_before_neither_closes_it_nor_prolongs_it():
    circuit = opened()
    assert breaker.succeeded(circuit, RULE, 1.0, is_probe=False).opened_at == 0.0
    assert breaker.failed(circuit, RULE, 1.0, is_probe=False).opened_at == 0.0


def test_old_failures_are_forgotten():
    circuit = Circuit()
    for _ in range(RULE.min_calls - 1):
        circuit = step(circuit, "failed", 0.0)
    assert step(circuit, "failed", RULE.window_s + 1).opened_at is None


def test_health_counts_what_tells_about_the_route():
    now = [0.0]
    health = Health(lambda: RULE, lambda: now[0])
    route = Route(provider="openai", model="m")
    for _ in range(20):
        health.ended(route, InvalidRequest("the caller's own"), is_probe=health.began(route))
        health.ended(route, GeneratorExit(), is_probe=health.began(route))
    assert health.is_healthy(route)
    for _ in range(20):
        health.ended(route, UpstreamError("down"), is_probe=health.began(route))
    assert not health.is_healthy(route)
    assert not health.permits(route)
    assert health.last_failed_at(route) == 0.0
    now[0] = RULE.cooldown_s
    assert health.permits(route)
    health.ended(route, None, is_probe=health.began(route))
    assert health.is_healthy(route)
