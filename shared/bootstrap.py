"""The composition root: builds each client on first use and hands it to the domains. Nothing else constructs them."""

import asyncio
from functools import cached_property
from typing import TYPE_CHECKING, Any

from shared.cloud.aws import Aws
from shared.cloud.health import answers_ok
from shared.cloud.outbox import Outbox
from shared.cloud.queue import Queue
from shared.cloud.workflow import Workflow
from shared.db.database import Database
from shared.db.migrate import missing_migrations
from shared.errors import ApiError
from shared.observability import configure_logging
from shared.settings import Settings, current_settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shared.agents.runtime import AgentRuntime
    from shared.llm.answers.idempotency import IdempotentRequests
    from shared.llm.answers.response_cache import ResponseCache
    from shared.llm.experiments.experiments import Experiments
    from shared.llm.gateway import Gateway
    from shared.llm.money.limits import Limits
    from shared.llm.money.pricing import PriceTable
    from shared.memory.embedding.port import Vector
    from shared.memory.memory import Memory
    from shared.policy.keys import Keys
    from shared.policy.own import OwnPolicyBook
    from shared.policy.policy import Policy
    from shared.policy.tenants import Tenants
    from shared.router.flows import Flows
    from shared.tools.builtin.followups import Followups
    from shared.tools.builtin.notifications import Notifications
    from shared.tools.builtin.webhooks import Webhooks
    from shared.tools.catalogue.catalogue import Catalogue
    from shared.tools.catalogue.configs import ConfigChecks
    from shared.tools.catalogue.imports.imports import Imports
    from shared.tools.catalogue.imports.packs import Packs
    from shared.tools.catalogue.plugins import Plugins
    from shared.tools.executors import OuterExecutor
    from shared.tools.executors.outside import Outside
    from shared.tools.sandbox.monty import Monty
    from shared.tools.sandbox.probe import ProbedSandbox
    from shared.tools.search.indexer import ToolIndexer
    from shared.tools.search.searcher import ToolSearch
    from shared.tools.toolbox import Toolbox
    from shared.tools.workspace.devtools import DevTools
    from shared.usage.meter import Meter

_READY_WITHIN_S = 2.0


class Services:
    """Everything a function may need, each part made when it is first asked for."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @cached_property
    def database(self) -> Database:
        """The pool."""
        return Database(
            self.settings.database_url,
            max_size=self.settings.database_pool_size,
            timeout_s=self.settings.database_timeout_s,
        )

    @cached_property
    def aws(self) -> Aws:
        """The AWS clients."""
        return Aws(self.settings.aws_region, self.settings.aws_endpoint_url)

    @cached_property
    def outbox(self) -> Outbox:
        """The relay from committed jobs to the queues this process knows."""
        urls = {
            "tool": self.settings.tool_queue_url,
            "memory": self.settings.memory_queue_url,
            "usage": self.settings.usage_queue_url,
        }
        queues = {name: Queue(self.aws, url) for name, url in urls.items() if url}
        return Outbox(self.database, queues, inline=self.settings.inline_outbox)

    @cached_property
    def workflow(self) -> Workflow:
        """The router's state machine."""
        return Workflow(self.aws, self.settings.router_state_machine_arn)

    @cached_property
    def keys(self) -> "Keys":
        """API keys."""
        from shared.policy.keys import Keys

        return Keys(self.database, self.settings.secret_key)

    @cached_property
    def side_database(self) -> Database:
        """A small pool for what is asked while the caller holds a connection of the other."""
        settings = self.settings
        return Database(settings.database_url, max_size=2, timeout_s=settings.database_timeout_s)

    @cached_property
    def policy(self) -> "Policy":
        """Every permission."""
        from shared.policy.policy import Policy

        return Policy(self.side_database, self.settings.profile)

    @cached_property
    def own_policies(self) -> "OwnPolicyBook":
        """What microDAOs add to the policies."""
        from shared.policy.own import OwnPolicyBook

        return OwnPolicyBook(self.database, self.policy.known)

    @cached_property
    def tenants(self) -> "Tenants":
        """MicroDAOs."""
        from shared.policy.tenants import Tenants

        return Tenants(self.database)

    @cached_property
    def gateway(self) -> "Gateway":
        """Every model call."""
        from shared.llm.gateway import open_gateway

        return open_gateway(
            self.settings,
            self.database,
            self.outbox,
            embedder=self._embed_texts,
            prices=self.prices,
            experiments=self.experiments,
            cache=self.response_cache,
        )

    @cached_property
    def prices(self) -> "PriceTable":
        """What models cost."""
        from shared.llm.money.pricing import load_price_table

        return load_price_table(self.settings.prices_file)

    @cached_property
    def limits(self) -> "Limits":
        """Rate limits and budgets."""
        from shared.llm.money.limits import Limits

        return Limits(self.database)

    @cached_property
    def experiments(self) -> "Experiments":
        """Prompt experiments."""
        from shared.llm.experiments.experiments import Experiments

        return Experiments(self.database)

    @cached_property
    def response_cache(self) -> "ResponseCache":
        """Answers kept on request."""
        from shared.llm.answers.response_cache import ResponseCache

        return ResponseCache(self.database)

    @cached_property
    def idempotency(self) -> "IdempotentRequests":
        """Requests with an idempotency key."""
        from shared.llm.answers.idempotency import IdempotentRequests

        return IdempotentRequests(self.database)

    @cached_property
    def memory(self) -> "Memory":
        """What agents remember."""
        from shared.memory.memory import open_memory

        return open_memory(self.settings, self.database, self.outbox, lambda: self.gateway)

    @cached_property
    def outside(self) -> "Outside":
        """The way out for tools, with their secrets."""
        from shared.tools.executors.outside import Outside

        return Outside(self.settings, self.database)

    @cached_property
    def toolbox(self) -> "Toolbox":
        """The catalogue and the one execution path."""
        from shared.agents.as_tool import AgentAsTool
        from shared.tools.executors import Executors
        from shared.tools.executors.agent import AgentExecutor
        from shared.tools.executors.http import HttpExecutor
        from shared.tools.executors.mcp import McpExecutor
        from shared.tools.executors.plugin import PluginExecutor
        from shared.tools.executors.python import PythonExecutor
        from shared.tools.executors.web_broker import WebBroker
        from shared.tools.toolbox import Toolbox

        outer: dict[str, OuterExecutor] = {
            "agent": AgentExecutor(AgentAsTool(lambda: self.agents)),
            "http": HttpExecutor(self.outside),
            "mcp": McpExecutor(self.outside),
            "python": PluginExecutor(self.plugins, PythonExecutor(self.sandbox, WebBroker(self.outside), self.monty)),
        }
        executors = Executors(outer, self._tool_functions())
        return Toolbox(self.database, self.outbox, self.policy, executors, self.plugins)

    def _tool_functions(self) -> "dict[str, OuterExecutor]":
        from shared.agents.models import AgentModels
        from shared.tools.builtin.outer import open_outer_builtins

        models = AgentModels(self.database)
        builtin = open_outer_builtins(self.database, lambda: self.memory, lambda: self.gateway, models)
        return {**builtin, **self.devtools.functions}

    @cached_property
    def followups(self) -> "Followups":
        """Reminders, and what fires them."""
        from shared.tools.builtin.followups import Followups

        return Followups(self.database, self.outbox)

    @cached_property
    def notifications(self) -> "Notifications":
        """Inboxes."""
        from shared.tools.builtin.notifications import Notifications

        return Notifications(self.database, lambda: self.memory)

    @cached_property
    def webhooks(self) -> "Webhooks":
        """What microDAOs' own servers are told."""
        from shared.tools.builtin.poster import WebPoster
        from shared.tools.builtin.webhooks import Webhooks

        return Webhooks(self.database, self.outbox, WebPoster(lambda: self.outside.client), self.outside.sealer)

    @cached_property
    def sandbox(self) -> "ProbedSandbox":
        """Where tools run that are Python: the strongest that this machine has, or none."""
        from shared.tools.sandbox.probe import ProbedSandbox, candidates, with_modules

        return ProbedSandbox(candidates(with_modules(self.settings.sandbox_modules)))

    @cached_property
    def monty(self) -> "Monty":
        """Where short code runs that a model wrote."""
        from shared.tools.sandbox.monty import Monty

        return Monty()

    @cached_property
    def devtools(self) -> "DevTools":
        """The agents' workspaces."""
        from shared.tools.workspace.devtools import DevTools, open_test_sandbox

        return DevTools(self.settings.workspaces_folder, open_test_sandbox())

    @cached_property
    def catalogue(self) -> "Catalogue":
        """The tools as administrators change them."""
        from shared.tools.catalogue.catalogue import Catalogue

        return Catalogue(self.database, self.config_checks, self.plugins)

    @cached_property
    def imports(self) -> "Imports":
        """Tools from elsewhere."""
        from shared.tools.catalogue.imports.fetch import DocumentFetcher
        from shared.tools.catalogue.imports.imports import Imports
        from shared.tools.executors.mcp import McpExecutor

        return Imports(
            self.database,
            self.config_checks,
            fetch_document=DocumentFetcher(self.outside),
            list_remote_tools=McpExecutor(self.outside).list_tools,
        )

    @cached_property
    def packs(self) -> "Packs":
        """Tools to take from one microDAO to another."""
        from shared.tools.catalogue.imports.packs import Packs

        return Packs(self.database, self.config_checks)

    @cached_property
    def config_checks(self) -> "ConfigChecks":
        """Whether an executor can work with a tool's config."""
        from shared.tools.builtin import OUTER_BUILTINS
        from shared.tools.catalogue.checks import config_checks
        from shared.tools.workspace.devtools import DEVTOOLS

        return config_checks({*OUTER_BUILTINS, *DEVTOOLS}, self.plugins)

    @cached_property
    def plugins(self) -> "Plugins":
        """Tools that installed packages bring."""
        from shared.tools.catalogue.plugins import Plugins

        return Plugins()

    @cached_property
    def tool_search(self) -> "ToolSearch":
        """Finding the tools for a request."""
        from shared.tools.search.searcher import ToolSearch

        return ToolSearch(self.database, self.memory.spaces, self.settings.profile)

    @cached_property
    def tool_indexer(self) -> "ToolIndexer":
        """Making tools findable by meaning."""
        from shared.tools.search.indexer import ToolIndexer

        return ToolIndexer(self.database, self.outbox, self.memory.spaces)

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

    async def _embed_texts(self, texts: "Sequence[str]") -> "list[Vector]":
        """The memory's own model, lent to the gateway, which stands below it."""
        from shared.memory.embedding.embedders import open_local_model
        from shared.memory.embedding.port import LocalEmbedder

        return await LocalEmbedder(open_local_model(self.settings)).embed(texts, "passage", "")

    async def missing(self) -> list[str]:
        """What is down or behind: ``database``, ``migrations``. Empty when ready."""
        try:
            return ["migrations"] if await missing_migrations(self.database, _READY_WITHIN_S) else []
        except ApiError:
            return ["database"]

    async def sandbox_view(self) -> dict[str, Any]:
        """For readiness: which sandbox runs Python tools here (``none``: they fail), and why no stronger one."""
        return {"sandbox": await self.sandbox.describe()}

    async def missing_neighbours(self) -> list[str]:
        """Which of ``engine`` and ``workers`` do not answer, as far as this process is told where they are."""
        addresses = {"engine": self.settings.engine_health_url, "workers": self.settings.workers_health_url}
        asked = {name: url for name, url in addresses.items() if url}
        answers = await asyncio.gather(*(answers_ok(url) for url in asked.values()))
        return [name for name, ok in zip(asked, answers, strict=True) if not ok]

    async def close(self) -> None:
        """Let turns and calls do their books, send what is left, then release every client that was made."""
        for name in (
            "agents",
            "toolbox",
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
