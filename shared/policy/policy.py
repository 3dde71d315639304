"""The one door of permission: what policies say, how often tools may be called, and a row of each refusal."""

import asyncio
from collections.abc import Iterable
from typing import Final, NoReturn

from shared.db.database import Database
from shared.errors import ApiError, Unauthorized
from shared.policy.decision import Context, Decision, OwnPolicies, Resource, decide, is_governed
from shared.policy.denials import DenialLog, denial_of
from shared.policy.known import KnownPolicies
from shared.policy.principal import Principal
from shared.policy.rates import ToolRates

_TURN: Final = 50
"""Decisions after which the event loop may do something else."""


class Policy:
    """Decides for every microDAO. ``environment`` is the profile that policies see.

    ``database`` is a pool of its own: callers ask inside their transactions, and callers that each hold one connection
    of a pool while they wait for a second could wait for each other.
    """

    def __init__(self, database: Database, environment: str = "dev") -> None:
        self._environment = {"environment": environment}
        self.known = KnownPolicies(database)
        self.denials = DenialLog(database)
        self.rates = ToolRates(database)

    async def decide(
        self, principal: Principal, action: str, resource: Resource, context: Context | None = None
    ) -> Decision:
        """What the policies say; nothing is refused and nothing written. Raises Unavailable if they cannot be read."""
        own = await self._own(principal, action, resource)
        return decide(principal, action, resource, self._environment | dict(context or {}), own)

    async def authorize(
        self, principal: Principal, action: str, resource: Resource, context: Context | None = None
    ) -> Decision:
        """The decision that lets the action pass. Raises Unauthorized naming the rule, once the refusal is a row."""
        decision = await self.decide(principal, action, resource, context)
        if not decision.allow:
            await self.denials.record(denial_of(principal, action, resource, context, decision))
            raise Unauthorized(decision.reason)
        return decision

    async def decide_each(
        self, principal: Principal, action: str, questions: Iterable[tuple[Resource, Context]]
    ) -> list[Decision]:
        """The decision about each resource of the principal's microDAO with its context: for lists.

        A tool costs 10 µs, and where the microDAO has policies about tools 0.5 ms once; others get their turn between.
        """
        decisions: list[Decision] = []
        for resource, context in questions:
            if len(decisions) % _TURN == _TURN - 1:
                await asyncio.sleep(0)
            decisions.append(await self.decide(principal, action, resource, context))
        return decisions

    async def governs(self, microdao_id: str, action: str) -> bool:
        """Whether the microDAO has policies of its own about the action."""
        known = self.known.fresh(microdao_id)
        own = known[1] if known is not None else await self.known.load(microdao_id)
        return own is not None and own.governs(action)

    async def refuse(
        self, principal: Principal, action: str, resource: Resource, context: Context | None, refusal: ApiError
    ) -> NoReturn:
        """Raise the refusal of a rule that is no policy, once it is a row like any other."""
        decision = Decision(False, refusal.message)
        await self.denials.record(denial_of(principal, action, resource, context, decision))
        raise refusal

    async def _own(self, principal: Principal, action: str, resource: Resource) -> OwnPolicies | None:
        if not is_governed(principal, action, resource):
            return None
        known = self.known.fresh(resource.microdao_id)
        return known[1] if known is not None else await self.known.load(resource.microdao_id)
