"""MicroDAOs: the tenants themselves."""

from shared.db.database import Database, Row
from shared.errors import Conflict, NotFound
from shared.policy import store
from shared.policy.principal import Principal


class Tenants:
    """Creates and lists microDAOs."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, microdao_id: str, name: str) -> Row:
        """Add a microDAO. Raises Conflict when it exists."""
        created = await self.ensure(microdao_id, name)
        if created is None:
            raise Conflict(f"microDAO {microdao_id!r} exists", param="microdao_id")
        return created

    async def ensure(self, microdao_id: str, name: str) -> Row | None:
        """Add a microDAO unless it exists; its row when it was added."""
        async with self._database.system() as connection:
            return await store.insert_microdao(connection, microdao_id, name)

    async def check_agent(self, microdao_id: str, agent_id: str) -> None:
        """Raises NotFound when the microDAO has no such agent."""
        if not await store.agent_exists(self._database, microdao_id, agent_id):
            raise NotFound(f"no agent {agent_id!r}", param="agent_id")

    async def list(self, principal: Principal, after: str, limit: int) -> list[Row]:
        """The microDAOs that the caller may see, by id."""
        database = self._database
        context = database.system() if principal.is_operator else database.tenant(principal.microdao_id)
        async with context as connection:
            return await store.list_microdaos(connection, after, limit)
