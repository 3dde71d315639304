"""The tools package's front: the catalogue as agents see it, grants, and calls."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from shared.clock import rfc3339
from shared.cloud.outbox import Outbox, claim, enqueue
from shared.db.database import Connection, Database, Row
from shared.errors import IdempotencyInProgress, InvalidRequest, NotFound
from shared.policy.decision import Decision, Resource
from shared.policy.policy import Policy
from shared.policy.principal import Principal, agent_principal
from shared.tools.arguments import check_request, check_text
from shared.tools.catalogue import lookup, seed, store
from shared.tools.catalogue.plugins import Plugins, adopt
from shared.tools.execution import store_executions
from shared.tools.execution.admission import policy_facts, would_admit
from shared.tools.execution.execution import begin, find, lock
from shared.tools.execution.runner import Runner
from shared.tools.executors import Executors
from shared.tools.executors.chain import ChainExecutor
from shared.tools.model import STATUSES, Permission, Tool, ToolCallRequest, ToolOutcome

QUEUE = "tool"
Found = TypeVar("Found")


class Toolbox:
    """Each method works in one microDAO and sees nothing of another."""

    def __init__(
        self,
        database: Database,
        outbox: Outbox,
        policy: Policy,
        executors: Executors | None = None,
        plugins: Plugins | None = None,
    ) -> None:
        self._database = database
        self._outbox = outbox
        self._policy = policy
        self._plugins = Plugins() if plugins is None else plugins
        self._runner = Runner(database, (executors or Executors()).extended({"chain": ChainExecutor(self.execute)}))

    async def find(self, microdao_id: str, name_or_id: str) -> Tool:
        """The tool with this id, name or alias. Raises NotFound with the names that come near."""
        async with self._database.tenant(microdao_id) as connection:
            return await self._known(connection, microdao_id, name_or_id, lookup.find_tool)

    async def find_for_agent(self, microdao_id: str, agent_id: str, name_or_id: str) -> Tool:
        """The same among the tools that the agent may use. Raises NotFound for any other, which it is not told of."""
        usable = {tool.id for tool in await self.list_for_agent(microdao_id, agent_id)}
        try:
            async with self._database.tenant(microdao_id) as connection:
                return await lookup.find_among(connection, agent_id, usable, name_or_id)
        except NotFound as refusal:
            resource = Resource("Tool", name_or_id, microdao_id)
            await self._policy.refuse(agent_principal(agent_id, microdao_id), "tool.list", resource, None, refusal)

    async def list_all(self, microdao_id: str, after: str, limit: int) -> list[Tool]:
        """The catalogue by name, active or not, from the one after ``after``."""
        check_text(after, "after")
        async with self._database.tenant(microdao_id) as connection:
            return await store.list_tools(connection, after, limit)

    async def list_for_agent(
        self, microdao_id: str, agent_id: str, after: str = "", limit: int | None = None
    ) -> list[Tool]:
        """The active tools that the agent was granted and that policy lets it run, by name.

        They begin with the one after ``after``. Raises NotFound for an unknown agent.
        """
        check_text(agent_id, "agent_id")
        check_text(after, "after")
        async with self._database.tenant(microdao_id) as connection:
            tools = await store.list_granted(connection, agent_id, after)
            if not tools:
                await _require_agent(connection, agent_id)
        decided = await self._decided(microdao_id, agent_id, tools)
        return [tool for tool, decision in decided if decision.allow][:limit]

    async def permissions(self, microdao_id: str, agent_id: str) -> list[Permission]:
        """Every tool of the catalogue and whether the agent may use it. Raises NotFound for an unknown agent."""
        check_text(agent_id, "agent_id")
        async with self._database.tenant(microdao_id) as connection:
            await _require_agent(connection, agent_id)
            rows = await store.list_permissions(connection, agent_id)
            tools = await store.list_granted(connection, agent_id)
        decided = {tool.name: decision for tool, decision in await self._decided(microdao_id, agent_id, tools)}
        return [_permission(row, decided.get(row["name"])) for row in rows]

    async def set_grants(self, microdao_id: str, agent_id: str, grant: list[str], revoke: list[str]) -> None:
        """Grant and revoke tools by name, alias, id or ``tag:`` (those that bear it now): all of them, or none.

        Raises NotFound, InvalidRequest.
        """
        check_text(agent_id, "agent_id")
        async with self._database.tenant(microdao_id) as connection:
            await _require_agent(connection, agent_id)
            found = [await self._known(connection, microdao_id, name, lookup.find_ids) for name in grant]
            granted = {tool_id for tool_ids in found for tool_id in tool_ids}
            revoked = {tool_id for name in revoke for tool_id in await lookup.find_ids(connection, name)}
            if granted & revoked:
                raise InvalidRequest("a tool cannot be granted and revoked at once", param="revoke")
            await store.add_grants(connection, microdao_id, agent_id, sorted(granted))
            await store.remove_grants(connection, agent_id, sorted(revoked))

    async def ask(self, principal: Principal, request: ToolCallRequest) -> Decision:
        """Whether such a call would pass and why; the arguments are not looked at. Raises NotFound (agent, tool)."""
        _check_call(principal, request)
        async with self._database.tenant(request.microdao_id) as connection:
            return await would_admit(connection, self._policy, principal, request)

    async def execute(self, principal: Principal, request: ToolCallRequest) -> ToolOutcome:
        """Run a tool now. A tool's own failure is an outcome; a refusal raises (see ``execution.begin``).

        Raises IdempotencyInProgress while another call with the same key runs the tool.
        """
        _check_call(principal, request)
        async with self._database.tenant(request.microdao_id) as connection:
            started, is_new = await begin(connection, self._policy, principal, request)
            is_ours = False
            if is_new:
                started, is_ours = await self._runner.take_up(connection, started)
            elif started.outcome.status == "running":
                started, is_ours = await self._runner.take_up(connection, await lock(connection, started.id))
        outcome = await self._runner.run(started) if is_ours else started.outcome
        await self._outbox.committed()
        if outcome.status == "running":
            headers = {"retry-after": "1"}
            raise IdempotencyInProgress(f"execution {outcome.execution_id} is still running", headers=headers)
        return outcome

    async def submit(self, principal: Principal, request: ToolCallRequest) -> ToolOutcome:
        """Check the call and write its row without running it; the caller sends the execution's id to the executor."""
        _check_call(principal, request)
        async with self._database.tenant(request.microdao_id) as connection:
            started, _ = await begin(connection, self._policy, principal, request)
        return started.outcome

    async def enqueue(self, principal: Principal, request: ToolCallRequest) -> ToolOutcome:
        """Check the call and hand it to the tool executor by the outbox."""
        _check_call(principal, request)
        async with self._database.tenant(request.microdao_id) as connection:
            started, is_new = await begin(connection, self._policy, principal, request)
            if is_new:
                await enqueue(connection, request.microdao_id, QUEUE, {"execution_id": started.id})
        await self._outbox.committed()
        return started.outcome

    async def run_queued(
        self, microdao_id: str, execution_id: str, task_token: str | None, job_id: str | None = None
    ) -> ToolOutcome:
        """Run a queued execution, or return its stored outcome; ``running`` while another delivery runs it.

        ``job_id``'s outbox row goes in the transaction that stores the outcome. Raises NotFound for an execution that
        the microDAO does not have.
        """
        async with self._database.tenant(microdao_id) as connection:
            held, is_ours = await self._runner.take_up(connection, await lock(connection, execution_id), task_token)
            if held.is_finished and job_id is not None:
                await claim(connection, job_id)
        outcome = await self._runner.run(held, job_id) if is_ours else held.outcome
        await self._outbox.committed()
        return outcome

    async def sweep(self) -> int:
        """Settle the executions whose runner died: queue again what may be, give up the others. How many are queued."""
        async with self._database.system() as connection:
            lost = await self._runner.give_up_lost(connection)
            for execution in lost:
                await store_executions.requeue_execution(connection, execution.id)
                await enqueue(connection, execution.microdao_id, QUEUE, {"execution_id": execution.id})
        await self._outbox.committed()
        return len(lost)

    async def close(self) -> None:
        """Wait for the runs under way and store how they end."""
        await self._runner.close()

    async def outcome(self, microdao_id: str, execution_id: str) -> ToolOutcome:
        """How an execution stands, without waiting for whoever runs it. Raises NotFound."""
        check_text(execution_id, "execution_id")
        async with self._database.tenant(microdao_id) as connection:
            return (await find(connection, execution_id)).outcome

    async def executions(
        self,
        microdao_id: str,
        *,
        agent_id: str | None = None,
        tool: str | None = None,
        status: str | None = None,
        before: str | None = None,
        limit: int = 50,
    ) -> list[dict[str, Any]]:
        """The audit log, newest first, before execution ``before``. Raises NotFound for an unknown tool."""
        for field, value in (("agent_id", agent_id), ("before", before)):
            check_text(value or "", field)
        if status is not None and status not in STATUSES:
            raise InvalidRequest(f"status must be one of {', '.join(STATUSES)}", param="status")
        async with self._database.tenant(microdao_id) as connection:
            tool_id = (await lookup.find_tool(connection, tool, agent_id)).id if tool else None
            rows = await store_executions.list_executions(
                connection, agent_id=agent_id, tool_id=tool_id, status=status, before=before, limit=limit
            )
        return [_audit_entry(row) for row in rows]

    async def seed(self, microdao_id: str, agent_id: str | None = None) -> None:
        """Fill catalogue and help pages where missing, and grant the first tools to an agent that has no grant.

        What spends (risk D) is left to an administrator. Harmless to repeat: what an admin changed meanwhile stays.
        Raises NotFound for an unknown agent.
        """
        tools, documents = seed.first_tools(microdao_id), seed.first_documents(microdao_id)
        async with self._database.tenant(microdao_id) as connection:
            if agent_id is not None:
                await _require_agent(connection, agent_id)
            async with connection.pipeline():
                await store.add_tools(connection, microdao_id, "", tools)
                await store.add_documents(connection, microdao_id, documents)
                if agent_id is not None:
                    granted = [tool["id"] for tool in tools if tool["risk"] != "D"]
                    await store.grant_if_none(connection, microdao_id, agent_id, granted)
            await adopt(connection, microdao_id, self._plugins)

    async def _known(
        self,
        connection: Connection,
        microdao_id: str,
        asked: str,
        find: Callable[[Connection, str], Awaitable[Found]],
    ) -> Found:
        """What is found, also in a package that was installed since the microDAO's catalogue was filled."""
        try:
            return await find(connection, asked)
        except NotFound:
            if asked not in await asyncio.to_thread(self._plugins.look):
                raise
        await adopt(connection, microdao_id, self._plugins)
        return await find(connection, asked)

    async def _decided(self, microdao_id: str, agent_id: str, granted: list[Tool]) -> list[tuple[Tool, Decision]]:
        """What policy says of the agent's running each tool that it was granted, in no confidential call."""
        asked = [
            (
                Resource("Tool", tool.name, microdao_id),
                policy_facts(
                    tool, ToolCallRequest(microdao_id, agent_id, tool.name, {}, requested_by=agent_id), is_granted=True
                ),
            )
            for tool in granted
        ]
        agent = agent_principal(agent_id, microdao_id)
        return list(zip(granted, await self._policy.decide_each(agent, "tool.invoke", asked), strict=True))


def _check_call(principal: Principal, request: ToolCallRequest) -> None:
    check_request(request)
    if principal.microdao_id != request.microdao_id and not principal.is_operator:
        raise NotFound(f"no microDAO {request.microdao_id!r}", param="microdao_id")


async def _require_agent(connection: Connection, agent_id: str) -> None:
    if not await store.agent_exists(connection, agent_id):
        raise NotFound(f"no agent {agent_id!r} in this microDAO", param="agent_id")


def _permission(row: Row, decision: Decision | None) -> Permission:
    if not row["granted"]:
        return Permission(row["name"], False, "not granted")
    if not row["active"]:
        return Permission(row["name"], False, "granted, but the tool is not active")
    if decision is not None and not decision.allow:
        return Permission(row["name"], False, f"granted, but {decision.reason}")
    return Permission(row["name"], True, "granted")


def _audit_entry(row: Row) -> dict[str, Any]:
    times = {field: row[field] and rfc3339(row[field]) for field in ("created_at", "started_at", "finished_at")}
    kept = ("agent_id", "requested_by", "status", "args_hash", "session_id", "flow_id", "step_id", "attempts")
    figures = ("error_code", "error_message", "ms", "cost_microusd")
    return {
        "execution_id": row["id"],
        "tool": row["name"],
        "version": row["tool_version"],
        **{field: row[field] for field in (*kept, *figures)},
        **times,
    }
