"""The roles and actions that policies speak of."""

from typing import Final, Literal, get_args

Role = Literal["owner", "admin", "member", "guest", "agent", "service", "operator"]
ROLES: Final[frozenset[str]] = frozenset(get_args(Role))

# Each role and those it includes.
ROLE_PARENTS: Final[dict[str, tuple[str, ...]]] = {
    "operator": ("owner",),
    "owner": ("admin",),
    "admin": ("member",),
    "service": ("member",),
    "member": ("guest",),
    "guest": (),
    "agent": (),
}

# Each action and the groups that policies grant.
ACTION_GROUPS: Final[dict[str, tuple[str, ...]]] = {
    "model.list": ("converse", "use"),
    "agent.run": ("converse", "use", "act"),
    "llm.invoke": ("use", "act"),
    "memory.read": ("use", "act"),
    "memory.write": ("use", "act"),
    "tool.list": ("use", "act"),
    "tool.invoke": ("use", "act"),
    "notification.read": ("use", "act"),
    "notification.write": ("use", "act"),
    "flow.run": ("use",),
    "flow.read": ("use",),
    "session.read": ("use",),
    "session.write": ("use",),
    "usage.read": ("use",),
    "policy.ask": ("use",),
    "blueprint.read": ("use",),
    "blueprint.write": ("administer",),
    "grant.write": ("administer",),
    "memory.share": ("administer",),
    "tool.write": ("administer",),
    "secret.write": ("administer",),
    "webhook.read": ("administer",),
    "webhook.write": ("administer",),
    "key.write": ("administer",),
    "agent.write": ("administer",),
    "experiment.write": ("administer",),
    "limit.read": ("administer",),
    "limit.write": ("administer",),
    "retention.read": ("administer",),
    "retention.write": ("administer",),
    "policy.read": ("administer",),
    "policy.write": ("administer",),
    "metrics.read": ("operate",),
    "platform.write": ("operate",),
    "microdao.write": ("operate",),
}

_NOT_GOVERNED = frozenset({"policy.ask", "policy.read", "policy.write", "key.write"})

GOVERNED: Final[frozenset[str]] = frozenset(
    action for action, groups in ACTION_GROUPS.items() if "operate" not in groups and action not in _NOT_GOVERNED
)
"""What a microDAO's own policies may forbid. Whoever administers can always see and mend them: nobody locks themselves
out, and the platform's own work is not theirs to forbid."""

GRANTABLE: Final[frozenset[str]] = frozenset(action for action in GOVERNED if "use" in ACTION_GROUPS[action])
"""What a microDAO's own policies may permit to whom the shipped ones do not: what members
do, nothing that administers."""
