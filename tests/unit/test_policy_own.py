"""Whatever a microDAO writes into its policies changes nothing but what is its own to change."""

import re
import subprocess
import sys
from collections.abc import Mapping
from itertools import product

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from shared.policy.check import (
    MAX_BRACKETS,
    MAX_CHARACTERS,
    MAX_IFS,
    MAX_OPERATORS,
    RESOURCE_KINDS,
    find_faults,
    schema,
    schema_text,
)
from shared.policy.decision import MAX_KEPT, Decision, OwnPolicies, Resource, Verdict, combine, decide, tool_groups
from shared.policy.names import own_action
from shared.policy.principal import Principal, agent_principal
from shared.policy.roles import ACTION_GROUPS, GOVERNED, GRANTABLE, ROLES
from shared.settings import CONFIG_DIR, ROOT

GRANTED = {"granted": True, "environment": "dev"}
EVERYTHING = "(principal, action, resource)"
ADMINISTERS = {action for action, groups in ACTION_GROUPS.items() if "administer" in groups}
OPERATES = {action for action, groups in ACTION_GROUPS.items() if "operate" in groups}

actions = st.sampled_from(sorted(ACTION_GROUPS))
heads = st.tuples(
    st.sampled_from(
        ["principal", 'principal in Role::"guest"', 'principal == Principal::"key_1"', "principal is Principal"]
    ),
    st.one_of(
        st.just("action"), st.builds('action == Action::"{}"'.format, actions), st.just('action in Action::"use"')
    ),
    st.sampled_from(["resource", 'resource == Tool::"math"', "resource is MicroDao", 'resource in ToolGroup::"task"']),
)
conditions = st.sampled_from(
    [
        "",
        'when { resource.microdao == "other" }',
        'when { principal.microdao != "m" }',
        'when { context.environment == "dev" }',
        "when { true } unless { false }",
        "when { 9223372036854775807 + 1 == 0 }",
        "when { context.missing == 1 }",
        'when { principal in Role::"operator" }',
    ]
)
policies = st.builds(
    lambda effect, head, condition: f"{effect} ({', '.join(head)}) {condition};",
    st.sampled_from(["permit", "forbid"]),
    heads,
    conditions,
)
sources = st.dictionaries(
    st.sampled_from(["a", "b", "c", "tools-need-a-grant"]), st.one_of(policies, st.text(max_size=60)), max_size=3
)
principals = st.builds(
    Principal,
    st.sampled_from(["key_1", "agent:a"]),
    st.just("m"),
    st.sets(st.sampled_from(sorted(ROLES))).map(frozenset),
)
kinds = st.sampled_from(["MicroDao", "Tool", "Agent"])


@given(sources=sources, principal=principals, action=actions, kind=kinds, granted=st.booleans())
@hypothesis_settings(max_examples=400)
def test_no_text_reaches_another_microdao(
    sources: Mapping[str, str], principal: Principal, action: str, kind: str, granted: bool
) -> None:
    own = OwnPolicies("m", 1, sources)
    for resource_of, principal_of in (("other", "m"), ("m", "other"), ("other", "other")):
        asker = Principal(principal.key_id, principal_of, principal.roles)
        resource = Resource(kind, "math", resource_of)
        context = {"granted": granted}
        assert decide(asker, action, resource, context, own) == decide(asker, action, resource, context)


@given(sources=sources, principal=principals, action=actions, kind=kinds, granted=st.booleans())
@hypothesis_settings(max_examples=400)
def test_no_text_gives_what_is_not_a_members(
    sources: Mapping[str, str], principal: Principal, action: str, kind: str, granted: bool
) -> None:
    resource, context = Resource(kind, "math", "m"), {"granted": granted}
    shipped = decide(principal, action, resource, context)
    decision = decide(principal, action, resource, context, OwnPolicies("m", 1, sources))
    if action not in GOVERNED:
        assert decision == shipped
    if decision.allow and not shipped.allow:
        assert action in GRANTABLE
        assert not shipped.policies, "a shipped forbid wins"
        assert all(one.startswith("own/") for one in decision.policies)


@given(sources=sources)
@hypothesis_settings(max_examples=200)
def test_a_tool_without_a_grant_stays_shut(sources: Mapping[str, str]) -> None:
    own = OwnPolicies("m", 1, sources)
    for role in sorted(ROLES):
        asker = Principal("key_1", "m", frozenset({role}))
        assert not decide(asker, "tool.invoke", Resource("Tool", "math", "m"), {"granted": False}, own).allow


def test_what_may_be_governed_and_granted() -> None:
    assert GRANTABLE < GOVERNED
    assert not GOVERNED & OPERATES
    assert not GRANTABLE & (ADMINISTERS | OPERATES)
    assert {"policy.read", "policy.write", "key.write"} <= ADMINISTERS - GOVERNED


@pytest.mark.parametrize("action", sorted(ACTION_GROUPS))
def test_all_is_permitted_and_all_is_forbidden(action: str) -> None:
    guest, resource = Principal("key_1", "m", frozenset({"guest"})), Resource("Tool", "math", "m")
    permit = OwnPolicies("m", 1, {"all": f"permit {EVERYTHING};"})
    shipped = decide(guest, action, resource, GRANTED)
    assert decide(guest, action, resource, GRANTED, permit).allow == (shipped.allow or action in GRANTABLE)
    forbid = OwnPolicies("m", 2, {"none": f"forbid {EVERYTHING};"})
    owner = Principal("key_1", "m", frozenset({"operator"}))
    assert decide(owner, action, resource, GRANTED, forbid).allow == (action not in GOVERNED)


def test_a_forbid_wins_over_a_permit_of_the_same_microdao() -> None:
    own = OwnPolicies("m", 1, {"yes": f"permit {EVERYTHING};", "no": f"forbid {EVERYTHING};"})
    decision = decide(agent_principal("agent:a", "m"), "memory.read", Resource("Agent", "agent:a", "m"), None, own)
    assert (decision.allow, decision.policies) == (False, ("own/no",))


def test_the_two_verdicts_combine() -> None:
    named = {one: Verdict(one, (one,)) for one in ("permit", "forbid", "none", "error")}
    for shipped, own in product(named, named):
        for action in ("memory.read", "key.write"):
            allowed = {shipped, own} <= {"permit", "none"} and (
                shipped == "permit" or (own == "permit" and action in GRANTABLE)
            )
            assert combine(action, named[shipped], named[own]).allow == allowed, (shipped, own, action)


def test_names_belong_to_their_policies() -> None:
    sources = {
        f"p{number}": f'forbid (principal, action, resource == Tool::"t{number}"); // no newline'
        for number in range(30)
    }
    own = OwnPolicies("m", 1, sources)
    for number in (0, 7, 10, 29):
        resource = Resource("Tool", f"t{number}", "m")
        decision = decide(agent_principal("agent:a", "m"), "tool.invoke", resource, GRANTED, own)
        assert decision.policies == (f"own/p{number}",)


def test_what_is_remembered_is_bounded() -> None:
    own = OwnPolicies("m", 1, {"none": 'forbid (principal, action, resource == Tool::"never");'})
    own.kept.update((number, Decision(True, "")) for number in range(MAX_KEPT))
    for agent in ("agent:a", "agent:b"):
        decide(agent_principal(agent, "m"), "memory.read", Resource("MicroDao", "m", "m"), None, own)
    assert len(own.kept) == 2


def test_policies_see_tools_groups_and_facts() -> None:
    source = """
    forbid (principal == Principal::"agent:a", action == Action::"tool.invoke", resource in ToolGroup::"task")
    when { context.risk == "C" && context.environment == "prod" && !context.confidential
        && context.agent_id == "agent:a" };
    """
    assert find_faults(source) == []
    own = OwnPolicies("m", 1, {"no-tasks": source})
    facts = {**GRANTED, "risk": "C", "environment": "prod", "confidential": False, "agent_id": "agent:a"}
    for tool, changed, expected in (
        ("task.create", {}, False),
        ("taskless", {}, True),
        ("task.create", {"risk": "B"}, True),
        ("task.create", {"environment": "dev"}, True),
        ("task.create", {"confidential": True}, True),
    ):
        resource = Resource("Tool", tool, "m")
        assert decide(agent_principal("agent:a", "m"), "tool.invoke", resource, facts | changed, own).allow == expected
    assert tool_groups("ns.task.create") == ["ns.task", "ns"]
    assert tool_groups("math") == []


FAULTS = [
    ("permit (principal, action, resource)", 1, "unexpected end of input"),
    ("permit (principal,\naction, resource)\nwhen { context.x == };", 3, "unexpected token `}`"),
    ("forbid (principal action, resource);", 1, "unexpected token `action`"),
    ('forbid (principal,\naction == Action::"tool.invok",\nresource);', 2, "unrecognized action"),
    ('forbid (principal,\naction == Action::"tool.invoke",\nresource)\nwhen { context.riks == "D" };', 4, "`riks`"),
    ('forbid (principal, action, resource)\nwhen { context.risk == "D" };', 2, "not found"),
    ('forbid (principal == User::"a", action, resource);', 1, "unrecognized entity type"),
    ("forbid (principal, action, resource)\nwhen { principal.microdao == 1 };", 2, "not compatible"),
    ("forbid (principal == ?principal, action, resource);", 1, "template"),
    (f"forbid {EVERYTHING};\nforbid {EVERYTHING};", 1, "one policy at a time; this text has 2"),
    ("", 1, "one policy at a time; this text has 0"),
    ("// nothing", 1, "one policy at a time; this text has 0"),
    ('permit (principal, action == Action::"key.write", resource);', 1, "cannot permit key.write"),
    ('permit (principal,\naction in Action::"operate", resource);', 2, "cannot permit metrics.read"),
    ('forbid (principal, action == Action::"policy.write", resource);', 1, "cannot forbid policy.write"),
    ('forbid (principal, action == Action::"platform.write", resource);', 1, "cannot forbid platform.write"),
    (f"forbid {EVERYTHING}; // \0", 1, "U+0000"),
    (f"forbid {EVERYTHING}; // {'x' * MAX_CHARACTERS}", 1, "at most 4000 characters"),
    (f"forbid {EVERYTHING} when {{ {'(' * 40}true{')' * 40} }};", 1, f"at most {MAX_BRACKETS} opening brackets"),
    (f"forbid {EVERYTHING} when {{ {'if true then ' * 17} }};", 1, f"at most {MAX_IFS} ifs"),
    (f"forbid {EVERYTHING} when {{ 1{'+1' * 300} == 1 }};", 1, f"at most {MAX_OPERATORS} operators"),
]


@pytest.mark.parametrize(("source", "line", "message"), FAULTS)
def test_faults_name_their_line(source: str, line: int, message: str) -> None:
    faults = find_faults(source)
    assert faults
    assert faults[0].line == line
    assert message in faults[0].message


@pytest.mark.parametrize(
    "source",
    [
        f"forbid {EVERYTHING};",
        'permit (principal == Principal::"agent:a", action in [Action::"flow.run", Action::"flow.read"], resource);',
        '@id("x")\nforbid (principal in Role::"agent", action == Action::"tool.invoke", resource in ToolGroup::"x");',
        'forbid (principal, action == Action::"tool.invoke", resource) when { context.environments.contains("prod") };',
    ],
)
def test_sound_policies(source: str) -> None:
    assert find_faults(source) == []


@given(st.text(max_size=300))
def test_any_text_gets_an_answer(source: str) -> None:
    for fault in find_faults(source):
        assert 1 <= fault.line <= source.count("\n") + 1


_DEEPEST = f"""
import threading
from shared.policy.check import find_faults
from shared.policy.decision import OwnPolicies, Resource, decide
from shared.policy.principal import Principal

b, i, o = {MAX_BRACKETS - 2}, {MAX_IFS}, {MAX_OPERATORS}
bodies = [
    "(" * b + "true" + ")" * b, "[" * b + "]" * b + " == []", "!" * o + "true", "{{a: " * b + "1" + "}}" * b + " == 1",
    "if true then " * i + "true" + " else false" * i, "context" + ".a" * o, "1" + "+1" * (o - 2) + " == 1",
    "A::" * 1200 + '"a" == principal', "[" + "1," * 1500 + "1].contains(1)", "-" * o + "1 == 1",
    "1*(" * b + "1" + "+1" * (o - b) + ")" * b + " == 1", "true" + "&&true" * (o // 2), "true" + "||true" * (o // 2),
    "(if true then " * i + "true" + " else false)" * i, "!(" * b + "true" + ")" * b,
]

def run():
    for body in bodies:
        source = "forbid (principal, action, resource) when {{ " + body + " }};"
        if find_faults(source):
            continue
        own = OwnPolicies("m", 1, {{"deep": source}})
        decide(Principal("k", "m", frozenset()), "memory.read", Resource("Agent", "a", "m"), None, own)

threading.stack_size(1024 * 1024)
thread = threading.Thread(target=run)
thread.start()
thread.join()
print("alive")
"""


def test_the_deepest_policy_leaves_the_process_alive() -> None:
    """Cedar's parser recurses without a limit of its own: deep text would end the process of every tenant."""
    answer = subprocess.run([sys.executable, "-c", _DEEPEST], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (answer.returncode, answer.stdout) == (0, "alive\n"), answer.stderr


def test_the_schema_holds_every_action_and_the_shipped_policies() -> None:
    from cedarpy import validate_policies

    text = schema_text()
    for action in ACTION_GROUPS:
        assert f'action "{action}" in [' in text
    for kind in RESOURCE_KINDS:
        assert kind in text
    shipped = (CONFIG_DIR / "policies.cedar").read_text(encoding="utf-8")
    assert validate_policies(shipped, schema()).errors == []


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("tool.task.create.invoke", ("tool.invoke", "task.create")),
        ("tool.math.invoke", ("tool.invoke", "math")),
        ("tool.llm.invoke", ("llm.invoke", None)),
        ("agent.run.invoke", ("agent.run", None)),
        ("tool.invoke", ("tool.invoke", None)),
        ("memory.read", ("memory.read", None)),
        ("tool..invoke", ("tool..invoke", None)),
    ],
)
def test_names_of_the_source_documents(name: str, expected: tuple[str, str | None]) -> None:
    assert own_action(name) == expected


def test_the_examples_of_the_documentation_are_policies() -> None:
    text = (ROOT / "docs" / "policy.md").read_text(encoding="utf-8")
    examples = re.findall(r"```cedar\n(.*?)```", text, re.DOTALL)
    assert len(examples) >= 5
    for example in examples:
        assert find_faults(example) == []
