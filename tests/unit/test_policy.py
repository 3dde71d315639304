"""The default policies as a table: role × action, own and other microDAO."""

import re

import pytest

from shared.policy.decision import Resource, decide
from shared.policy.principal import Principal, agent_principal
from shared.policy.roles import ACTION_GROUPS, ROLES
from shared.settings import CONFIG_DIR

OWN = Resource("MicroDao", "m", "m")
OTHER = Resource("MicroDao", "other", "other")
GRANTED = {"granted": True}

# Written by hand: who may do what inside their own microDAO. g: guest, m: member, s: service, a: admin, o: owner,
# t: agent (acting for itself), p: operator. Elsewhere nobody may do anything but the operator.
ROLE_OF = {
    "g": "guest",
    "m": "member",
    "s": "service",
    "a": "admin",
    "o": "owner",
    "t": "agent",
    "p": "operator",
}
MATRIX = {
    "model.list": "gmsao p",
    "agent.run": "gmsaotp",
    "llm.invoke": " msaotp",
    "memory.read": " msaotp",
    "memory.write": " msaotp",
    "tool.list": " msaotp",
    "tool.invoke": " msaotp",
    "notification.read": " msaotp",
    "notification.write": " msaotp",
    "flow.run": " msao p",
    "flow.read": " msao p",
    "session.read": " msao p",
    "session.write": " msao p",
    "usage.read": " msao p",
    "policy.ask": " msao p",
    "blueprint.read": " msao p",
    "blueprint.write": "   ao p",
    "grant.write": "   ao p",
    "memory.share": "   ao p",
    "tool.write": "   ao p",
    "key.write": "   ao p",
    "secret.write": "   ao p",
    "webhook.read": "   ao p",
    "webhook.write": "   ao p",
    "agent.write": "   ao p",
    "experiment.write": "   ao p",
    "limit.read": "   ao p",
    "limit.write": "   ao p",
    "retention.read": "   ao p",
    "retention.write": "   ao p",
    "policy.read": "   ao p",
    "policy.write": "   ao p",
    "metrics.read": "      p",
    "platform.write": "      p",
    "microdao.write": "      p",
}


def principal(role: str) -> Principal:
    return Principal("key_1", "m", frozenset({role}))


def test_the_matrix_is_whole() -> None:
    assert MATRIX.keys() == ACTION_GROUPS.keys(), "a new action needs a line, by hand"
    assert set(ROLE_OF.values()) == ROLES


@pytest.mark.parametrize(("action", "allowed"), MATRIX.items(), ids=list(MATRIX))
def test_matrix(action: str, allowed: str) -> None:
    for letter, role in ROLE_OF.items():
        assert decide(principal(role), action, OWN, GRANTED).allow == (letter in allowed), role
        assert decide(principal(role), action, OTHER, GRANTED).allow == (role == "operator"), role


@pytest.mark.parametrize("environments", [[], ["prod"], ["dev", "staging"]])
def test_a_tool_runs_in_its_environments(environments: list[str]) -> None:
    tool = Resource("Tool", "math", "m")
    for environment in ("dev", "staging", "prod"):
        facts = {**GRANTED, "environments": environments, "environment": environment}
        decision = decide(agent_principal("agent:a", "m"), "tool.invoke", tool, facts)
        assert decision.allow == (not environments or environment in environments)
        assert decision.allow or decision.policies == ("tools-run-in-their-environments",)


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


def test_the_shipped_policies_look_at_nobodys_name() -> None:
    """Their verdict is remembered for roles, whoever and whatever is asked about."""
    text = (CONFIG_DIR / "policies.cedar").read_text(encoding="utf-8")
    code = "\n".join(line for line in text.splitlines() if not line.startswith("//"))
    assert re.findall(r"(?:principal|resource)\s*(?:==|is\b)", code) == []
    assert set(re.findall(r"in (\w+)::", code)) == {"Role", "Action"}
    assert set(re.findall(r"(?:context\.|context has )(\w+)", code)) == {"granted", "environment", "environments"}
    assert set(re.findall(r"(?:principal|resource)\.(\w+)", code)) == {"microdao"}
