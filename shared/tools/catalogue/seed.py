"""The catalogue's first fill, from infra/config: tools, their aliases, and the help pages for ``search_docs``."""

from functools import cache
from typing import Any

import yaml

from shared.ids import derived_id
from shared.settings import CONFIG_DIR
from shared.tools.builtin.shipped import shipped_tools
from shared.tools.catalogue.definition import DEFINITION_FIELDS, Definition


@cache
def _documents() -> tuple[dict[str, str], ...]:
    return tuple(yaml.safe_load((CONFIG_DIR / "documents.yaml").read_text(encoding="utf-8")))


def first_tools(microdao_id: str) -> list[dict[str, Any]]:
    """Rows for a new microDAO's catalogue: the same ids every time, so that a second seed changes nothing."""
    return [_tool_row(microdao_id, entry) for entry in shipped_tools()]


def first_documents(microdao_id: str) -> list[dict[str, str]]:
    """Rows for a new microDAO's help pages."""
    return [{"id": derived_id("doc", microdao_id, page["source"]), **page} for page in _documents()]


def _tool_row(microdao_id: str, entry: dict[str, Any]) -> dict[str, Any]:
    fields = {field: entry[field] for field in DEFINITION_FIELDS if field in entry}
    own = {"executor": "builtin", "config": {"function": entry.get("function")}}
    definition = Definition(**{**own, **fields})
    tool_id = derived_id("tool", microdao_id, entry["name"])
    return definition.row(tool_id, entry["name"], aliases=entry.get("aliases", []))
