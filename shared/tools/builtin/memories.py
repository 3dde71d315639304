"""``memory.search`` and ``memory.store``: an agent's own memory, with its own rights."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from shared.clock import rfc3339
from shared.memory.model import Filters, MemoryQuery, NewMemory, Recollection, ScopeRef
from shared.tools.model import Invocation, Tool

if TYPE_CHECKING:
    from shared.memory.memory import Memory

_DEFAULT_K = 5
_TOLD_CHARACTERS = 2000


class Memories:
    """What the calling agent may read and write of memory, for the end user it acts for or for nobody in particular."""

    def __init__(self, memory: "Callable[[], Memory]") -> None:
        self._memory = memory

    async def search(self, tool: Tool, args: dict[str, Any], invocation: Invocation) -> object:
        """The memories that answer best, with scores from 0 (unrelated) to 1 (the same)."""
        filters = Filters(
            tiers=(args["tier"],) if "tier" in args else (),
            channel_id=args.get("channel", "").removeprefix("channel:") or None,
        )
        found = await self._memory().query(
            MemoryQuery(
                microdao_id=invocation.microdao_id,
                agent_id=invocation.agent_id,
                query=args["query"],
                user_id=invocation.user_id,
                k=int(args.get("k", _DEFAULT_K)),
                filters=filters,
                with_content=False,
            )
        )
        return {"memories": [_entry(one) for one in found]}

    async def store(self, tool: Tool, args: dict[str, Any], invocation: Invocation) -> object:
        """Keep a memory of the agent's own, or for the end user it acts for; the same words are the same memory."""
        stored = await self._memory().store(
            NewMemory(
                microdao_id=invocation.microdao_id,
                agent_id=invocation.agent_id,
                tier=args.get("tier", "long_term"),
                content={"text": args["text"].strip()},
                scope=ScopeRef("user", invocation.user_id) if invocation.user_id else None,
                importance=float(args.get("importance", 0.5)),
                source="tool",
            )
        )
        return {"id": stored.id}


def _entry(found: Recollection) -> dict[str, Any]:
    return {
        "id": found.id,
        "text": found.text[:_TOLD_CHARACTERS],
        "score": round(found.score, 4),
        "tier": found.tier,
        "of": found.scope.kind,
        "occurred_at": rfc3339(found.occurred_at),
    }
