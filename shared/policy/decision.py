"""The policy decision point: one pure function over Cedar policies. What is not permitted is denied."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import orjson
from cedarpy import PolicySet, is_authorized

from shared.policy.principal import Principal
from shared.policy.roles import ACTION_GROUPS, ROLE_PARENTS
from shared.settings import CONFIG_DIR


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


def decide(principal: Principal, action: str, resource: Resource, context: Mapping[str, Any] | None = None) -> Decision:
    """Evaluate the policies. An action that no policy knows is denied, and so is whatever a policy fails on."""
    if action not in ACTION_GROUPS:
        return Decision(False, f"unknown action {action!r}")
    facts = orjson.dumps(dict(context or {}), option=orjson.OPT_SORT_KEYS)
    return _evaluate(principal, action, resource, facts)


@lru_cache(maxsize=4096)
def _evaluate(principal: Principal, action: str, resource: Resource, facts: bytes) -> Decision:
    """Pure, so that the same question (a tenth of a request's CPU time) is worked out once."""
    request = {
        "principal": _uid("Principal", principal.key_id),
        "action": _uid("Action", action),
        "resource": _uid(resource.kind, resource.id),
        "context": orjson.loads(facts),
    }
    answer = is_authorized(request, _policies(), [*_fixed_entities(), *_entities_of(principal, resource)])
    if answer.diagnostics.errors:  # Cedar leaves out a policy that fails: a forbid would not forbid
        return Decision(False, "policy error")
    named = answer.diagnostics.id_annotations_by_reason
    policies = tuple(sorted(str(named.get(reason) or reason) for reason in answer.diagnostics.reasons))
    return Decision(answer.allowed, _reason(answer.allowed, action, policies), policies)


def _reason(allowed: bool, action: str, policies: tuple[str, ...]) -> str:
    if allowed:
        return f"{action} is permitted by {', '.join(policies)}"
    if policies:
        return f"{action} is forbidden by {', '.join(policies)}"
    return f"{action} is permitted by no policy for your roles"


@cache
def _policies() -> PolicySet:
    return PolicySet.from_str((CONFIG_DIR / "policies.cedar").read_text(encoding="utf-8"))


@cache
def _fixed_entities() -> tuple[dict[str, Any], ...]:
    roles = (_entity("Role", role, parents=[("Role", one) for one in above]) for role, above in ROLE_PARENTS.items())
    actions = (
        _entity("Action", action, parents=[("Action", one) for one in groups])
        for action, groups in ACTION_GROUPS.items()
    )
    return (*roles, *actions)


def _entities_of(principal: Principal, resource: Resource) -> list[dict[str, Any]]:
    roles = [("Role", role) for role in sorted(principal.roles)]
    return [
        _entity("Principal", principal.key_id, {"microdao": principal.microdao_id}, roles),
        _entity(resource.kind, resource.id, {"microdao": resource.microdao_id}),
    ]


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
