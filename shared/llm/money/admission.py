"""The one door for money and rate limits: every model call is admitted here first, and settled in the ledger after.

One SQL statement checks all limits and budgets of the call's scopes (platform, microDAO, agent, key, flow) and holds
the most it can use, or refuses it and holds nothing.
"""

import asyncio
from dataclasses import dataclass, field

from psycopg.errors import UniqueViolation

from shared.clock import rfc3339, utc_now
from shared.db.database import Database
from shared.errors import InvalidApiKey
from shared.ids import new_id
from shared.llm.caller import Caller
from shared.llm.money import store_admission
from shared.llm.money.refusals import Window, budget_refusal, rate_headers, rate_refusal
from shared.llm.money.worst_case import WorstCase
from shared.observability import Log

__all__ = ["Admission", "Grant", "WorstCase"]

_log = Log("llm")


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """An admitted call. ``headers`` tell the caller what is left of its limits (``x-ratelimit-*``)."""

    id: str
    caller: Caller
    model: str
    admitted_at: str
    headers: dict[str, str] = field(default_factory=dict)

    def hold(self) -> dict[str, str | None]:
        """What names the reservation and its scopes, for ``settle_llm_call``."""
        return {"id": self.id, "model": self.model, "admitted_at": self.admitted_at, **_owners(self.caller)}


class Admission:
    """Admits calls. ``ttl_s`` is how long a hold stands: longer than any call can last."""

    def __init__(self, database: Database, *, ttl_s: float) -> None:
        self._database = database
        self._ttl_s = ttl_s
        self._abandoned: set[asyncio.Task[None]] = set()

    async def admit(self, caller: Caller, model: str, worst_case: WorstCase) -> Grant:
        """Hold the call's worst case, in one round trip to the database.

        Raises RateLimitExceeded (with ``retry-after``), InsufficientQuota (with ``x-should-retry: false``),
        InvalidApiKey when the caller's key was revoked meanwhile, or Unavailable. A caller that goes away while this
        waits holds nothing.
        """
        grant_id = new_id("call")
        asking = asyncio.create_task(self._admit(grant_id, caller, model, worst_case), name="llm-admission")
        try:
            return await asyncio.shield(asking)
        except asyncio.CancelledError:
            release = asyncio.create_task(self._release(asking), name="llm-admission-release")
            self._abandoned.add(release)
            release.add_done_callback(self._abandoned.discard)
            raise

    async def close(self) -> None:
        """Finish releasing what nobody waits for any more."""
        await asyncio.gather(*self._abandoned, return_exceptions=True)

    async def _admit(self, grant_id: str, caller: Caller, model: str, worst_case: WorstCase) -> Grant:
        call = {
            "id": grant_id,
            "model": model,
            **_owners(caller),
            "prompt_tokens": worst_case.prompt_tokens,
            "completion_tokens": worst_case.completion_tokens,
            "cost_microusd": worst_case.cost_microusd,
            "ttl_s": self._ttl_s,
        }
        try:
            verdict = await store_admission.admit(self._database, call)
        except UniqueViolation:  # sent again over a new connection: the first time went through
            return Grant(id=grant_id, caller=caller, model=model, admitted_at=rfc3339(utc_now()))
        windows = [Window(**window) for window in verdict.get("windows") or ()]
        match verdict.get("refused"):
            case "key":
                raise InvalidApiKey("Incorrect API key provided: it was revoked.")
            case "rate":
                raise rate_refusal(windows, worst_case.tokens)
            case "budget":
                raise budget_refusal(verdict["budget"])
        return Grant(
            id=grant_id,
            caller=caller,
            model=model,
            admitted_at=verdict["admitted_at"],
            headers=rate_headers(windows),
        )

    async def _release(self, asking: "asyncio.Task[Grant]") -> None:
        (grant,) = await asyncio.gather(asking, return_exceptions=True)
        if isinstance(grant, Grant):
            try:
                await store_admission.settle(self._database, {"hold": grant.hold(), "entries": []})
            except Exception:
                _log.exception("a hold stays until it expires", call=grant.id)


def _owners(caller: Caller) -> dict[str, str | None]:
    return {
        "microdao_id": caller.microdao_id,
        "agent_id": caller.agent_id,
        "key_id": caller.key_id,
        "flow_id": caller.flow_id,
        "session_id": caller.session_id,
    }
