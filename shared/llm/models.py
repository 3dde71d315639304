"""Logical models and their routes, read from ``infra/config/models.yaml``."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from shared.errors import SettingError

PROVIDERS = ("openai", "anthropic", "deepseek", "local", "offline")
ANY_MODEL = "*"
_ROUTE_FIELDS = {"provider", "model", "priority", "weight", "last_resort"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A physical provider and model that a logical model may use. Lower ``priority`` first; ``weight`` shares load."""

    provider: str
    model: str
    priority: int = 1
    weight: float = 1.0
    last_resort: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LogicalModel:
    """A name that callers use, with its routes."""

    id: str
    routes: tuple[Route, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelTable:
    """Every logical model by id. ``default`` names the one to use when nobody chose."""

    models: Mapping[str, LogicalModel]
    default: str


def load_model_table(path: Path) -> ModelTable:
    """Read and check the file. Raises SettingError that names the file and the entry at fault."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise SettingError(f"DAARION_MODELS: cannot read {path}: {error}") from None
    try:
        return parse_model_table(document)
    except SettingError as error:
        raise SettingError(f"{path}: {error}") from None


def parse_model_table(document: Any) -> ModelTable:
    """The table in a parsed document. Raises SettingError that names the entry at fault."""
    entries = document.get("models") if isinstance(document, dict) else None
    if not isinstance(entries, dict) or not entries:
        raise SettingError("models must map each logical model to its routes")
    models = {str(name): _logical_model(str(name), entry) for name, entry in entries.items()}
    default = document.get("default")
    if default not in models:
        raise SettingError(f"default must name one of the models; it is {default!r}")
    return ModelTable(models=models, default=default)


def _logical_model(name: str, entry: Any) -> LogicalModel:
    routes = entry.get("routes") if isinstance(entry, dict) else None
    if not isinstance(routes, list) or not routes:
        raise SettingError(f"models.{name}.routes must be a list with at least one route")
    return LogicalModel(
        id=name, routes=tuple(_route(f"models.{name}.routes.{index}", route) for index, route in enumerate(routes))
    )


def _route(where: str, entry: Any) -> Route:
    if not isinstance(entry, dict):
        raise SettingError(f"{where} must be a mapping with provider and model")
    if unknown := sorted(set(entry) - _ROUTE_FIELDS):
        raise SettingError(f"{where} has unknown fields: {', '.join(map(str, unknown))}")
    if entry.get("provider") not in PROVIDERS:
        raise SettingError(f"{where}.provider must be one of {', '.join(PROVIDERS)}; it is {entry.get('provider')!r}")
    if not isinstance(entry.get("model"), str) or not entry["model"]:
        raise SettingError(f"{where}.model must be the provider's model name; it is {entry.get('model')!r}")
    _check_numbers(where, entry)
    return Route(**entry)


def _check_numbers(where: str, entry: dict[str, Any]) -> None:
    priority, weight = entry.get("priority", 1), entry.get("weight", 1.0)
    if not isinstance(priority, int) or isinstance(priority, bool):
        raise SettingError(f"{where}.priority must be a whole number; it is {priority!r}")
    if not isinstance(weight, int | float) or isinstance(weight, bool) or not 0 < weight < float("inf"):
        raise SettingError(f"{where}.weight must be a number above 0; it is {weight!r}")
    if not isinstance(entry.get("last_resort", False), bool):
        raise SettingError(f"{where}.last_resort must be true or false; it is {entry['last_resort']!r}")
    if entry["model"] == ANY_MODEL and entry["provider"] != "local":
        raise SettingError(f'{where}.model may be "*" for provider local only')
