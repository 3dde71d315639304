"""The catalogue's first fill, from infra/config: tools, their aliases, and the help pages for ``search_docs``."""

import hashlib
import json
from functools import cache
from typing import Any

import yaml

from shared.ids import derived_id
from shared.settings import CONFIG_DIR


@cache
def _entries() -> tuple[dict[str, Any], ...]:
    return tuple(yaml.safe_load((CONFIG_DIR / "tools.yaml").read_text(encoding="utf-8")))


@cache
def _documents() -> tuple[dict[str, str], ...]:
    return tuple(yaml.safe_load((CONFIG_DIR / "documents.yaml").read_text(encoding="utf-8")))


@cache
def _aliases() -> dict[str, str]:
    return {alias: entry["name"] for entry in _entries() for alias in entry.get("aliases", ())}


def canonical_name(name: str) -> str:
    """The catalogue name behind an alias (``create_task`` → ``task.create``); any other name as it is."""
    return _aliases().get(name, name)


def first_tools(microdao_id: str) -> list[dict[str, Any]]:
    """Rows for a new microDAO's catalogue: the same ids every time, so that a second seed changes nothing."""
    return [_tool_row(microdao_id, entry) for entry in _entries()]


def first_documents(microdao_id: str) -> list[dict[str, str]]:
    """Rows for a new microDAO's help pages."""
    return [{"id": derived_id("doc", microdao_id, page["source"]), **page} for page in _documents()]


def definition_hash(name: str, description: str, parameters: dict[str, Any]) -> str:
    """The identity of a tool version: a change to what a model is told about the tool is a new version."""
    text = json.dumps([name, description, parameters], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _tool_row(microdao_id: str, entry: dict[str, Any]) -> dict[str, Any]:
    kept = ("name", "description", "parameters", "risk", "timeout_ms", "idempotent")
    return {
        "id": derived_id("tool", microdao_id, entry["name"]),
        **{field: entry[field] for field in kept},
        "definition_hash": definition_hash(entry["name"], entry["description"], entry["parameters"]),
        "executor": "builtin",
        "config": {"function": entry["function"]},
    }
