"""What stands above the tools, and whether everything is there."""

import asyncio
from functools import cached_property
from typing import TYPE_CHECKING, Any

from shared.bootstrap.tools import ToolServices
from shared.cloud.health import answers_ok
from shared.db.migrate import missing_migrations
from shared.errors import ApiError
from shared.observability import configure_logging
from shared.settings import current_settings

if TYPE_CHECKING:
    from shared.agents.runtime import AgentRuntime
    from shared.router.flows import Flows
    from shared.usage.meter import Meter


_READY_WITHIN_S = 2.0


class Services(ToolServices):
    """Everything a function may need, each part made when it is first asked for."""

    @cached_property
    def agents(self) -> "AgentRuntime":
        """Sessions and the agent loop."""
        from shared.agents.runtime import AgentRuntime

        return AgentRuntime(
            self.database,
            self.gateway,
            self.memory,
            self.toolbox,
            self.policy,
            tool_search=lambda: self.tool_search,
        )

    @cached_property
    def flows(self) -> "Flows":
        """The router."""
        from shared.router.flows import Flows

        settings = self.settings
        return Flows(
            self.database,
            self.workflow,
            self.gateway,
            self.toolbox,
            self.policy,
            settings.tool_queue_url,
            settings.usd_per_1t,
        )

    @cached_property
    def meter(self) -> "Meter":
        """The usage meter."""
        from shared.usage.meter import Meter

        return Meter(self.database)

    async def missing(self) -> list[str]:
        """What is down or behind: ``database``, ``migrations``. Empty when ready."""
        try:
            return ["migrations"] if await missing_migrations(self.database, _READY_WITHIN_S) else []
        except ApiError:
            return ["database"]

    async def missing_neighbours(self) -> list[str]:
        """Which of ``engine`` and ``workers`` do not answer, as far as this process is told where they are."""
        addresses = {"engine": self.settings.engine_health_url, "workers": self.settings.workers_health_url}
        asked = {name: url for name, url in addresses.items() if url}
        answers = await asyncio.gather(*(answers_ok(url) for url in asked.values()))
        return [name for name, ok in zip(asked, answers, strict=True) if not ok]

    async def sandbox_view(self) -> dict[str, Any]:
        """For readiness: which sandbox runs Python tools here (``none``: they fail), and why no stronger one."""
        return {"sandbox": await self.sandbox.describe()}

    async def close(self) -> None:
        """Let turns and calls do their books, send what is left, then release every client that was made."""
        for name in (
            "agents",
            "toolbox",
            "outside",
            "sandbox",
            "monty",
            "devtools",
            "gateway",
            "outbox",
            "side_database",
            "database",
        ):
            if name in self.__dict__:
                await getattr(self, name).close()


def open_services() -> Services:
    """This process's services, configured from its environment."""
    settings = current_settings()
    configure_logging(settings.log_level, "daarion")
    return Services(settings)
