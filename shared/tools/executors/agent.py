"""The ``agent`` executor: an agent of the same microDAO is asked, and its answer is the tool's result.

``config``: ``{"agent_id"}``. The argument ``input`` is what it is told; other arguments follow as JSON.
"""

import json
from collections.abc import Mapping
from typing import Any, Protocol

from shared.errors import InvalidRequest
from shared.tools.model import Invocation, Tool


class AgentPort(Protocol):
    """Whoever runs agents. It stands above the tools, so it is handed in."""

    async def ask(self, agent_id: str, text: str, invocation: Invocation) -> dict[str, Any]:
        """The agent's answer: ``text``, ``session_id``, ``cost_microusd``. Raises ApiError."""


class AgentExecutor:
    """Asks agents."""

    def __init__(self, agents: AgentPort) -> None:
        self._agents = agents

    async def __call__(self, tool: Tool, args: dict[str, Any], invocation: Invocation) -> object:
        """``{"text", "session_id", "cost_microusd"}``."""
        return await self._agents.ask(tool.config["agent_id"], _message(args), invocation)


def check_agent_config(config: Mapping[str, Any], parameters: Mapping[str, Any]) -> None:
    """Raises InvalidRequest naming the field."""
    if not isinstance(config.get("agent_id"), str) or not config["agent_id"]:
        raise InvalidRequest("name the agent to ask", param="config.agent_id")
    if surplus := sorted(config.keys() - {"agent_id"}):
        raise InvalidRequest(f"an agent tool has no field {surplus[0]!r}", param=f"config.{surplus[0]}")
    if "input" not in parameters.get("properties", {}):
        raise InvalidRequest("an agent tool takes a parameter input: what the agent is told", param="parameters")


def _message(args: Mapping[str, Any]) -> str:
    others = {name: value for name, value in args.items() if name != "input"}
    told = args.get("input", "")
    told = told if isinstance(told, str) else json.dumps(told, ensure_ascii=False)
    return f"{told}\n\n{json.dumps(others, ensure_ascii=False)}" if others else told
