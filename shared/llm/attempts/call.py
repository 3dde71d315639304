"""One call to a logical model: admitted before its attempts, settled once after them."""

from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from shared.errors import ApiError
from shared.llm.attempts.attempt import Attempt, Subject
from shared.llm.attempts.tries import Tries
from shared.llm.caller import CallReport
from shared.llm.money.admission import Admission, Grant
from shared.llm.money.ledger import Ledger
from shared.llm.money.worst_case import WorstCase


@dataclass(frozen=True, slots=True, kw_only=True)
class Money:
    """Where a call is admitted and settled, and the most that it can come to."""

    admission: Admission
    ledger: Ledger
    worst_case: WorstCase


class Call:
    """An async context manager: entering it admits the call, leaving it settles what its attempts came to.

    An error on the way out takes the report's headers along.
    """

    def __init__(self, subject: Subject, tries: Tries, money: Money, report: CallReport) -> None:
        self.tries = tries
        self._subject = subject
        self._money = money
        self._report = report
        self._grant: Grant | None = None

    async def __aenter__(self) -> Self:
        admit = self._money.admission.admit
        self._grant = await admit(self._subject.caller, self._subject.model, self._money.worst_case)
        self._money.ledger.expect(self._grant)
        self._report.headers |= self._grant.headers
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, ApiError):
            self._report.headers["x-daarion-attempts"] = str(len(self.tries.entries))
            error.headers = {**self._report.headers, **error.headers}
        try:
            await self.settle()
        except ApiError:
            if error is None:
                raise

    async def settle(self) -> None:
        """Write down every attempt, once. Raises Unavailable when the database is down."""
        if self._grant is not None:
            grant, self._grant = self._grant, None
            await self._money.ledger.settle(grant, self.tries.entries)

    def begins(self, attempt: Attempt) -> None:
        """This attempt is the one that answers: it goes into the report."""
        self._report.headers |= {
            "x-daarion-model": attempt.route.model,
            "x-daarion-provider": attempt.route.provider,
            "x-daarion-attempts": str(attempt.number),
        }

    def account(self, attempt: Attempt) -> dict[str, Any]:
        """What the call cost, all its attempts together, and who answered."""
        cost = sum(entry.cost_microusd for entry in self.tries.entries)
        self._report.headers["x-daarion-cost-usd"] = f"{cost / 1_000_000:.6f}"
        return {"cost_microusd": cost, "provider": attempt.route.provider, "provider_model": attempt.route.model}
