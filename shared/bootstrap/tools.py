"""Tools: the catalogue, what runs them, how they are found."""

from abc import abstractmethod
from functools import cached_property
from typing import TYPE_CHECKING

from shared.bootstrap.core import CoreServices

if TYPE_CHECKING:
    from shared.agents.runtime import AgentRuntime
    from shared.tools.builtin.followups import Followups
    from shared.tools.builtin.notifications import Notifications
    from shared.tools.builtin.pruning import Pruning
    from shared.tools.builtin.webhooks import Webhooks
    from shared.tools.catalogue.catalogue import Catalogue
    from shared.tools.catalogue.configs import ConfigChecks
    from shared.tools.catalogue.imports.imports import Imports
    from shared.tools.catalogue.imports.packs import Packs
    from shared.tools.catalogue.plugins import Plugins
    from shared.tools.execution.pruning import ExecutionPruning
    from shared.tools.executors.outside import Outside
    from shared.tools.executors.python import PythonExecutor
    from shared.tools.ports import OuterExecutor
    from shared.tools.sandbox.monty import Monty
    from shared.tools.sandbox.probe import ProbedSandbox
    from shared.tools.search.indexer import ToolIndexer
    from shared.tools.search.searcher import ToolSearch
    from shared.tools.secrets.resealing import Resealing
    from shared.tools.toolbox import Toolbox
    from shared.tools.workspace.devtools import DevTools


class ToolServices(CoreServices):
    """What tools are made of, run by and found with."""

    @property
    @abstractmethod
    def agents(self) -> "AgentRuntime":
        """Agents, who stand above: one may be asked as a tool."""

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
        from shared.tools.toolbox import Toolbox

        outer: dict[str, OuterExecutor] = {
            "agent": AgentExecutor(AgentAsTool(lambda: self.agents)),
            "http": HttpExecutor(self.outside),
            "mcp": McpExecutor(self.outside),
            "python": PluginExecutor(self.plugins, self.python),
        }
        executors = Executors(outer, self._tool_functions())
        return Toolbox(self.database, self.outbox, self.policy, executors, self.plugins)

    def _tool_functions(self) -> "dict[str, OuterExecutor]":
        from shared.agents.models import AgentModels
        from shared.tools.builtin.outer import open_outer_builtins
        from shared.tools.executors.code import CODE_FUNCTION, GlueCode

        models = AgentModels(self.database)
        builtin = open_outer_builtins(self.database, lambda: self.memory, lambda: self.gateway, models)
        return {**builtin, **self.devtools.functions, CODE_FUNCTION: GlueCode(self.python)}

    @cached_property
    def python(self) -> "PythonExecutor":
        """What runs code of tenants and models."""
        from shared.tools.executors.python import PythonExecutor
        from shared.tools.executors.web_broker import WebBroker

        return PythonExecutor(self.sandbox, WebBroker(self.outside), self.monty)

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
    def pruning(self) -> "Pruning":
        """What removes old notifications, and what hangs on them."""
        from shared.tools.builtin.pruning import Pruning

        settings = self.settings
        return Pruning(self.database, read_days=settings.notification_read_days, days=settings.notification_days)

    @cached_property
    def execution_pruning(self) -> "ExecutionPruning":
        """What removes old executions."""
        from shared.tools.execution.pruning import ExecutionPruning
        from shared.tools.toolbox import QUEUE

        return ExecutionPruning(self.database, days=self.settings.execution_days, queue=QUEUE)

    @cached_property
    def resealing(self) -> "Resealing":
        """What seals all secrets anew. Raises Unavailable without a key to seal them by."""
        from shared.tools.builtin.webhooks import WEBHOOK_SECRETS
        from shared.tools.secrets.resealing import TOOL_SECRETS, Resealing

        return Resealing(self.database, self.outside.sealer, (TOOL_SECRETS, WEBHOOK_SECRETS))

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
        from shared.tools.executors.code import CODE_FUNCTION
        from shared.tools.workspace.devtools import DEVTOOLS

        return config_checks({*OUTER_BUILTINS, *DEVTOOLS, CODE_FUNCTION}, self.plugins)

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
