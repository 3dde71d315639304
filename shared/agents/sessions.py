"""Sessions: who answers a request, on what history, one request at a time."""

from dataclasses import dataclass, field
from typing import Any

from shared.agents import store
from shared.agents.blueprint import BlueprintDefinition
from shared.agents.prompt import unseen_messages
from shared.db.database import Database, Row
from shared.errors import ContextLengthExceeded, IllegalState, InvalidRequest, ModelNotFound, NotFound
from shared.ids import new_id
from shared.memory.content import check_user
from shared.wire.chat import ChatMetadata, ChatRequest

SESSION_PREFIX = "sess_"
MAX_HISTORY = 2047
"""A chat request takes 2048 messages; the first is the agent's own."""
_STALE_AFTER_S = 60.0
"""A turn that has not been heard of for this long died with its process; the session may go on."""
_FAILED_AFTER_S = 120.0
"""A session whose turn has not been heard of for this long, and that nobody went on with, has failed."""


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
    """A session that is answering: its agent and the history so far, new messages included.

    ``user_id`` is the end user that it is with, if one was named when it was opened. ``turn_id`` is this answer's; the
    session is written to only while it is there.
    """

    id: str
    agent: Agent
    channel_id: str | None
    user_id: str | None
    turn_id: str
    history: list[dict[str, Any]] = field(default_factory=list)


class Sessions:
    """Opens sessions, goes on with them, and closes their turns."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def resolve_agent(self, microdao_id: str, model: str, metadata: ChatMetadata) -> Agent | None:
        """The agent that ``model`` (a blueprint code or ``auto``) and the metadata name; None when it is no agent's."""
        if not metadata.agent_id:
            row = await store.find_agent_by_model(self._database, microdao_id, model)
            return _agent(microdao_id, row) if row else None
        row = await store.find_agent(self._database, microdao_id, metadata.agent_id)
        if row is None:
            raise NotFound(f"no agent {metadata.agent_id!r} in this microDAO", param="metadata.agent_id")
        return _agent(microdao_id, row) if model in ("auto", row["definition"]["code"]) else None

    async def open(
        self, agent: Agent, channel_id: str | None, messages: list[dict[str, Any]], user_id: str | None = None
    ) -> Session:
        """Start a session whose history is the messages sent. Raises ContextLengthExceeded."""
        check_history(messages)
        session = Session(new_id("sess"), agent, channel_id, user_id, new_id("turn"), messages)
        async with self._database.tenant(agent.microdao_id) as connection:
            await store.insert_session(
                connection,
                session_id=session.id,
                microdao_id=agent.microdao_id,
                agent_id=agent.agent_id,
                blueprint_id=agent.blueprint_id,
                blueprint_version=agent.version,
                channel_id=channel_id,
                user_id=user_id,
                turn_id=session.turn_id,
            )
            await store.append_messages(connection, agent.microdao_id, session.id, messages)
        return session

    async def resume(
        self, microdao_id: str, session_id: str, messages: list[dict[str, Any]], user_id: str | None = None
    ) -> Session:
        """Go on with a session; who names a user goes on with that one's only.

        Raises ModelNotFound (also for another user's), IllegalState while it answers another request, or
        ContextLengthExceeded.
        """
        turn_id = new_id("turn")
        async with self._database.tenant(microdao_id) as connection:
            row = await store.find_session(connection, session_id)
            if row is None or user_id not in (None, row["user_id"]):
                raise ModelNotFound(f"The session '{session_id}' does not exist.", param="model")
            if not await store.occupy_session(connection, session_id, turn_id, _STALE_AFTER_S):
                raise IllegalState(f"session {session_id} is answering another request; wait for it")
            stored = await store.list_messages(connection, session_id)
            added = unseen_messages(stored, messages)
            check_history([*stored, *added])
            await store.append_messages(connection, microdao_id, session_id, added)
        agent_row = {**row, "version": row["blueprint_version"]}
        agent = _agent(microdao_id, agent_row)
        return Session(session_id, agent, row["channel_id"], row["user_id"], turn_id, [*stored, *added])

    async def append(self, session: Session, messages: list[dict[str, Any]]) -> None:
        """Keep what the turn produced so far. Raises IllegalState when another request took the session over."""
        async with self._database.tenant(session.agent.microdao_id) as connection:
            if not await store.renew_session(connection, session.id, session.turn_id):
                raise lost(session)
            await store.append_messages(connection, session.agent.microdao_id, session.id, messages)

    async def keep_alive(self, session: Session) -> bool:
        """Say that the turn still runs; False when it lost the session."""
        async with self._database.tenant(session.agent.microdao_id) as connection:
            return await store.renew_session(connection, session.id, session.turn_id)

    async def sweep(self) -> int:
        """Fail the sessions whose process died in a turn; how many."""
        async with self._database.system() as connection:
            return await store.fail_silent_sessions(connection, _FAILED_AFTER_S)

    async def finish(
        self,
        session: Session,
        *,
        state: str,
        iterations: int,
        cost_microusd: int,
        reply: dict[str, Any] | None,
        result: str | None,
    ) -> bool:
        """End the turn in one transaction: the last message and the session's figures.

        False, and nothing is written, when the turn lost the session.
        """
        async with self._database.tenant(session.agent.microdao_id) as connection:
            if not await store.renew_session(connection, session.id, session.turn_id):
                return False
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
        return True

    async def state(self, microdao_id: str, session_id: str) -> tuple[Row, list[dict[str, Any]]]:
        """The session's row and messages. Raises NotFound."""
        async with self._database.tenant(microdao_id) as connection:
            row = await store.find_session(connection, session_id)
            if row is None:
                raise NotFound(f"no session {session_id!r}")
            return row, await store.list_messages(connection, session_id)

    async def delete(self, microdao_id: str, session_id: str) -> None:
        """Forget a session and all that was said in it; a turn under way loses it. Raises NotFound.

        What the agent remembers of it stays: that is memory's.
        """
        async with self._database.tenant(microdao_id) as connection:
            if not await store.delete_session(connection, session_id):
                raise NotFound(f"no session {session_id!r}")

    async def list(
        self, microdao_id: str, user_id: str | None, before: str | None, limit: int
    ) -> tuple[list[Row], int]:
        """Sessions, of one end user or all, newest first, and how many there are."""
        async with self._database.tenant(microdao_id) as connection:
            rows = await store.list_sessions(connection, user_id, before, limit)
            return rows, await store.count_sessions(connection, user_id)


def end_user(request: ChatRequest) -> str | None:
    """The end user that a request names: by ``metadata.user_id``, else by OpenAI's ``safety_identifier``, else by
    ``user``, its older name.

    Raises InvalidRequest for what is no id, and for a ``user_id`` where OpenAI has none: unheard, it would have the
    exchange kept for everybody.
    """
    given = request.model_extra or {}
    if "user_id" in given:
        raise InvalidRequest("name the end user by user, safety_identifier or metadata.user_id", param="user_id")
    own = (request.metadata and request.metadata.model_extra) or {}
    for name, user_id in (
        ("metadata.user_id", own.get("user_id")),
        *((name, given.get(name)) for name in ("safety_identifier", "user")),
    ):
        if user_id is not None:
            if not isinstance(user_id, str):
                raise InvalidRequest(f"{name} must be text", param=name)
            check_user(user_id, name)
            return user_id
    return None


def check_history(history: list[dict[str, Any]]) -> None:
    """Raises ContextLengthExceeded for more messages than a request to a model may have."""
    if len(history) > MAX_HISTORY:
        raise ContextLengthExceeded(
            f"the conversation has {len(history)} messages, and an agent takes at most {MAX_HISTORY}; "
            "start a new session",
            param="messages",
        )


def lost(session: Session) -> IllegalState:
    """The refusal of a turn whose session was taken over, swept or deleted."""
    return IllegalState(
        f"session {session.id} was deleted, or fell silent and was given up or taken over; send the message again"
    )


def _agent(microdao_id: str, row: Row) -> Agent:
    return Agent(
        microdao_id=microdao_id,
        agent_id=row["agent_id"],
        name=row["agent_name"],
        blueprint_id=row["blueprint_id"],
        version=row["version"],
        definition=BlueprintDefinition.model_validate(row["definition"]),
    )
