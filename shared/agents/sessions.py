"""Sessions: who answers a request, on what history, one request at a time."""

from dataclasses import dataclass, field
from typing import Any

from shared.agents import store
from shared.agents.blueprint import BlueprintDefinition
from shared.agents.prompt import unseen_messages
from shared.db.database import Connection, Database, Row
from shared.errors import IllegalState, ModelNotFound, NotFound
from shared.ids import new_id
from shared.wire.chat import ChatMetadata

SESSION_PREFIX = "sess_"
_STALE_AFTER_S = 180.0
"""A turn that has not been heard of for this long died with its process; the session may go on."""


@dataclass(frozen=True, slots=True)
class Agent:
    """An agent and the blueprint version that it acts by."""

    microdao_id: str
    agent_id: str
    name: str
    blueprint_id: str
    version: int
    definition: BlueprintDefinition


@dataclass(frozen=True, slots=True)
class Session:
    """A session that is answering: its agent and the history so far, new messages included."""

    id: str
    agent: Agent
    channel_id: str | None
    history: list[dict[str, Any]] = field(default_factory=list)


class Sessions:
    """Opens sessions, goes on with them, and closes their turns."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def resolve_agent(self, microdao_id: str, model: str, metadata: ChatMetadata) -> Agent | None:
        """The agent that ``model`` (a blueprint code or ``auto``) and the metadata name; None when it is no agent's."""
        async with self._database.tenant(microdao_id) as connection:
            if metadata.agent_id:
                row = await store.find_agent(connection, metadata.agent_id)
                if row is None:
                    raise NotFound(f"no agent {metadata.agent_id!r} in this microDAO", param="metadata.agent_id")
                return _agent(microdao_id, row) if model in ("auto", row["definition"]["code"]) else None
            row = await _by_model(connection, model)
        return _agent(microdao_id, row) if row else None

    async def open(self, agent: Agent, channel_id: str | None, messages: list[dict[str, Any]]) -> Session:
        """Start a session whose history is the messages sent."""
        session = Session(new_id("sess"), agent, channel_id, messages)
        async with self._database.tenant(agent.microdao_id) as connection:
            await store.insert_session(
                connection,
                session_id=session.id,
                microdao_id=agent.microdao_id,
                agent_id=agent.agent_id,
                blueprint_id=agent.blueprint_id,
                blueprint_version=agent.version,
                channel_id=channel_id,
            )
            await store.append_messages(connection, agent.microdao_id, session.id, messages)
        return session

    async def resume(self, microdao_id: str, session_id: str, messages: list[dict[str, Any]]) -> Session:
        """Go on with a session. Raises ModelNotFound, or IllegalState while it answers another request."""
        async with self._database.tenant(microdao_id) as connection:
            row = await store.find_session(connection, session_id)
            if row is None:
                raise ModelNotFound(f"The session '{session_id}' does not exist.", param="model")
            if not await store.occupy_session(connection, session_id, _STALE_AFTER_S):
                raise IllegalState(f"session {session_id} is answering another request; wait for it")
            stored = await store.list_messages(connection, session_id)
            added = unseen_messages(stored, messages)
            await store.append_messages(connection, microdao_id, session_id, added)
        agent_row = {**row, "version": row["blueprint_version"]}
        return Session(session_id, _agent(microdao_id, agent_row), row["channel_id"], [*stored, *added])

    async def append(self, session: Session, messages: list[dict[str, Any]]) -> None:
        """Keep what the turn produced so far."""
        async with self._database.tenant(session.agent.microdao_id) as connection:
            await store.append_messages(connection, session.agent.microdao_id, session.id, messages)

    async def finish(
        self,
        session: Session,
        *,
        state: str,
        iterations: int,
        cost_microusd: int,
        reply: dict[str, Any] | None,
        result: str | None,
    ) -> None:
        """End the turn in one transaction: the last message and the session's figures."""
        async with self._database.tenant(session.agent.microdao_id) as connection:
            if reply:
                await store.append_messages(connection, session.agent.microdao_id, session.id, [reply])
            await store.release_session(
                connection,
                session.id,
                state=state,
                iterations=iterations,
                cost_microusd=cost_microusd,
                result=result,
            )

    async def state(self, microdao_id: str, session_id: str) -> tuple[Row, list[dict[str, Any]]]:
        """The session's row and messages. Raises NotFound."""
        async with self._database.tenant(microdao_id) as connection:
            row = await store.find_session(connection, session_id)
            if row is None:
                raise NotFound(f"no session {session_id!r}")
            return row, await store.list_messages(connection, session_id)

    async def list(self, microdao_id: str, before: str | None, limit: int) -> tuple[list[Row], int]:
        """Sessions, newest first, and how many there are."""
        async with self._database.tenant(microdao_id) as connection:
            return await store.list_sessions(connection, before, limit), await store.count_sessions(connection)


async def _by_model(connection: Connection, model: str) -> Row | None:
    if model == "auto":
        return await store.find_first_agent(connection)
    return await store.find_agent_by_blueprint(connection, model)


def _agent(microdao_id: str, row: Row) -> Agent:
    return Agent(
        microdao_id=microdao_id,
        agent_id=row["agent_id"],
        name=row["agent_name"],
        blueprint_id=row["blueprint_id"],
        version=row["version"],
        definition=BlueprintDefinition.model_validate(row["definition"]),
    )
