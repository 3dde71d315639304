"""Which model an agent speaks with, for tools that write on its behalf."""

from shared.agents import store
from shared.agents.blueprint import BlueprintDefinition
from shared.db.database import Database
from shared.tools.builtin.channels import AgentModel


class AgentModels:
    """Reads it from the agent's active blueprint."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def __call__(self, microdao_id: str, agent_id: str) -> AgentModel | None:
        """None for an agent that is unknown or has no blueprint."""
        row = await store.find_agent(self._database, microdao_id, agent_id)
        if row is None:
            return None
        definition = BlueprintDefinition.model_validate(row["definition"])
        sanitize = definition.sanitize.policy() if definition.sanitize else None
        return AgentModel(definition.model, definition.code, sanitize)
