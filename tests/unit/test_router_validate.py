"""What a flow is refused for before it starts, and the plan that comes out otherwise."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from shared.errors import InvalidArgs, InvalidRequest, LimitExceeded
from shared.router.flow import FlowRequest
from shared.router.templates import references, resolve, step_of
from shared.router.validate import Known, mode_of, storable, tool_names, validate

KNOWN = Known({"math", "project.create"}, {"offline", "cheap"}.__contains__, "offline")
ASK = {"type": "llm", "args": {"prompt": "hello"}}
ADD = {"type": "tool", "tool": "math", "args": {"expression": "1+1"}}


def plan(*steps, **fields):
    return validate(FlowRequest.model_validate({"steps": list(steps), **fields}), KNOWN)


def refusal(*steps, **fields) -> str:
    with pytest.raises(InvalidRequest) as caught:
        plan(*steps, **fields)
    return caught.value.message


def test_steps_get_ids_models_and_types():
    first, second, third = plan(ASK, ADD, {"tool": "llm", "args": {"task": "sum up", "model": "cheap"}})
    assert (first.id, second.id, third.id) == ("step_1", "step_2", "step_3")
    assert (first.type, second.type, third.type) == ("llm", "tool", "llm")
    assert (first.model, first.fallback_model) == ("offline", None)
    assert (third.model, third.fallback_model) == ("cheap", "offline")
    assert (second.tool, second.model) == ("math", None)


def test_a_plan_survives_being_stored():
    (step,) = plan({**ADD, "id": "sum", "on_error": "skip", "critical": True})
    assert step.from_definition("sum", "tool", step.definition()) == step


@pytest.mark.parametrize(
    ("step", "words"),
    [
        ({"type": "teleport", "args": {}}, "unknown step type 'teleport'"),
        ({"type": "agent", "args": {}}, "not built yet"),
        ({"type": "platform", "args": {}}, "not built yet"),
        ({"type": "branch", "condition": "true", "if_true": []}, "not built yet"),
        ({"type": "parallel", "steps": [ASK]}, "not built yet"),
        ({"type": "loop", "steps": [ASK], "max_loops": 2}, "not built yet"),
        ({"type": "tool", "tool": "teleport"}, "unknown tool 'teleport'"),
        ({"type": "tool"}, "needs the tool's name"),
        ({"type": "llm"}, "exactly one of prompt, messages, task"),
        ({"type": "llm", "args": {"prompt": "a", "task": "b"}}, "exactly one"),
        ({"type": "llm", "args": {"prompt": 7}}, "must be text"),
        ({"type": "llm", "args": {"prompt": "  "}}, "must be text"),
        ({"type": "llm", "args": {"messages": []}}, "at least one message"),
        ({"type": "llm", "args": {"messages": [{"role": "king", "content": "x"}]}}, "args.messages.0.role"),
        ({"type": "llm", "args": {"messages": "hello"}}, "args.messages"),
        ({"type": "llm", "args": {"prompt": "a", "model": "gpt-99"}}, "unknown model 'gpt-99'"),
        ({"type": "llm", "args": {"prompt": "a", "model": ["offline"]}}, "unknown model"),
        ({"type": "llm", "args": {"prompt": "a", "temperature": True}}, "between 0 and 2"),
        ({"type": "llm", "args": {"prompt": "a", "max_tokens": 0}}, "above 0"),
        ({"type": "llm", "args": {"prompt": "a", "colour": 1}}, "takes no 'colour'"),
        ({"type": "llm", "tool": "math", "args": {"prompt": "a"}}, "takes no tool"),
        ({**ASK, "max_loops": 2}, "takes no 'max_loops'"),
        ({**ASK, "condition": "x"}, "takes no 'condition'"),
    ],
)
def test_a_bad_step_is_refused_with_its_place(step, words):
    message = refusal(ASK, step)
    assert message.startswith("steps.1.")
    assert words in message


@pytest.mark.parametrize(
    ("steps", "places"),
    [
        ([{"type": "teleport"}, {"tool": "nothing"}, {"type": "loop"}], ["steps.0.type", "steps.2.type"]),
        ([{"type": "llm"}, {"tool": "nothing"}], ["steps.0.args", "steps.1.tool"]),
    ],
)
def test_every_fault_is_told_types_first(steps, places):
    with pytest.raises(InvalidRequest) as caught:
        plan(*steps)
    assert [detail.path for detail in caught.value.details] == places


def test_two_steps_of_one_name_are_refused():
    assert "names another step" in refusal({**ASK, "id": "a"}, {**ASK, "id": "a"})
    assert "names another step" in refusal({**ASK, "id": "step_2"}, ASK)


def test_limits_on_the_number_of_steps():
    assert len(plan(*[ASK] * 50)) == 50
    with pytest.raises(LimitExceeded):
        plan(*[ASK] * 51)
    with pytest.raises(LimitExceeded):
        plan(ASK, ASK, constraints={"max_steps": 1})


@pytest.mark.parametrize(
    ("steps", "count"),
    [
        ([{"nonsense": 1}] * 51, 51),
        ([1] * 1_000_000, 1_000_000),
        ([{"type": "branch", "if_true": [{"steps": [{}] * 49}]}], 51),
    ],
)
def test_too_many_steps_are_counted_before_they_are_read(steps, count):
    with pytest.raises(LimitExceeded, match=f"the flow has {count} steps; at most 50 are allowed"):
        FlowRequest.model_validate({"steps": steps})


def test_a_long_list_of_bad_tools_is_one_fault():
    with pytest.raises(ValidationError) as caught:
        FlowRequest.model_validate({"steps": [ADD], "tools": [1] * 100_000})
    assert caught.value.error_count() == 1


def test_a_text_full_of_bad_references_gives_few_faults():
    with pytest.raises(InvalidRequest) as caught:
        plan({"type": "llm", "args": {"prompt": "{{steps.x}}" * 1000}})
    assert len(caught.value.details) == 10


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"steps": "auto"}, "'auto' is not built yet"),
        ({}, "'auto' is not built yet"),
        ({"steps": [ASK], "mode": "hybrid"}, "'hybrid' is not built yet"),
        ({"steps": [], "mode": "structured"}, "at least one step"),
        ({"steps": "auto", "mode": "structured"}, "at least one step"),
        ({"steps": [ASK], "context": {"confidential": True}}, "confidential flows are not built yet"),
    ],
)
def test_what_is_not_built_is_refused_as_such(fields, words):
    with pytest.raises(InvalidRequest, match=words):
        validate(FlowRequest.model_validate(fields), KNOWN)


def test_the_flows_own_tool_list_is_kept_to():
    assert plan(ADD, tools=["math", "llm"])
    assert plan({"tool": "project.create", "args": {}}, tools=["project"])
    assert "not among the flow's tools" in refusal(ADD, tools=["project"])


def test_references_must_name_earlier_steps():
    later = {"type": "llm", "args": {"prompt": "{{steps.step_1.output.text}} {{input}}"}}
    assert plan(ASK, later)
    assert "no earlier step" in refusal(later)
    assert "no earlier step" in refusal(ASK, {"type": "llm", "args": {"prompt": "{{steps.step_9.output}}"}})
    assert "is not a reference" in refusal(ASK, {"type": "llm", "args": {"prompt": "{{steps.step_1}}"}})


def test_unknown_fields_are_refused():
    for body in ({"stepz": []}, {"context": {"who": "me"}}, {"steps": [{"type": "llm", "arg": {}}]}):
        with pytest.raises(ValidationError):
            FlowRequest.model_validate(body)


def test_mode_and_tools_follow_from_the_steps():
    request = FlowRequest.model_validate({"steps": [ASK, ADD, {"tool": "project.create"}]})
    assert mode_of(request) == "structured"
    assert tool_names(request) == {"math", "project.create"}


@pytest.mark.parametrize("text", ["nul \x00", "half \ud800"])
def test_text_that_cannot_be_stored_is_refused(text):
    request = FlowRequest.model_construct(input=text, steps=[])
    with pytest.raises(InvalidRequest):
        storable(request)
    with pytest.raises(InvalidRequest):
        storable(FlowRequest.model_validate({"steps": [{"tool": "math", "args": {"deep": [{text: 1}]}}]}))


def test_numbers_that_json_cannot_carry_are_refused():
    with pytest.raises(InvalidRequest):
        storable(FlowRequest.model_validate({"steps": [{"tool": "math", "args": {"n": 10**40}}]}))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
wild_steps = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["llm", "tool", "loop", "x"]),
        "tool": st.sampled_from(["llm", "math", "x"]),
        "args": st.dictionaries(st.sampled_from(["prompt", "messages", "task", "model", "temperature"]), json_values),
        "id": st.sampled_from(["a", "b"]),
    },
)


@given(st.lists(wild_steps, max_size=4))
def test_any_body_is_accepted_or_refused_but_never_breaks(steps):
    request = FlowRequest.model_validate({"steps": steps})
    with suppress(InvalidRequest):
        storable(request)
        assert len(validate(request, KNOWN)) == len(steps)


# ---- References ------------------------------------------------------------------------------------------------------

FIELDS = {"input": "tea", "goal": "brew"}
OUTPUTS = {"a": {"text": "hot", "list": [1, {"deep": True}]}, "b": 4}


@pytest.mark.parametrize(
    ("value", "resolved"),
    [
        ("plain {{other}} {{ x }}", "plain {{other}} {{ x }}"),
        ("{{input}} and {{ goal }}", "tea and brew"),
        ("{{steps.a.output.text}}", "hot"),
        ("{{steps.b.output}}", 4),
        ("is {{steps.b.output}}", "is 4"),
        ("{{steps.a.output.list.1.deep}}", True),
        ("see {{steps.a.output.list}}", 'see [1,{"deep":true}]'),
        ({"k": ["{{steps.b.output}}", 1]}, {"k": [4, 1]}),
    ],
)
def test_references_are_replaced(value, resolved):
    assert resolve(value, FIELDS, OUTPUTS) == resolved


@pytest.mark.parametrize(
    "value", ["{{steps.c.output}}", "{{steps.a.output.none}}", "{{steps.a.output.list.7}}", "{{steps.a.output.text.x}}"]
)
def test_a_reference_to_nothing_is_an_invalid_argument(value):
    with pytest.raises(InvalidArgs):
        resolve(value, FIELDS, OUTPUTS)


@pytest.mark.parametrize(
    ("value", "output"),
    [
        ("is {{steps.a.output}}", 10**30),
        (f"{{{{steps.a.output.{'9' * 5000}}}}}", [1]),
        ("{{steps.a.output.\u0661}}", [1, 2]),
    ],
)
def test_a_number_too_big_is_an_invalid_argument(value, output):
    with pytest.raises(InvalidArgs):
        resolve(value, FIELDS, {"a": output})


def test_a_big_number_passes_as_a_value():
    assert resolve({"n": "{{steps.a.output}}"}, FIELDS, {"a": 10**30}) == {"n": 10**30}


TEXT = "x" * 10_000


@pytest.mark.parametrize(
    "value", ["{{input}}" * 101, " {{input}}" * 100, {"k": ["{{input}}"] * 101}, ["{{steps.a.output}}"] * 101]
)
def test_references_cannot_multiply_a_text_without_end(value):
    with pytest.raises(InvalidArgs, match="more than 1000000 characters"):
        resolve(value, {"input": TEXT}, {"a": [{TEXT: 1}]})


def test_resolved_arguments_may_have_a_million_characters():
    assert len(resolve("{{input}}" * 100, {"input": TEXT}, {})) == 1_000_000


def test_what_a_reference_brings_is_not_read_as_a_reference():
    assert resolve("{{steps.a.output}}", FIELDS, {"a": "{{input}}"}) == "{{input}}"
    assert resolve("x {{steps.a.output}}", FIELDS, {"a": "{{input}}"}) == "x {{input}}"


@given(st.text())
def test_any_text_is_resolved_or_refused(text):
    with suppress(InvalidArgs):
        for reference in references(text):
            step_of(reference)
        resolve(text, FIELDS, OUTPUTS)


def test_a_request_that_names_no_user_is_kept_as_before_there_were_users():
    context = {"team_id": None, "microdao_id": None, "agent_id": None, "agent_run_id": None, "confidential": False}
    assert storable(FlowRequest())["context"] == context
    assert storable(FlowRequest.model_validate({"context": {"user_id": None}}))["context"] == context
    named = storable(FlowRequest.model_validate({"context": {"user_id": "olena"}}))
    assert named["context"] == {**context, "user_id": "olena"}
