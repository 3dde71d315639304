"""The end users that agents remember something for: who they are, and forgetting one of them."""

from shared.cloud.outbox import Outbox
from shared.db.database import Database, Row
from shared.db.deadlocks import repeated_after_deadlocks
from shared.memory import store_users
from shared.memory.content import check_user
from shared.memory.intake import no_agent


class Users:
    """Administers what agents keep for their users. What a user said elsewhere (sessions, snapshots) is not of it."""

    def __init__(self, database: Database, outbox: Outbox) -> None:
        self._database = database
        self._outbox = outbox

    async def list_page(self, microdao_id: str, agent_id: str, after: str, limit: int) -> list[Row]:
        """An agent's users by id: ``user_id``, ``items``, ``last_stored_at``. Raises NotFound (agent)."""
        async with self._database.tenant(microdao_id) as connection:
            if not await store_users.agent_exists(connection, agent_id):
                raise no_agent(agent_id)
            return await store_users.list_users(connection, agent_id, after, limit)

    @repeated_after_deadlocks
    async def forget(self, microdao_id: str, agent_id: str, user_id: str) -> Row:
        """Delete all that an agent keeps for a user, and that it knows the user: how many ``items``, ``documents``.

        Nothing, if it knows no such user. Raises InvalidRequest or NotFound (agent).
        """
        check_user(user_id)
        async with self._database.tenant(microdao_id) as connection:
            if not await store_users.agent_exists(connection, agent_id):
                raise no_agent(agent_id)
            held = await store_users.lock_user(connection, agent_id, user_id)
            if held is None:
                return {"items": 0, "documents": 0}
            await store_users.delete_scope(connection, held.pop("scope_id"))
        await self._outbox.committed()
        return held
