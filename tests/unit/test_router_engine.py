"""The engine: the error table case by case, then properties that hold for every flow."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.router.engine import (
    ERROR_RULES,
    MAX_ATTEMPTS,
    Begin,
    CallModel,
    Event,
    Failed,
    Next,
    Plan,
    Proceed,
    Recover,
    Stop,
    Succeeded,
    decide,
)
from shared.router.flow import FINAL_STATES, FlowState, Step

LEGAL = {
    ("INIT", "PLAN"),
    ("PLAN", "EXECUTE_STEP"),
    ("EXECUTE_STEP", "WAIT_TOOL"),
    ("WAIT_TOOL", "EXECUTE_STEP"),
    ("EXECUTE_STEP", "DONE"),
    ("EXECUTE_STEP", "ERROR_RECOVERY"),
    ("ERROR_RECOVERY", "EXECUTE_STEP"),
    ("ERROR_RECOVERY", "DONE"),
}
PHASE_EVENTS: dict[str, Event] = {
    "plan": Plan(),
    "execute": Proceed(),
    "delay": Proceed(),
    "recover": Recover(),
}


def llm(step_id: str = "ask", **fields) -> Step:
    return Step(id=step_id, type="llm", model="smart", **fields)


def tool(step_id: str = "act", **fields) -> Step:
    return Step(id=step_id, type="tool", tool="math", **fields)


def run(flow: FlowState, outcomes: dict[str, list[Event | None]]) -> FlowState:
    """Drive a flow: each step's runs end as listed by its id, then succeed. None is a crash and a new driver."""
    left = {name: list(events) for name, events in outcomes.items()}
    event: Event = Begin()
    for _ in range(1000):
        flow, move = decide(flow, event)
        if isinstance(move, Next) and move.action in ("done", "abort"):
            return flow
        if isinstance(move, CallModel) or move.action == "tool":
            position = move.position
            assert position is not None
            assert flow.steps[position].state == "running"
            planned = left.get(flow.steps[position].id)
            outcome = planned.pop(0) if planned else Succeeded(position)
            event = Begin() if outcome is None else replace(outcome, position=position)
        else:
            event = PHASE_EVENTS[move.action]
    raise AssertionError("the flow does not end")


def failures(code: str, times: int) -> list[Event]:
    return [Failed(0, code, "no") for _ in range(times)]


def test_a_flow_goes_through_the_documented_states():
    flow = run(FlowState(steps=(llm("a"), tool("b"), llm("c"))), {})
    assert flow.state == "DONE"
    assert flow.transitions == ("INIT", "PLAN", "EXECUTE_STEP", "WAIT_TOOL", "EXECUTE_STEP", "DONE")
    assert [step.state for step in flow.steps] == ["succeeded"] * 3


def test_tools_in_a_row_wait_one_after_the_other():
    flow = run(FlowState(steps=(tool("a"), tool("b"))), {})
    waits = ("EXECUTE_STEP", "WAIT_TOOL")
    assert flow.transitions == ("INIT", "PLAN", *waits, *waits, "EXECUTE_STEP", "DONE")


def test_a_tool_timeout_is_tried_again_and_then_skipped():
    flow = run(FlowState(steps=(tool(), llm())), {"act": failures("tool_timeout", 2)})
    assert flow.state == "DONE"
    assert (flow.steps[0].state, flow.steps[0].attempts) == ("skipped", 2)
    assert flow.steps[0].error is not None
    assert flow.steps[1].state == "succeeded"


def test_a_retry_that_works_leaves_no_error():
    flow = run(FlowState(steps=(tool(),)), {"act": failures("tool_timeout", 1)})
    assert (flow.state, flow.steps[0].attempts, flow.steps[0].error) == ("DONE", 2, None)


def test_a_model_timeout_is_tried_again_and_then_falls_back():
    flow = run(FlowState(steps=(llm(fallback_model="cheap"),)), {"ask": failures("llm_timeout", 2)})
    assert flow.state == "DONE"
    assert (flow.steps[0].fell_back, flow.steps[0].attempts) == (True, 3)


def test_the_fallback_may_fail_too():
    flow = run(FlowState(steps=(llm(fallback_model="cheap"),)), {"ask": failures("llm_timeout", 3)})
    assert (flow.state, flow.steps[0].attempts) == ("FAILED", 3)


def test_invalid_arguments_fail_the_step_and_the_flow_at_once():
    flow = run(FlowState(steps=(tool(), llm())), {"act": failures("invalid_args", 1)})
    assert flow.state == "FAILED"
    assert flow.error is not None
    assert (flow.error.code, flow.error.step) == ("invalid_args", "act")
    assert [step.state for step in flow.steps] == ["failed", "pending"]
    assert flow.transitions[-3:] == ("EXECUTE_STEP", "ERROR_RECOVERY", "DONE")


@pytest.mark.parametrize("code", ["unauthorized", "confidential_denied", "insufficient_quota", "cost_limit_exceeded"])
def test_what_is_not_allowed_or_not_paid_for_aborts_even_if_the_step_may_be_skipped(code):
    flow = run(FlowState(steps=(tool(on_error="skip"), llm())), {"act": failures(code, 1)})
    assert (flow.state, flow.steps[0].attempts, flow.steps[1].state) == ("ABORTED", 1, "pending")


def test_on_error_skip_goes_on():
    flow = run(FlowState(steps=(tool(on_error="skip"), llm())), {"act": failures("tool_failed", 1)})
    assert flow.state == "DONE"
    assert [step.state for step in flow.steps] == ["skipped", "succeeded"]


def test_on_error_abort_aborts():
    flow = run(FlowState(steps=(tool(on_error="abort"),)), {"act": failures("tool_timeout", 2)})
    assert flow.state == "ABORTED"


def test_on_error_fallback_takes_the_other_model_for_any_error():
    step = llm(on_error="fallback", fallback_model="cheap")
    flow = run(FlowState(steps=(step,)), {"ask": failures("invalid_args", 1)})
    assert (flow.state, flow.steps[0].fell_back) == ("DONE", True)


def test_a_critical_step_is_never_skipped():
    flow = run(FlowState(steps=(tool(critical=True, on_error="skip"),)), {"act": failures("tool_timeout", 2)})
    assert flow.state == "ABORTED"


def test_pauses_between_tries_grow():
    flow, _ = decide(FlowState(state="EXECUTE_STEP", steps=(llm(attempts=1),)), Proceed())
    flow, _ = decide(flow, Failed(0, "overloaded", "busy"))
    _, move = decide(flow, Recover())
    assert move == Next("delay", seconds=2)


def test_costs_add_up_and_going_over_the_limit_aborts():
    flow = FlowState(steps=(llm("a"), llm("b")), max_cost_microusd=10)
    within = run(flow, {"a": [Succeeded(0, None, 4)], "b": [Succeeded(0, None, 6)]})
    assert (within.state, within.cost_microusd) == ("DONE", 10)
    over = run(flow, {"a": [Succeeded(0, None, 11)]})
    assert (over.state, over.cost_microusd, over.steps[1].state) == ("ABORTED", 11, "pending")
    assert over.error is not None
    assert over.error.code == "cost_limit_exceeded"


def test_a_failed_try_costs_too():
    flow = FlowState(steps=(tool(),), max_cost_microusd=5)
    flow = run(flow, {"act": [Failed(0, "tool_timeout", "no", 6)]})
    assert (flow.state, flow.steps[0].cost_microusd, flow.steps[0].state) == ("ABORTED", 6, "failed")


def test_a_model_call_that_was_cut_off_is_made_again():
    flow = run(FlowState(steps=(llm(),)), {"ask": [None]})
    assert (flow.state, flow.steps[0].attempts) == ("DONE", 2)


def test_a_tool_that_was_under_way_is_waited_for_again_without_a_new_try():
    flow = run(FlowState(steps=(tool(),)), {"act": [None, None]})
    assert (flow.state, flow.steps[0].attempts) == ("DONE", 1)


def test_a_step_that_ends_its_driver_each_time_fails():
    flow = run(FlowState(steps=(llm(),)), {"ask": [None] * 50})
    assert (flow.state, flow.steps[0].attempts) == ("FAILED", MAX_ATTEMPTS)


def test_stop_ends_a_flow_in_any_state():
    for state in ("INIT", "PLAN", "EXECUTE_STEP", "ERROR_RECOVERY"):
        flow, move = decide(FlowState(state=state, transitions=(state,), steps=(llm(),)), Stop("internal", "no"))
        assert (flow.state, move) == ("FAILED", Next("abort"))
        assert set(zip(flow.transitions, flow.transitions[1:], strict=False)) <= LEGAL


# ---- Properties ------------------------------------------------------------------------------------------------------

codes = st.sampled_from([*ERROR_RULES, "invalid_args", "tool_failed", "internal"])
costs = st.integers(min_value=0, max_value=100)
outcomes = st.one_of(
    st.none(),
    st.builds(Succeeded, st.just(0), st.none(), costs),
    st.builds(Failed, st.just(0), codes, st.just("no"), costs),
)
wishes = {"on_error": st.sampled_from([None, "skip", "abort", "fallback"]), "critical": st.booleans()}
steps = st.one_of(
    st.fixed_dictionaries({"fallback_model": st.sampled_from([None, "cheap"]), **wishes}).map(lambda f: llm("s", **f)),
    st.fixed_dictionaries(wishes).map(lambda fields: tool("s", **fields)),
)
plans = st.lists(st.tuples(steps, st.lists(outcomes, max_size=8)), min_size=1, max_size=6)


@given(plans, st.none() | st.integers(min_value=0, max_value=300))
def test_every_flow_ends_by_legal_transitions_within_its_limits(plan, limit):
    named = tuple(replace(step, id=f"s{number}") for number, (step, _) in enumerate(plan))
    flow = FlowState(steps=named, max_cost_microusd=limit)
    ended = run(flow, {f"s{number}": events for number, (_, events) in enumerate(plan)})

    assert ended.state in FINAL_STATES
    assert ended.transitions[0] == "INIT"
    assert ended.transitions[-1] == "DONE"
    assert set(zip(ended.transitions, ended.transitions[1:], strict=False)) <= LEGAL
    assert all(step.attempts <= MAX_ATTEMPTS for step in ended.steps)
    assert all(step.state != "running" for step in ended.steps)
    assert ended.cost_microusd == sum(step.cost_microusd for step in ended.steps)
    assert (ended.error is None) == (ended.state == "DONE")
    if ended.state == "DONE":
        assert all(step.state in ("succeeded", "skipped") for step in ended.steps)
        assert limit is None or ended.cost_microusd <= limit
    elif limit is None or ended.cost_microusd <= limit:
        broken = next(number for number, step in enumerate(ended.steps) if step.state == "failed")
        assert all(step.state == "pending" for step in ended.steps[broken + 1 :])


@given(
    plans, st.one_of(st.sampled_from([Begin(), Plan(), Proceed(), Recover(), Stop("x", "y")]), outcomes.filter(bool))
)
def test_nothing_happens_after_the_end(plan, event):
    ended = run(FlowState(steps=tuple(step for step, _ in plan)), {"s": [one for _, events in plan for one in events]})
    assert decide(ended, event) == (ended, Next("done" if ended.state == "DONE" else "abort"))


@given(plans, st.lists(st.sampled_from([Begin(), Plan(), Proceed(), Recover()]), max_size=30))
def test_events_out_of_turn_never_break_a_flow(plan, events):
    flow = FlowState(steps=tuple(step for step, _ in plan))
    for event in events:
        flow, _ = decide(flow, event)
        assert set(zip(flow.transitions, flow.transitions[1:], strict=False)) <= LEGAL
        assert sum(step.state == "running" for step in flow.steps) <= 1
