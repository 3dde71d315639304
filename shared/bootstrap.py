"""The composition root: builds each client on first use and hands it to the domains. Nothing else constructs them."""

import asyncio
from functools import cached_property
from typing import TYPE_CHECKING

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
    from shared.tools.catalogue.catalogue import Catalogue
    from shared.tools.catalogue.configs import ConfigChecks
    from shared.tools.catalogue.imports.imports import Imports
    from shared.tools.catalogue.imports.packs import Packs
    from shared.tools.executors.http import Platform
    from shared.tools.executors.outside import Outside
    from shared.tools.secrets.secrets import Secrets
    from shared.tools.toolbox import Toolbox
    from shared.tools.web.addresses import Reach
    from shared.tools.web.client import WebClient
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
    def secrets(self) -> "Secrets":
        """What tools prove themselves with."""
        from shared.tools.secrets.sealing import Sealer
        from shared.tools.secrets.secrets import Secrets

        previous = [key.strip() for key in self.settings.previous_secret_keys.split(",") if key.strip()]
        return Secrets(self.database, Sealer([self.settings.secret_key, *previous]))

    @cached_property
    def toolbox(self) -> "Toolbox":
        """The catalogue and the one execution path."""
        from shared.agents.as_tool import AgentAsTool
        from shared.tools.executors import Executors
        from shared.tools.executors.agent import AgentExecutor
        from shared.tools.executors.http import HttpExecutor
        from shared.tools.toolbox import Toolbox

        executors = Executors(
            {
                "http": HttpExecutor(self._outside, self._platform),
                "agent": AgentExecutor(AgentAsTool(lambda: self.agents)),
            }
        )
        return Toolbox(self.database, self.outbox, self.policy, executors)

    @cached_property
    def _outside(self) -> "Outside":
        from shared.tools.executors.outside import Outside

        return Outside(lambda: self.web, lambda: self.secrets)

    @cached_property
    def web(self) -> "WebClient":
        """The way out for tools."""
        from shared.tools.web.client import WebClient

        return WebClient(self._reach)

    @cached_property
    def _reach(self) -> "Reach":
        from shared.tools.web.addresses import read_reach

        return read_reach(self.settings.tool_ports, self.settings.private_hosts)

    @cached_property
    def platform_web(self) -> "WebClient":
        """The way to the platform's own services: its tools may go there, tenants' tools may not for that."""
        from shared.tools.web.client import WebClient
        from shared.tools.web.redirects import parse_url, place_of

        return WebClient(self._reach.with_private(place_of(parse_url(self.settings.platform_url))))

    @property
    def _platform(self) -> "Platform | None":
        from shared.tools.executors.http import Platform

        url, token = self.settings.platform_url, self.settings.platform_token
        return Platform(url, lambda: self.platform_web, token) if url else None

    @cached_property
    def catalogue(self) -> "Catalogue":
        """The tools as administrators change them."""
        from shared.tools.catalogue.catalogue import Catalogue

        return Catalogue(self.database, self.config_checks)

    @cached_property
    def imports(self) -> "Imports":
        """Tools from elsewhere."""
        from shared.tools.catalogue.imports.fetch import DocumentFetcher
        from shared.tools.catalogue.imports.imports import Imports

        return Imports(self.database, self.config_checks, fetch_document=DocumentFetcher(self._outside))

    @cached_property
    def packs(self) -> "Packs":
        """Tools to take from one microDAO to another."""
        from shared.tools.catalogue.imports.packs import Packs

        return Packs(self.database, self.config_checks)

    @cached_property
    def config_checks(self) -> "ConfigChecks":
        """Whether an executor can work with a tool's config."""
        from shared.tools.catalogue.checks import config_checks

        return config_checks()

    @cached_property
    def agents(self) -> "AgentRuntime":
        """Sessions and the agent loop."""
        from shared.agents.runtime import AgentRuntime

        return AgentRuntime(self.database, self.gateway, self.memory, self.toolbox, self.policy)

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

    async def missing_neighbours(self) -> list[str]:
        """Which of ``engine`` and ``workers`` do not answer, as far as this process is told where they are."""
        addresses = {"engine": self.settings.engine_health_url, "workers": self.settings.workers_health_url}
        asked = {name: url for name, url in addresses.items() if url}
        answers = await asyncio.gather(*(answers_ok(url) for url in asked.values()))
        return [name for name, ok in zip(asked, answers, strict=True) if not ok]

    async def close(self) -> None:
        """Let turns and calls do their books, send what is left, then release every client that was made."""
        for name in ("agents", "toolbox", "gateway", "outbox", "side_database", "database"):
            if name in self.__dict__:
                await getattr(self, name).close()


def open_services() -> Services:
    """This process's services, configured from its environment."""
    settings = current_settings()
    configure_logging(settings.log_level, "daarion")
    return Services(settings)
