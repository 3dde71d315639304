"""The one door of permission: what the shipped policies and the microDAO's own say, and a row of each refusal."""

from collections.abc import Mapping
from typing import Any

from shared.db.database import Database
from shared.errors import Unauthorized
from shared.observability import Log
from shared.policy import decision
from shared.policy.decision import Decision, Resource
from shared.policy.principal import Principal

_log = Log("policy")
_MAX_LOGGED_CHARACTERS = 200


class Policy:
    """Decides for every microDAO. ``database`` is a pool of its own: callers ask inside their transactions, and two
    connections of one pool for one caller would let callers wait for each other."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def decide(
        self, principal: Principal, action: str, resource: Resource, context: Mapping[str, Any] | None = None
    ) -> Decision:
        """What the policies say; nothing is refused and nothing written."""
        return decision.decide(principal, action, resource, context)

    async def authorize(
        self, principal: Principal, action: str, resource: Resource, context: Mapping[str, Any] | None = None
    ) -> Decision:
        """The decision that lets the action pass. Raises Unauthorized naming the rule; each denial is logged."""
        decided = await self.decide(principal, action, resource, context)
        if not decided.allow:
            who, what = _loggable(principal.key_id), _loggable(resource.id)
            _log.warning("denied", principal=who, action=action, resource=what, reason=decided.reason)
            raise Unauthorized(decided.reason)
        return decided

    async def close(self) -> None:
        """Release the connections."""
        await self._database.close()


def _loggable(identifier: str) -> str:
    """Callers choose ids: without control characters, and not too long."""
    return "".join(character for character in identifier if character.isprintable())[:_MAX_LOGGED_CHARACTERS]
