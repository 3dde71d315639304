"""The file of a tool pack: JSON, version 1, with a checksum. Pure functions."""

from collections.abc import Sequence
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shared.db.database import Row
from shared.errors import InvalidRequest
from shared.tools.arguments import storage_faults
from shared.tools.catalogue.definition import DEFINITION_FIELDS, Definition, canonical_hash
from shared.tools.model import Risk

FORMAT: Final = "daarion-tools"
VERSION: Final = 1
MAX_TOOLS: Final = 500


class PackTool(BaseModel):
    """A tool's active version. Nothing in it is a tenant's: no ids, no secrets, no grants."""

    model_config = ConfigDict(extra="forbid", strict=True)
    name: str
    tags: list[str] = Field(default_factory=list)
    aliases: list[str] = Field(default_factory=list)
    description: str
    parameters: dict[str, Any]
    executor: str
    config: dict[str, Any]
    risk: Risk
    timeout_ms: int
    idempotent: bool
    result_schema: dict[str, Any] | None = None
    cost_microusd: int = 0
    rate_limit_per_minute: int | None = None
    environments: list[str] = Field(default_factory=list)

    def definition(self) -> Definition:
        """As the catalogue takes it."""
        fields = {field: getattr(self, field) for field in DEFINITION_FIELDS}
        return Definition(**{**fields, "environments": tuple(self.environments)})


def write_pack(rows: Sequence[Row]) -> dict[str, Any]:
    """The document of these tools, which says what has to be there before they can run."""
    kept = ("name", "tags", "aliases", *DEFINITION_FIELDS)
    tools = [{field: row[field] for field in kept} for row in rows]
    body = {"format": FORMAT, "version": VERSION, "tools": tools, "requires": _required(tools)}
    return {**body, "checksum": canonical_hash(body)}


def read_pack(document: dict[str, Any]) -> tuple[list[PackTool], list[str]]:
    """The tools and what they require. Raises InvalidRequest for a file that is none, or was changed."""
    for fault in storage_faults(document):
        raise InvalidRequest(f"pack.{fault.path} {fault.message}", param="pack")
    if document.get("format") != FORMAT:
        raise InvalidRequest(f'this is no tool pack: "format" must be {FORMAT}', param="pack.format")
    if document.get("version") != VERSION or isinstance(document["version"], bool):
        raise InvalidRequest(f"the pack is of another version than {VERSION}", param="pack.version")
    body = {name: one for name, one in document.items() if name != "checksum"}
    if document.get("checksum") != canonical_hash(body):
        raise InvalidRequest("the pack was changed: its checksum does not fit", param="pack.checksum")
    listed = document.get("tools")
    if not isinstance(listed, list) or not 0 < len(listed) <= MAX_TOOLS:
        raise InvalidRequest(f"a pack has 1 to {MAX_TOOLS} tools", param="pack.tools")
    tools = [_tool(number, one) for number, one in enumerate(listed)]
    return tools, _required(listed)


def _tool(number: int, said: Any) -> PackTool:
    try:
        return PackTool.model_validate(said)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in ("pack", "tools", number, *first["loc"]))
        raise InvalidRequest(f"{where}: {first['msg']}", param=where) from None


def _required(tools: Sequence[dict[str, Any]]) -> list[str]:
    """``secret:name`` for each secret by reference, ``tool:name`` for what chains run and the pack does not hold."""
    own = {tool["name"] for tool in tools} | {alias for tool in tools for alias in tool.get("aliases", ())}
    found: set[str] = set()
    for tool in tools:
        config = tool["config"]
        if isinstance(config.get("secret_ref"), str):
            found.add(f"secret:{config['secret_ref']}")
        if tool["executor"] == "chain" and isinstance(config.get("steps"), list):
            found |= {f"tool:{step['tool']}" for step in config["steps"] if step["tool"] not in own}
        if tool["executor"] == "agent":
            found.add(f"agent:{str(config.get('agent_id')).removeprefix('agent:')}")
        if "plugin" in config:
            found.add(f"plugin:{config['plugin']}")
    return sorted(found)
