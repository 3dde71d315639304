"""Runs agents: finds who is asked, recalls, loops, remembers."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING

from shared.agents import seed, store
from shared.agents.loop import AgentLoop, LoopInput
from shared.agents.prompt import LINE_CHARACTERS, called_functions, last_user_text, text_of
from shared.agents.sessions import SESSION_PREFIX, Session, Sessions, end_user, lost
from shared.agents.turn import MemoryUse, TurnEvent, TurnResult
from shared.agents.turns import HEARTBEAT_S, Turns
from shared.db.database import Database, Row
from shared.errors import ApiError
from shared.llm.gateway import Gateway
from shared.memory.memory import Memory
from shared.memory.model import Filters, MemoryQuery, NewMemory, Recollection, ScopeRef
from shared.observability import Log, correlated
from shared.policy.decision import Resource
from shared.policy.policy import Policy
from shared.policy.principal import Principal
from shared.tools.model import Invocation, Tool
from shared.tools.toolbox import Toolbox
from shared.wire.chat import ChatMetadata, ChatRequest

if TYPE_CHECKING:
    from shared.tools.search.searcher import ToolSearch

_log = Log("agents")
_RECALLED = 5
_RECALL_FLOOR = 0.3
"""Memories that score less are noise: it keeps nine of ten right answers and refuses three of four wrong ones."""
_CHANNEL_TOKENS = 1000
_CHANNEL_MESSAGES = 50
_OVERRIDES = ("max_tokens", "max_completion_tokens", "temperature", "top_p", "response_format", "stop", "seed")


class AgentRuntime:
    """The one entry for conversations with agents."""

    def __init__(
        self,
        database: Database,
        gateway: Gateway,
        memory: Memory,
        toolbox: Toolbox,
        policy: Policy,
        *,
        tool_search: "Callable[[], ToolSearch] | None" = None,
        heartbeat_s: float = HEARTBEAT_S,
    ) -> None:
        self._database = database
        self._gateway = gateway
        self._memory = memory
        self._toolbox = toolbox
        self._policy = policy
        self._tool_search = tool_search
        self.sessions = Sessions(database)
        self._turns = Turns(self.sessions, heartbeat_s)

    async def open_session(self, principal: Principal, request: ChatRequest) -> Session | None:
        """The session that answers this request; None when ``model`` is no agent's (a logical model, or unknown).

        A logical model goes before a blueprint of the same name, so that a call to it asks for no agent. Raises
        InvalidRequest for an end user that cannot be one.
        """
        metadata = request.metadata or ChatMetadata()
        if not (metadata.session_id or metadata.agent_id) and self._gateway.knows(request.model):
            return None
        user_id = end_user(request)
        messages = [message.model_dump(exclude_none=True) for message in request.messages]
        session_id = request.model if request.model.startswith(SESSION_PREFIX) else metadata.session_id
        if session_id:
            await self._policy.authorize(principal, "agent.run", Resource("Session", session_id, principal.microdao_id))
            return await self.sessions.resume(principal.microdao_id, session_id, messages, user_id)
        agent = await self.sessions.resolve_agent(principal.microdao_id, request.model, metadata)
        if agent is None:
            return None
        await self._policy.authorize(principal, "agent.run", Resource("Agent", agent.agent_id, agent.microdao_id))
        return await self.sessions.open(agent, metadata.channel_id, messages, user_id)

    async def run(
        self, principal: Principal, session: Session, request: ChatRequest, *, invocation: Invocation | None = None
    ) -> AsyncGenerator[TurnEvent, None]:
        """Answer: text and tool runs as they come, the TurnResult last. Closing the iterator cancels the turn.

        ``invocation`` is that of the tool which asks, if one does: what runs below it is as confidential.

        Raises IllegalState when the session was given up or taken over meanwhile; the answer is then not kept.
        """
        result = TurnResult(session.id, session.agent.agent_id)
        state = "CANCELLED"
        with correlated(session.id):
            async with self._turns.alive(session):
                try:
                    loop = await self._prepare(principal, session, request, result, invocation)
                    async with aclosing(loop.run(result)) as events:
                        async for event in events:
                            yield event
                    state = "COMPLETED"
                except Exception:
                    state = "FAILED"
                    raise
                finally:
                    is_kept = await self._turns.finish(self._finish(session, result, state))
            if not is_kept:
                raise lost(session)
            yield result

    async def sweep(self) -> int:
        """Fail the sessions whose process died in a turn; how many."""
        failed = await self.sessions.sweep()
        if failed:
            _log.warning("sessions were left by their process", sessions=failed)
        return failed

    async def close(self) -> None:
        """Wait a little for the turns under way, so that what was said and spent is written."""
        await self._turns.close()

    async def seed(self, microdao_id: str) -> None:
        """Give a microDAO the blueprints and tools that every one starts with."""
        await seed.seed_blueprints(self._database, microdao_id)
        await self._toolbox.seed(microdao_id)

    async def blueprints(self, microdao_id: str) -> list[Row]:
        """Every blueprint of the microDAO with its active definition."""
        async with self._database.tenant(microdao_id) as connection:
            return await store.list_blueprints(connection)

    async def list_agents(self, microdao_id: str, after: str, limit: int) -> list[Row]:
        """Agents of the microDAO, by id."""
        async with self._database.tenant(microdao_id) as connection:
            return await store.list_agents(connection, after, limit)

    async def create_agent(self, microdao_id: str, agent_id: str, name: str, blueprint: str) -> Row:
        """Add an agent bound to a blueprint and grant it that blueprint's tools. Raises NotFound, Conflict."""
        created, definition = await seed.insert_agent(self._database, microdao_id, agent_id, name, blueprint)
        await self._toolbox.set_grants(microdao_id, agent_id, grant=definition.tool_rules.named, revoke=[])
        return created

    async def _prepare(
        self,
        principal: Principal,
        session: Session,
        request: ChatRequest,
        result: TurnResult,
        invocation: Invocation | None,
    ) -> AgentLoop:
        channel_id = (request.metadata and request.metadata.channel_id) or session.channel_id
        found, said, tools = await asyncio.gather(
            self._recall(session), self._said(session, channel_id), self._offered(session)
        )
        memories = [one for one in found if one.id not in said]
        result.memories = [MemoryUse(one.id, round(one.score, 4)) for one in memories]
        overrides = request.model_dump(include=set(_OVERRIDES), exclude_none=True)
        work = LoopInput(
            session=session,
            key_id=principal.key_id,
            memories=[one.text for one in memories],
            said=list(said.values()),
            tools=tools,
            client_tools=request.tools or [],
            overrides=overrides,
            depth=invocation.depth + 1 if invocation else 0,
            confidential=invocation is not None and invocation.confidential,
        )
        return AgentLoop(self._gateway, self._toolbox, self.sessions, work)

    async def _offered(self, session: Session) -> list[Tool]:
        agent, rules = session.agent, session.agent.definition.tool_rules
        granted = await self._toolbox.list_for_agent(agent.microdao_id, agent.agent_id)
        offered = [tool for tool in granted if rules.offers(tool.name)]
        if not offered or self._tool_search is None:
            return offered
        used = called_functions(session.history)
        return await self._tool_search().choose(
            agent.microdao_id,
            agent.agent_id,
            offered,
            text=last_user_text(session.history),
            required={*rules.required, *(tool.name for tool in offered if tool.function_name in used)},
            limit=rules.max_in_prompt if rules.strategy == "search" else len(offered),
        )

    async def _said(self, session: Session, channel_id: str | None) -> dict[str, str]:
        """The newest messages of a channel that the agent may read, by their items' ids, oldest first."""
        if not channel_id:
            return {}
        rows = await self._memory.channels.recent(
            session.agent.microdao_id,
            session.agent.agent_id,
            Filters(tiers=("short_term",), channel_id=channel_id),
            user_id=session.user_id,
            max_tokens=_CHANNEL_TOKENS,
            limit=_CHANNEL_MESSAGES,
            characters=LINE_CHARACTERS,
        )
        return {row["id"]: row["text"] for row in rows}

    async def _recall(self, session: Session) -> list[Recollection]:
        question = last_user_text(session.history).strip()
        if not question:
            return []
        found = await self._memory.query(
            MemoryQuery(
                microdao_id=session.agent.microdao_id,
                agent_id=session.agent.agent_id,
                query=question[:4000],
                user_id=session.user_id,
                k=_RECALLED,
                min_score=_RECALL_FLOOR,
                with_content=False,
            )
        )
        return [one for one in found if one.session_id != session.id]

    async def _finish(self, session: Session, result: TurnResult, state: str) -> bool:
        """Write down how the turn ended; False when it lost its session, which then is not touched."""
        reply = result.reply
        said = text_of(reply) if reply else None
        is_kept = await self.sessions.finish(
            session,
            state=state,
            iterations=result.iterations,
            cost_microusd=result.cost_microusd,
            reply=reply,
            result=said,
        )
        if is_kept and said and state == "COMPLETED":
            await self._remember(session, said)
        return is_kept

    async def _remember(self, session: Session, said: str) -> None:
        """Keep the exchange. What was recalled is not part of it, so memory never feeds on itself."""
        question = last_user_text(session.history)
        try:
            await self._memory.store(
                NewMemory(
                    microdao_id=session.agent.microdao_id,
                    agent_id=session.agent.agent_id,
                    tier="mid_term",
                    content={"user_message": question, "agent_reply": said},
                    scope=ScopeRef("user", session.user_id) if session.user_id else None,
                    channel_id=session.channel_id,
                    session_id=session.id,
                    source="session",
                )
            )
        except ApiError:
            _log.exception("the exchange was answered but not remembered", session_id=session.id)
