"""The circuit breaker of a route: a pure state machine. The present moment always comes in as an argument.

closed     calls pass; their outcomes are counted over a sliding window. Enough failures open the circuit.
open       no call passes until the cool-down is over.
half open  one call, the probe, passes. Its success closes the circuit, its failure opens it again.

Moments are seconds on any clock that never goes back. Source of the pattern: M. Nygard, Release It!, ch. 5.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal

State = Literal["closed", "open", "half_open"]
_SLICES = 10
"""The window slides in steps of a tenth, so that a circuit's size does not grow with its load."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitRule:
    """When a circuit opens: at least ``min_calls`` in ``window_s``, of which the share ``failure_rate`` failed."""

    window_s: float = 30.0
    min_calls: int = 10
    failure_rate: float = 0.5
    cooldown_s: float = 15.0


@dataclass(frozen=True, slots=True)
class Tally:
    """What one slice of the window saw."""

    slice: int
    calls: int
    failures: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Circuit:
    """The memory of one route."""

    tallies: tuple[Tally, ...] = ()
    opened_at: float | None = None
    probed_at: float | None = None
    last_failed_at: float = -math.inf


def state(circuit: Circuit, rule: CircuitRule, now: float) -> State:
    """Where the circuit stands."""
    if circuit.opened_at is None:
        return "closed"
    return "open" if now - circuit.opened_at < rule.cooldown_s else "half_open"


def permits(circuit: Circuit, rule: CircuitRule, now: float) -> bool:
    """Whether a call may pass. A probe that never reported counts as lost after one more cool-down."""
    stands = state(circuit, rule, now)
    if stands == "half_open":
        return circuit.probed_at is None or now - circuit.probed_at >= rule.cooldown_s
    return stands == "closed"


def began(circuit: Circuit, now: float) -> tuple[Circuit, bool]:
    """A call passes; also whether it is a probe, which every call past a circuit that is not closed is."""
    if circuit.opened_at is None:
        return circuit, False
    return replace(circuit, probed_at=now), True


def succeeded(circuit: Circuit, rule: CircuitRule, now: float, *, is_probe: bool) -> Circuit:
    """The call was answered. One that began before the circuit opened does not close it."""
    if circuit.opened_at is None:
        return replace(circuit, tallies=_counted(circuit, rule, now, failures=0))
    return Circuit(last_failed_at=circuit.last_failed_at) if is_probe else circuit


def failed(circuit: Circuit, rule: CircuitRule, now: float, *, is_probe: bool) -> Circuit:
    """The route did not answer, or broke off."""
    if circuit.opened_at is not None:
        opened_at = now if is_probe else circuit.opened_at
        return replace(circuit, opened_at=opened_at, probed_at=None, last_failed_at=now)
    tallies = _counted(circuit, rule, now, failures=1)
    calls, failures = sum(one.calls for one in tallies), sum(one.failures for one in tallies)
    opens = calls >= rule.min_calls and failures >= rule.failure_rate * calls
    return Circuit(tallies=() if opens else tallies, opened_at=now if opens else None, last_failed_at=now)


def abandoned(circuit: Circuit, *, is_probe: bool) -> Circuit:
    """The call ended without telling anything about the route: another may probe it."""
    return replace(circuit, probed_at=None) if is_probe else circuit


def _counted(circuit: Circuit, rule: CircuitRule, now: float, *, failures: int) -> tuple[Tally, ...]:
    present = math.floor(now / rule.window_s * _SLICES)
    kept = [one for one in circuit.tallies if one.slice > present - _SLICES]
    if kept and kept[-1].slice == present:
        last = kept.pop()
        return (*kept, Tally(present, last.calls + 1, last.failures + failures))
    return (*kept, Tally(present, 1, failures))
