"""How tools are used: runs, failures by code, time, cost, and the tools that nobody uses."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal, get_args

from shared.db.database import Database, Row
from shared.errors import InvalidRequest
from shared.tools.arguments import check_text
from shared.tools.catalogue import lookup, store_analytics

UsageKey = Literal["tool", "agent", "day"]
USAGE_KEYS: Final[tuple[UsageKey, ...]] = get_args(UsageKey)
MAX_GROUPS: Final = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageQuestion:
    """Which runs to count, and what to group them by. ``until`` is exclusive; ``tool`` is a name, an alias or an id."""

    since: datetime
    until: datetime
    agent_id: str | None = None
    tool: str | None = None
    group_by: Sequence[UsageKey] = ()


async def tool_usage(database: Database, microdao_id: str, question: UsageQuestion) -> dict[str, Any]:
    """``{"total": {…}, "groups": [{…keys, …figures}], "denied", "denials": [{…keys, "denied"}], "unused": […]}``.

    Raises NotFound (tool), InvalidRequest (a key that cannot be grouped by).
    """
    keys = list(dict.fromkeys(question.group_by))
    if unknown := [key for key in keys if key not in USAGE_KEYS]:
        raise InvalidRequest(f"group_by takes {', '.join(USAGE_KEYS)}; not {unknown[0]!r}", param="group_by")
    check_text(question.agent_id or "", "agent_id")
    async with database.tenant(microdao_id) as connection:
        tool = await lookup.find_tool(connection, question.tool) if question.tool else None
        params = {
            "since": question.since,
            "until": question.until,
            "agent_id": question.agent_id,
            "tool_id": tool and tool.id,
            "tool_name": tool and tool.name,
            "limit": MAX_GROUPS,
        }
        total = await store_analytics.read_figures(connection, params)
        failures = await store_analytics.read_failures(connection, params)
        groups = await store_analytics.read_figures(connection, params, keys) if keys else []
        failures_by = await store_analytics.read_failures(connection, params, keys) if keys else []
        denied = await store_analytics.read_denials(connection, params)
        denials = await store_analytics.read_denials(connection, params, keys) if keys else []
        unused = await store_analytics.read_unused(connection, params)
    return {
        "total": _with_failures(total, failures, [])[0],
        "groups": _with_failures(groups, failures_by, keys),
        "denied": denied[0]["denied"],
        "denials": denials,
        "unused": unused,
    }


def _with_failures(figures: list[Row], failures: list[Row], keys: Sequence[str]) -> list[dict[str, Any]]:
    codes: dict[tuple[Any, ...], dict[str, int]] = {}
    for row in failures:
        codes.setdefault(tuple(row[key] for key in keys), {})[row["code"]] = row["runs"]
    return [{**row, "failures": codes.get(tuple(row[key] for key in keys), {})} for row in figures]
