"""What model calls used and cost, by day, model, agent, provider and flow (``GET /internal/llm/usage``)."""

import re
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, get_args

from shared.clock import utc_now
from shared.db.database import Database, Row
from shared.errors import InvalidRequest
from shared.usage import store

GroupKey = Literal["day", "model", "agent_id", "provider", "flow_id"]
GROUP_KEYS: tuple[GroupKey, ...] = get_args(GroupKey)

_SPAN = re.compile(r"([1-9][0-9]{0,3})([dh])")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_PERIOD_HELP = "period must look like 30d, 24h, 2026-01-31 or 2026-01-01..2026-02-01"


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageFilter:
    """Which calls to count, and what to group them by. ``until`` is exclusive."""

    agent_id: str | None = None
    model: str | None = None
    flow_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    group_by: tuple[GroupKey, ...] = ()


async def usage_report(
    database: Database, microdao_id: str, wanted: UsageFilter, *, usd_per_1t: float
) -> dict[str, Any]:
    """The figures of metered model calls: ``{"total": {…}, "groups": [{…keys, …figures}]}``.

    Raises InvalidRequest for a key that cannot be grouped by.
    """
    params = asdict(wanted) | {"microdao_id": microdao_id}
    keys = list(dict.fromkeys(wanted.group_by))
    if unknown := [key for key in keys if key not in GROUP_KEYS]:
        raise InvalidRequest(f"group_by takes {', '.join(GROUP_KEYS)}; not {unknown[0]!r}", param="group_by")
    async with database.tenant(microdao_id) as connection:
        (total,) = await store.read_figures(connection, params)
        groups = await store.read_figures(connection, params, keys) if keys else []
    return {"total": _figures(total, usd_per_1t), "groups": [_figures(group, usd_per_1t) for group in groups]}


def parse_period(text: str) -> tuple[datetime, datetime]:
    """The moments (since, until) that a period means; dates are UTC days, and the end of a range is not part of it.

    Raises InvalidRequest.
    """
    if span := _SPAN.fullmatch(text):
        length = timedelta(hours=int(span[1]) * (24 if span[2] == "d" else 1))
        now = utc_now()
        return now - length, now
    first, separator, last = text.partition("..")
    try:
        since = _midnight(first)
        until = _midnight(last) if separator else since + timedelta(days=1)
    except (ValueError, OverflowError):
        raise InvalidRequest(_PERIOD_HELP, param="period") from None
    if since >= until:
        raise InvalidRequest("period must end after it starts", param="period")
    return since, until


def _midnight(text: str) -> datetime:
    if not _DATE.fullmatch(text):
        raise ValueError(f"{text!r} is not a date")
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def _figures(row: Row, usd_per_1t: float) -> dict[str, Any]:
    return {
        **row,
        "total_tokens": row["prompt_tokens"] + row["completion_tokens"],
        "cost_1t": row["cost_microusd"] / 1_000_000 / usd_per_1t,
    }
