"""An agent as another's tool: the port that the tools package reaches up through."""

from typing import TYPE_CHECKING, Any

from shared.agents.prompt import text_of
from shared.agents.turn import TurnResult
from shared.errors import NotFound
from shared.policy.principal import agent_principal
from shared.tools.model import Invocation
from shared.wire.chat import ChatMetadata, ChatRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from shared.agents.runtime import AgentRuntime


class AgentAsTool:
    """Asks agents in a session of their own, on behalf of the agent that runs the tool."""

    def __init__(self, runtime: "Callable[[], AgentRuntime]") -> None:
        self._runtime = runtime

    async def ask(self, agent_id: str, text: str, invocation: Invocation) -> dict[str, Any]:
        """The agent's answer. Raises NotFound, Unauthorized, and what a turn raises."""
        runtime = self._runtime()
        asker = agent_principal(invocation.agent_id, invocation.microdao_id)
        request = ChatRequest.model_validate(
            {
                "model": "auto",
                "messages": [{"role": "user", "content": text}],
                "metadata": ChatMetadata(agent_id=agent_id),
                "user": invocation.user_id,
            }
        )
        session = await runtime.open_session(asker, request)
        if session is None:
            raise NotFound(f"there is no agent {agent_id!r} in this microDAO", param="agent_id")
        result: TurnResult | None = None
        async for event in runtime.run(asker, session, request, invocation=invocation):
            result = event if isinstance(event, TurnResult) else result
        reply = result.reply if result else None
        return {
            "text": (text_of(reply) if reply else None) or "",
            "session_id": session.id,
            "cost_microusd": result.cost_microusd if result else 0,
        }
