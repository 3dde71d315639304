"""Whether a call may be made: the tool is there, the agent was granted it, policy allows it, its arguments fit."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from shared.db.database import Connection
from shared.errors import ApiError, ConfidentialDenied, LimitExceeded, NotFound, RateLimitExceeded, Unauthorized
from shared.policy.decision import Decision, Resource
from shared.policy.policy import Policy
from shared.policy.principal import Principal
from shared.tools.arguments import check_args
from shared.tools.catalogue import store
from shared.tools.catalogue.lookup import unknown_tool
from shared.tools.model import CONFIDENTIAL_RISKS, Tool, ToolCallRequest

MAX_DEPTH = 4
"""How many tools may call one another: a chain that calls an agent that calls a chain and so on."""


async def admit(connection: Connection, policy: Policy, principal: Principal, request: ToolCallRequest) -> Tool:
    """The tool to run.

    Raises NotFound (agent, tool), Unauthorized, ConfidentialDenied, InvalidArgs, LimitExceeded.
    """
    tool, facts = await _find(connection, request)
    resource = Resource("Tool", tool.name, request.microdao_id)
    try:
        await policy.authorize(principal, "tool.invoke", resource, facts)
    except Unauthorized as refusal:
        raise Unauthorized(_with_grant(refusal.message, facts)) from None
    try:
        _check(tool, request)
    except (ConfidentialDenied, LimitExceeded) as refusal:
        await policy.refuse(principal, "tool.invoke", resource, facts, refusal)
    check_args(tool, request.args)
    return tool


async def count_run(policy: Policy, principal: Principal, tool: Tool, request: ToolCallRequest) -> None:
    """Count a new run of a tool that may run so often a minute. Raises RateLimitExceeded."""
    if tool.rate_limit_per_minute is None:
        return
    try:
        await policy.rates.take(request.microdao_id, tool.name, tool.rate_limit_per_minute)
    except RateLimitExceeded as refusal:
        resource = Resource("Tool", tool.name, request.microdao_id)
        await policy.refuse(principal, "tool.invoke", resource, {"agent_id": request.agent_id}, refusal)


async def would_admit(
    connection: Connection, policy: Policy, principal: Principal, request: ToolCallRequest
) -> Decision:
    """Whether ``admit`` would let the call pass if its arguments fit, and why. Raises NotFound (agent, tool)."""
    tool, facts = await _find(connection, request)
    decision = await policy.decide(principal, "tool.invoke", Resource("Tool", tool.name, request.microdao_id), facts)
    if not decision.allow:
        return replace(decision, reason=_with_grant(decision.reason, facts))
    try:
        _check(tool, request)
    except ApiError as error:
        return Decision(False, error.message)
    return decision


def _with_grant(reason: str, facts: Mapping[str, Any]) -> str:
    """Why a call was refused, and the grant that it lacks: the rule's name does not say whose and which."""
    if facts["granted"]:
        return reason
    agent = facts["agent_id"]
    call = f"PUT /internal/tools/agents/{agent}/permissions"
    return f"{reason}: {agent} was not granted {facts['tool']}; an admin grants it with {call}"


async def _find(connection: Connection, request: ToolCallRequest) -> tuple[Tool, dict[str, Any]]:
    """The tool and what policies may look at. Raises NotFound (agent, tool)."""
    row = await store.find_for_call(connection, request.agent_id, request.tool)
    if row is None:
        raise NotFound(f"no agent {request.agent_id!r} in this microDAO", param="agent_id")
    if row["id"] is None:
        raise await unknown_tool(connection, request.tool, request.agent_id)
    tool = store.tool_from(row)
    return tool, policy_facts(tool, request, is_granted=row["granted"])


def policy_facts(tool: Tool, request: ToolCallRequest, *, is_granted: bool) -> dict[str, Any]:
    """What policies may look at in a call."""
    return {
        "granted": is_granted,
        "risk": tool.risk,
        "executor": tool.executor,
        "confidential": request.confidential,
        "environments": list(tool.environments),
        "agent_id": request.agent_id,
        "tool": tool.name,
    }


def _check(tool: Tool, request: ToolCallRequest) -> None:
    if not tool.active:
        raise NotFound(f"the tool {tool.name!r} is not active", param="tool")
    if request.confidential and tool.risk not in CONFIDENTIAL_RISKS:
        raise ConfidentialDenied(f"{tool.name} is of risk {tool.risk}; a confidential flow may use A and B only")
    if request.depth > MAX_DEPTH:
        raise LimitExceeded(f"tools may call one another {MAX_DEPTH} deep at most", param="tool")
