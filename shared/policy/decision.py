"""The policy decision point: a pure function over Cedar policies. What is not permitted is denied.

A microDAO's own policies are a second set, asked after the shipped one and only about its own resources and the actions
in ``GOVERNED``. So whatever their text says, it changes nothing elsewhere: the code does not ask it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import orjson

from shared.policy.principal import Principal
from shared.policy.roles import ACTION_GROUPS, GOVERNED, GRANTABLE, ROLE_PARENTS
from shared.settings import CONFIG_DIR

if TYPE_CHECKING:
    from cedarpy import PolicySet

# cedarpy is imported where it is used: it is a tenth of the chat function's import, and a health check needs none.

Context = Mapping[str, Any]

_CLOSED: Final[dict[str, Any]] = {"environment": ""}
# What is not told of a tool is taken to be the worst.
_CLOSED_TOOL: Final[dict[str, Any]] = {
    "environment": "",
    "granted": False,
    "risk": "D",
    "executor": "",
    "confidential": True,
    "environments": [],
    "agent_id": "",
    "tool": "",
}


@dataclass(frozen=True, slots=True)
class Resource:
    """What an action is about: its kind (``Tool``), id and microDAO."""

    kind: str
    id: str
    microdao_id: str


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer, the reason in words, and the ids of the policies that decided."""

    allow: bool
    reason: str
    policies: tuple[str, ...] = ()


class Verdict(NamedTuple):
    """What one set of policies says: ``none`` when no policy applies, ``error`` when one cannot be evaluated."""

    outcome: Literal["permit", "forbid", "none", "error"]
    policies: tuple[str, ...] = ()


class OwnPolicies:
    """A microDAO's active policies, parsed; ``sources`` by name. One that cannot be parsed makes all of them an error.

    Decisions made with them are kept here, so that they go when the policies do.
    """

    def __init__(self, microdao_id: str, version: int, sources: Mapping[str, str]) -> None:
        self.microdao_id = microdao_id
        self.version = version
        self._names = tuple(f"own/{name}" for name in sources)
        self._policies, self._actions = _parse_own(sources)
        self.count = len(sources)
        self.kept: dict[Any, Decision] = {}

    def governs(self, action: str) -> bool:
        """Whether any of them may say something about the action."""
        return self._policies is None or action in self._actions

    def verdict(self, principal: Principal, action: str, resource: Resource, facts: bytes) -> Verdict:
        """What they say about a request of this microDAO."""
        if self._policies is None:
            return Verdict("error")
        if action not in self._actions:
            return Verdict("none")
        outcome, ids = _ask(self._policies, principal, action, resource, facts)
        return Verdict(outcome, tuple(sorted(self._names[int(one.removeprefix("policy"))] for one in ids)))


MAX_KEPT: Final = 2048


def decide(
    principal: Principal,
    action: str,
    resource: Resource,
    context: Context | None = None,
    own: OwnPolicies | None = None,
) -> Decision:
    """Evaluate the policies. An action that no policy knows is denied, and so is whatever a policy fails on."""
    if action not in ACTION_GROUPS:
        return Decision(False, f"unknown action {action!r}")
    facts = _facts(action, context)
    if own is None or not is_governed(principal, action, resource) or own.microdao_id != resource.microdao_id:
        return _decide_by_shipped(principal, action, resource, facts)
    question = (principal, action, resource, facts)
    decision = own.kept.get(question)
    if decision is None:
        if len(own.kept) >= MAX_KEPT:
            own.kept.clear()
        decision = own.kept[question] = combine(action, _shipped_verdict(*question), own.verdict(*question))
    return decision


def is_governed(principal: Principal, action: str, resource: Resource) -> bool:
    """Whether the microDAO's own policies are asked, too."""
    return action in GOVERNED and principal.microdao_id == resource.microdao_id


def combine(action: str, shipped: Verdict, own: Verdict) -> Decision:
    """Both say yes or nothing, or it is denied; a permit of the microDAO's own reaches only what is grantable."""
    if "error" in (shipped.outcome, own.outcome):
        return Decision(False, "policy error" if shipped.outcome == "error" else "policy error in the microDAO's own")
    for verdict in (shipped, own):
        if verdict.outcome == "forbid":
            return Decision(False, f"{action} is forbidden by {', '.join(verdict.policies)}", verdict.policies)
    permits = shipped if shipped.outcome == "permit" or action not in GRANTABLE else own
    if permits.outcome == "permit":
        return Decision(True, f"{action} is permitted by {', '.join(permits.policies)}", permits.policies)
    return Decision(False, f"{action} is permitted by no policy for your roles")


def _decide_by_shipped(principal: Principal, action: str, resource: Resource, facts: bytes) -> Decision:
    is_own = principal.microdao_id == resource.microdao_id
    return _decide_for_roles(principal.roles, is_own, action, _unnamed(action, facts))


def _shipped_verdict(principal: Principal, action: str, resource: Resource, facts: bytes) -> Verdict:
    is_own = principal.microdao_id == resource.microdao_id
    return _verdict_for_roles(principal.roles, is_own, action, _unnamed(action, facts))


@lru_cache(maxsize=4096)
def _decide_for_roles(roles: frozenset[str], is_own: bool, action: str, facts: bytes) -> Decision:
    return combine(action, _verdict_for_roles(roles, is_own, action, facts), Verdict("none"))


@lru_cache(maxsize=4096)
def _verdict_for_roles(roles: frozenset[str], is_own: bool, action: str, facts: bytes) -> Verdict:
    """The shipped policies look at nobody's name, so that what they say to one key and thing they say to all."""
    somebody, something = Principal("-", "-", roles), Resource("MicroDao", "-", "-" if is_own else "other")
    outcome, ids = _ask(_shipped(), somebody, action, something, facts, named=True)
    return Verdict(outcome, tuple(sorted(ids)))


def _unnamed(action: str, facts: bytes) -> bytes:
    if action != "tool.invoke":
        return facts
    return orjson.dumps({**orjson.loads(facts), "agent_id": "", "tool": ""}, option=orjson.OPT_SORT_KEYS)


def _ask(
    policies: "PolicySet", principal: Principal, action: str, resource: Resource, facts: bytes, *, named: bool = False
) -> tuple[Literal["permit", "forbid", "none", "error"], list[str]]:
    """The outcome and the ids of the policies behind it, ``named`` by their annotation."""
    from cedarpy import is_authorized

    request = {
        "principal": _uid("Principal", principal.key_id),
        "action": _uid("Action", action),
        "resource": _uid(resource.kind, resource.id),
        "context": orjson.loads(facts),
    }
    answer = is_authorized(request, policies, _entities_of(principal, action, resource))
    found = answer.diagnostics
    if found.errors:  # Cedar leaves out a policy that fails: a forbid would not forbid
        return "error", []
    names = found.id_annotations_by_reason if named else {}
    ids = [str(names.get(one) or one) for one in found.reasons]
    return ("permit" if answer.allowed else "forbid" if ids else "none"), ids


def _facts(action: str, context: Context | None) -> bytes:
    """The whole context in one form. Lists stand for sets."""
    closed = _CLOSED_TOOL if action == "tool.invoke" else _CLOSED
    return orjson.dumps({**closed, **(context or {})}, option=orjson.OPT_SORT_KEYS)


def tool_groups(name: str) -> list[str]:
    """The groups of a tool: what stands before the dots of its name (``ns.task`` and ``ns`` for ``ns.task.create``)."""
    parts = name.split(".")
    return [".".join(parts[:length]) for length in range(len(parts) - 1, 0, -1)]


def _parse_own(sources: Mapping[str, str]) -> "tuple[PolicySet | None, frozenset[str]]":
    """The policies and the actions that their heads name. Cedar numbers policies in the order of the text: ``policy0``
    is the first of ``sources``."""
    from cedarpy import PolicySet

    try:
        policies = PolicySet.from_str("\n".join(sources.values()))
        parsed = policies.to_pst().static_policies.values()
    except ValueError:
        return None, frozenset()
    named = [named_actions(one.action) for one in parsed]
    acting = frozenset().union(*(GOVERNED if one is None else one for one in named))
    return (policies if len(named) == len(sources) else None), acting


def named_actions(scope: Any) -> frozenset[str] | None:
    """The actions in a parsed policy's head, groups taken apart; None when it names none."""
    entities = getattr(scope, "entities", None) or [one for one in [getattr(scope, "entity", None)] if one is not None]
    names = {entity.id for entity in entities}
    found = frozenset(action for action, groups in ACTION_GROUPS.items() if names & {action, *groups})
    return found if hasattr(scope, "entities") or entities else None


@cache
def _shipped() -> "PolicySet":
    from cedarpy import PolicySet

    return PolicySet.from_str((CONFIG_DIR / "policies.cedar").read_text(encoding="utf-8"))


def _entities_of(principal: Principal, action: str, resource: Resource) -> list[dict[str, Any]]:
    """What the question is about, with all that each belongs to: the fewer entities, the faster (0.3 ms, not 2)."""
    groups = [("ToolGroup", group) for group in tool_groups(resource.id)] if resource.kind == "Tool" else []
    return [
        _action_entity(action),
        _entity("Principal", principal.key_id, {"microdao": principal.microdao_id}, _with_parents(principal.roles)),
        _entity(resource.kind, resource.id, {"microdao": resource.microdao_id}, groups),
    ]


@cache
def _action_entity(action: str) -> dict[str, Any]:
    return _entity("Action", action, parents=[("Action", group) for group in ACTION_GROUPS[action]])


@lru_cache(maxsize=256)
def _with_parents(roles: frozenset[str]) -> list[tuple[str, str]]:
    """These roles and all that they include."""
    found, waiting = set[str](), list(roles)
    while waiting:
        role = waiting.pop()
        if role not in found:
            found.add(role)
            waiting += ROLE_PARENTS.get(role, ())
    return [("Role", role) for role in sorted(found)]


def _entity(
    kind: str, identifier: str, attrs: dict[str, str] | None = None, parents: list[tuple[str, str]] | None = None
) -> dict[str, Any]:
    return {
        "uid": _uid(kind, identifier),
        "attrs": attrs or {},
        "parents": [_uid(kind, name) for kind, name in parents or []],
    }


def _uid(kind: str, identifier: str) -> dict[str, str]:
    return {"type": kind, "id": identifier}
