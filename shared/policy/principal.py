"""The caller, as the rest of the platform sees it."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Principal:
    """An authenticated key, or an agent acting on a key's behalf. Nothing outside ``microdao_id`` exists for it."""

    key_id: str
    microdao_id: str
    roles: frozenset[str] = field(default_factory=frozenset)

    @property
    def is_operator(self) -> bool:
        """May act in every microDAO."""
        return "operator" in self.roles


def agent_principal(agent_id: str, microdao_id: str) -> Principal:
    """The agent itself, when it acts without a caller's key (a queued tool call, a flow's step)."""
    return Principal(key_id=agent_id, microdao_id=microdao_id, roles=frozenset({"agent"}))
