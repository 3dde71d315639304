"""Clients of the database and the cloud, and the domains that tools and agents stand on."""

from functools import cached_property
from typing import TYPE_CHECKING

from shared.cloud.aws import Aws
from shared.cloud.outbox import Outbox
from shared.cloud.queue import Queue
from shared.cloud.workflow import Workflow
from shared.db.database import Database
from shared.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

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


class CoreServices:
    """What stands below the tools. Each part is made when it is first asked for."""

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

    async def _embed_texts(self, texts: "Sequence[str]") -> "list[Vector]":
        """The memory's own model, lent to the gateway, which stands below it."""
        from shared.memory.embedding.embedders import open_local_model
        from shared.memory.embedding.port import LocalEmbedder

        return await LocalEmbedder(open_local_model(self.settings)).embed(texts, "passage", "")
