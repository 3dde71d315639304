"""What one version of a tool says, and whether it may say that. Pure functions."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Final, get_args

from shared.errors import InvalidRequest
from shared.settings import PROFILES
from shared.tools.arguments import check_text, storage_faults
from shared.tools.catalogue.configs import ConfigChecks, literal_secret
from shared.tools.catalogue.schemas import check_schema
from shared.tools.model import Risk, Tool

EXECUTORS: Final = ("builtin", "http", "python", "mcp", "agent", "chain")
NAME: Final = re.compile(r"[a-zA-Z][a-zA-Z0-9_.-]{0,99}")
TAG: Final = re.compile(r"[a-z0-9][a-z0-9_.-]{0,49}")
MAX_DESCRIPTION: Final = 4_000
MAX_TAGS: Final = 20
MAX_TIMEOUT_MS: Final = 900_000
MAX_COST_MICROUSD: Final = 1_000_000_000
MAX_RATE: Final = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """A version's content: all that a caller is told, and how its work is done. See ``model.Tool`` for the units."""

    description: str
    parameters: dict[str, Any]
    executor: str
    config: dict[str, Any]
    risk: Risk = "C"
    timeout_ms: int = 30_000
    idempotent: bool = False
    result_schema: dict[str, Any] | None = None
    cost_microusd: int = 0
    rate_limit_per_minute: int | None = None
    environments: tuple[str, ...] = ()

    @classmethod
    def of(cls, tool: Tool) -> "Definition":
        """What a tool's version says."""
        return cls(**{field: getattr(tool, field) for field in DEFINITION_FIELDS})

    def row(self, tool_id: str, name: str, **more: Any) -> dict[str, Any]:
        """As a row for ``store.add_tools``."""
        hashed = definition_hash(name, self.description, self.parameters)
        return {**asdict(self), "id": tool_id, "name": name, "definition_hash": hashed, **more}


DEFINITION_FIELDS: Final = tuple(field.name for field in fields(Definition))


def definition_hash(name: str, description: str, parameters: dict[str, Any]) -> str:
    """The identity of what a model is told about a tool."""
    return canonical_hash([name, description, parameters])


def canonical_hash(value: Any) -> str:
    """SHA-256 of JSON, whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def check_definition(definition: Definition, checks: ConfigChecks | None) -> None:
    """Raises InvalidRequest (``param`` names the field) for a definition that cannot be stored or run.

    Without ``checks`` its config is one that was checked before, or the platform's own.
    """
    _check_ranges(definition)
    for field in ("parameters", "config", "result_schema"):
        for fault in storage_faults(getattr(definition, field)):
            raise InvalidRequest(f"{field}: {fault.path} {fault.message}", param=field)
    check_schema(definition.parameters, "parameters")
    if definition.result_schema is not None:
        check_schema(definition.result_schema, "result_schema", is_object=False)
    if checks is not None:
        if hint := literal_secret(definition.config):
            raise InvalidRequest(f"config.{hint}", param="config")
        checks.check(definition.executor, definition.config, definition.parameters)


def check_name(name: str, param: str = "name") -> None:
    """Raises InvalidRequest for what is no tool's name."""
    if not NAME.fullmatch(name):
        raise InvalidRequest(
            f"{param} must begin with a letter and have 1 to 100 letters, digits, dots, dashes or underscores",
            param=param,
        )


def check_labels(tags: Sequence[str], aliases: Sequence[str]) -> None:
    """Raises InvalidRequest for tags and aliases that cannot be."""
    if len(tags) > MAX_TAGS or len(aliases) > MAX_TAGS:
        raise InvalidRequest(f"a tool may have {MAX_TAGS} tags and as many aliases", param="tags")
    for tag in tags:
        if not TAG.fullmatch(tag):
            raise InvalidRequest(
                f"the tag {tag[:60]!r} must have 1 to 50 lower-case letters, digits, dots or dashes", param="tags"
            )
    for alias in aliases:
        check_name(alias, "aliases")


def changed(definition: Definition, changes: Mapping[str, Any]) -> Definition:
    """The definition with some fields replaced. Raises InvalidRequest for a change of executor without its config."""
    if changes.get("executor", definition.executor) != definition.executor and "config" not in changes:
        raise InvalidRequest("another executor needs its own config", param="config")
    return Definition(**{**{field: getattr(definition, field) for field in DEFINITION_FIELDS}, **changes})


def _check_ranges(definition: Definition) -> None:
    check_text(definition.description, "description")
    if not definition.description.strip() or len(definition.description) > MAX_DESCRIPTION:
        raise InvalidRequest(f"description must have 1 to {MAX_DESCRIPTION:,} characters", param="description")
    _check_choice("risk", definition.risk, get_args(Risk))
    _check_choice("executor", definition.executor, EXECUTORS)
    for environment in definition.environments:
        _check_choice("environments", environment, PROFILES)
    _check_range("timeout_ms", definition.timeout_ms, 1, MAX_TIMEOUT_MS)
    _check_range("cost_microusd", definition.cost_microusd, 0, MAX_COST_MICROUSD)
    if definition.rate_limit_per_minute is not None:
        _check_range("rate_limit_per_minute", definition.rate_limit_per_minute, 1, MAX_RATE)


def _check_choice(field: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise InvalidRequest(f"{field} must be one of {', '.join(choices)}; not {value[:50]!r}", param=field)


def _check_range(field: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise InvalidRequest(f"{field} must be from {least:,} to {most:,}", param=field)
