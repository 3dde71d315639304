"""Whether a call may be made: the tool is there, the agent was granted it, policy allows it, its arguments fit."""

from shared.db.database import Connection
from shared.errors import ConfidentialDenied, LimitExceeded, NotFound
from shared.policy.decision import Resource, authorize
from shared.policy.principal import Principal
from shared.tools.arguments import check_args
from shared.tools.catalogue import store
from shared.tools.catalogue.lookup import unknown_tool
from shared.tools.model import CONFIDENTIAL_RISKS, Tool, ToolCallRequest

MAX_DEPTH = 4
"""How many tools may call one another: a chain that calls an agent that calls a chain and so on."""


async def admit(connection: Connection, principal: Principal, request: ToolCallRequest) -> Tool:
    """The tool to run.

    Raises NotFound (agent, tool), Unauthorized, ConfidentialDenied, InvalidArgs, LimitExceeded.
    """
    row = await store.find_for_call(connection, request.agent_id, request.tool)
    if row is None:
        raise NotFound(f"no agent {request.agent_id!r} in this microDAO", param="agent_id")
    if row["id"] is None:
        raise await unknown_tool(connection, request.tool, request.agent_id)
    tool = store.tool_from(row)
    authorize(principal, "tool.invoke", Resource("Tool", tool.name, request.microdao_id), {"granted": row["granted"]})
    _check(tool, request)
    check_args(tool, request.args)
    return tool


def _check(tool: Tool, request: ToolCallRequest) -> None:
    if not tool.active:
        raise NotFound(f"the tool {tool.name!r} is not active", param="tool")
    if request.confidential and tool.risk not in CONFIDENTIAL_RISKS:
        raise ConfidentialDenied(f"{tool.name} is of risk {tool.risk}; a confidential flow may use A and B only")
    if request.depth > MAX_DEPTH:
        raise LimitExceeded(f"tools may call one another {MAX_DEPTH} deep at most", param="tool")
