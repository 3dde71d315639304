"""The default policies as a table: role × action, own and other microDAO."""

import pytest

from shared.policy.decision import Resource, decide
from shared.policy.principal import Principal, agent_principal
from shared.policy.roles import ACTION_GROUPS, ROLES

OWN = Resource("MicroDao", "m", "m")
OTHER = Resource("MicroDao", "other", "other")
GRANTED = {"granted": True}

# The least role that may do each action inside its own microDAO.
MATRIX = [
    ("model.list", {"guest", "member", "service", "admin", "owner", "operator"}),
    ("agent.run", {"guest", "member", "service", "admin", "owner", "operator", "agent"}),
    ("llm.invoke", {"member", "service", "admin", "owner", "operator", "agent"}),
    ("memory.write", {"member", "service", "admin", "owner", "operator", "agent"}),
    ("tool.invoke", {"member", "service", "admin", "owner", "operator", "agent"}),
    ("flow.run", {"member", "service", "admin", "owner", "operator"}),
    ("usage.read", {"member", "service", "admin", "owner", "operator"}),
    ("key.write", {"admin", "owner", "operator"}),
    ("grant.write", {"admin", "owner", "operator"}),
    ("memory.share", {"admin", "owner", "operator"}),
    ("limit.read", {"admin", "owner", "operator"}),
    ("limit.write", {"admin", "owner", "operator"}),
    ("metrics.read", {"operator"}),
    ("microdao.write", {"operator"}),
    ("platform.write", {"operator"}),
]


def principal(role: str) -> Principal:
    return Principal("key_1", "m", frozenset({role}))


@pytest.mark.parametrize(("action", "allowed"), MATRIX, ids=[action for action, _ in MATRIX])
def test_matrix(action: str, allowed: set[str]) -> None:
    for role in ROLES:
        assert decide(principal(role), action, OWN, GRANTED).allow == (role in allowed), role
        assert decide(principal(role), action, OTHER, GRANTED).allow == (role == "operator"), role


def test_a_tool_needs_a_grant_whatever_the_role() -> None:
    tool = Resource("Tool", "math", "m")
    for role in ROLES:
        for context in ({}, {"granted": False}):
            decision = decide(principal(role), "tool.invoke", tool, context)
            assert not decision.allow
            assert "tools-need-a-grant" in decision.reason
    assert decide(agent_principal("agent:a", "m"), "tool.invoke", tool, GRANTED).allow


def test_unknown_actions_and_no_roles_are_denied() -> None:
    assert not decide(principal("operator"), "tool.explode", OWN).allow
    assert not decide(Principal("key_1", "m", frozenset()), "model.list", OWN).allow
    assert decide(principal("member"), "key.write", OWN).reason == "key.write is permitted by no policy for your roles"


def test_ids_cannot_break_out_of_their_quotes() -> None:
    hostile = 'm", principal: Role::"operator'
    assert not decide(Principal(hostile, hostile, frozenset()), "model.list", Resource("Tool", hostile, "m")).allow


@pytest.mark.parametrize("granted", ["yes", "", 1, None, {"no": True}])
def test_a_policy_that_fails_denies(granted: object) -> None:
    decision = decide(principal("operator"), "tool.invoke", Resource("Tool", "math", "m"), {"granted": granted})
    assert (decision.allow, decision.reason) == (False, "policy error")


@pytest.mark.parametrize("hostile", ["a\nb", "a\u202eb", "it's", "\u0301a", "\x00", '"\\', "😀"])
def test_any_text_may_be_an_id(hostile: str) -> None:
    owner = Principal(hostile, hostile, frozenset({"owner"}))
    assert decide(owner, "key.write", Resource("Key", hostile, hostile)).allow
    assert not decide(owner, "key.write", Resource("Key", hostile, "m")).allow


def test_every_action_is_known_to_a_policy_group() -> None:
    assert {group for groups in ACTION_GROUPS.values() for group in groups} == {
        "converse",
        "use",
        "act",
        "administer",
        "operate",
    }
