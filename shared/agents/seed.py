"""Blueprints that every microDAO starts with, and new agents bound to one."""

import yaml

from shared.agents import store
from shared.agents.blueprint import BlueprintDefinition
from shared.db.database import Database, Row
from shared.errors import Conflict, NotFound
from shared.ids import new_id
from shared.settings import CONFIG_DIR


def starter_blueprints() -> list[BlueprintDefinition]:
    """The definitions of infra/config/blueprints.yaml."""
    text = (CONFIG_DIR / "blueprints.yaml").read_text(encoding="utf-8")
    return [BlueprintDefinition.model_validate(entry) for entry in yaml.safe_load(text)]


async def seed_blueprints(database: Database, microdao_id: str) -> None:
    """Add the starters that the microDAO lacks; those it has, changed or not, stay as they are."""
    async with database.tenant(microdao_id) as connection:
        present = {row["code"] for row in await store.list_blueprints(connection)}
        for definition in starter_blueprints():
            if definition.code not in present:
                await store.insert_blueprint(
                    connection, microdao_id, new_id("bp"), definition.code, definition.model_dump()
                )


async def insert_agent(
    database: Database, microdao_id: str, agent_id: str, name: str, code: str
) -> tuple[Row, BlueprintDefinition]:
    """Add an agent bound to a blueprint; its row and the active definition. Raises NotFound, Conflict."""
    async with database.tenant(microdao_id) as connection:
        rows = {row["code"]: row for row in await store.list_blueprints(connection)}
        if code not in rows:
            known = ", ".join(sorted(rows)) or "none yet"
            raise NotFound(f"no blueprint {code!r} in this microDAO; it has: {known}", param="blueprint")
        created = await store.insert_agent(connection, microdao_id, agent_id, name, code)
        if created is None:
            raise Conflict(f"agent {agent_id!r} exists", param="agent_id")
    return created, BlueprintDefinition.model_validate(rows[code]["definition"])
