"""Checks a parsed ``models.yaml`` and makes the table of it. Pure; every fault says at which entry it is."""

from collections.abc import Callable, Mapping
from typing import Any

from shared.errors import SettingError
from shared.llm.routing.breaker import CircuitRule
from shared.llm.routing.models import ANY_MODEL, KINDS, PROVIDERS, LogicalModel, ModelTable, ProviderLimits, Route

Check = tuple[Callable[[Any], bool], str]


class EntryFault(SettingError):
    """``where`` is the entry's dotted name, ``line`` its line where that is known."""

    def __init__(self, where: str, problem: str, line: int = 1) -> None:
        super().__init__(f"{where} {problem}")
        self.where = where
        self.line = line


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf")


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


_TEXT: Check = (lambda value: isinstance(value, str) and bool(value), "must be a name")
_FLAG: Check = (lambda value: isinstance(value, bool), "must be true or false")
_NUMBER: Check = (_is_number, "must be a number above 0")
_SHARE: Check = (lambda value: _is_number(value) and value <= 1, "must be a number above 0 and at most 1")
_WHOLE: Check = (_is_count, "must be a whole number")
_COUNT: Check = (lambda value: _is_count(value) and value >= 1, "must be a whole number, 1 or above")
_SIZE: Check = (lambda value: _is_count(value) and value >= 0, "must be a whole number, 0 or above")
_ATTEMPTS: Check = (lambda value: _is_count(value) and 1 <= value <= 10, "must be a whole number from 1 to 10")
_PROVIDER: Check = (lambda value: value in PROVIDERS, f"must be one of {', '.join(PROVIDERS)}")
_KIND: Check = (lambda value: value in KINDS, f"must be one of {', '.join(KINDS)}")
_NAMES: Check = (
    lambda value: isinstance(value, list) and all(isinstance(name, str) for name in value),
    "must be a list of logical models",
)
_ROUTES: Check = (lambda value: isinstance(value, list) and bool(value), "must be a list with at least one route")

_DOCUMENT = {"default": _TEXT, "models": None, "providers": None, "circuit": None}
_MODEL = {"routes": _ROUTES, "kind": _KIND, "fallbacks": _NAMES}
_ROUTE = {
    "provider": _PROVIDER,
    "model": _TEXT,
    "priority": _WHOLE,
    "weight": _NUMBER,
    "last_resort": _FLAG,
    "attempts": _ATTEMPTS,
    "timeout_s": _NUMBER,
    "first_token_timeout_s": _NUMBER,
    "max_tokens": _COUNT,
}
_LIMITS = {"max_concurrency": _COUNT, "max_queue": _SIZE, "queue_timeout_s": _NUMBER}
_CIRCUIT = {"window_s": _NUMBER, "min_calls": _COUNT, "failure_rate": _SHARE, "cooldown_s": _NUMBER}


def parse_model_table(document: Any) -> ModelTable:
    """The table in a parsed document. Raises EntryFault (a SettingError) for the first entry at fault."""
    entries = document.get("models") if isinstance(document, dict) else None
    if not isinstance(entries, dict) or not entries:
        raise EntryFault("models", "must map each logical model to its routes")
    _check("", document, _DOCUMENT)
    models = {str(name): _logical_model(str(name), entry) for name, entry in entries.items()}
    for model in models.values():
        _check_fallbacks(model, models)
    default = document.get("default")
    if default not in models or models[default].kind != "chat":
        raise EntryFault("default", f"must name one of the chat models; it is {default!r}")
    circuit = document.get("circuit") or {}
    _check("circuit", circuit, _CIRCUIT)
    return ModelTable(
        models=models,
        default=default,
        providers=_provider_limits(document.get("providers") or {}),
        circuit=CircuitRule(**circuit),
    )


def _logical_model(name: str, entry: Any) -> LogicalModel:
    where = f"models.{name}"
    _check(where, entry, _MODEL, needed=("routes",))
    return LogicalModel(
        id=name,
        routes=tuple(_route(f"{where}.routes.{index}", route) for index, route in enumerate(entry["routes"])),
        kind=entry.get("kind", "chat"),
        fallbacks=tuple(entry.get("fallbacks", ())),
    )


def _route(where: str, entry: Any) -> Route:
    _check(where, entry, _ROUTE, needed=("provider", "model"))
    if entry["model"] == ANY_MODEL and entry["provider"] != "local":
        raise EntryFault(f"{where}.model", 'may be "*" for provider local only')
    return Route(**entry)


def _check_fallbacks(model: LogicalModel, models: dict[str, LogicalModel]) -> None:
    for index, name in enumerate(model.fallbacks):
        where = f"models.{model.id}.fallbacks.{index}"
        if name not in models or name == model.id:
            raise EntryFault(where, f"must name another logical model; it is {name!r}")
        if models[name].kind != model.kind:
            raise EntryFault(where, f"must name a model of the same kind ({model.kind}); {name!r} is not")


def _provider_limits(entries: Any) -> dict[str, ProviderLimits]:
    _check("providers", entries, dict.fromkeys(PROVIDERS))
    for name, entry in entries.items():
        _check(f"providers.{name}", entry, _LIMITS, needed=("max_concurrency",))
    return {name: ProviderLimits(**entry) for name, entry in entries.items()}


def _check(where: str, entry: Any, known: Mapping[str, Check | None], needed: tuple[str, ...] = ()) -> None:
    """Whether it is a mapping of known fields, each in order. A field whose check is None is looked at elsewhere."""
    if not isinstance(entry, dict):
        raise EntryFault(where, f"must be a mapping with {', '.join(needed or known)}")
    for name in needed:
        if name not in entry:
            raise EntryFault(where, f"has no {name}")
    for name, value in entry.items():
        inside = f"{where}.{name}" if where else str(name)
        if name not in known:
            raise EntryFault(inside, f"is unknown here; known are {', '.join(known)}")
        check = known[name]
        if check is not None and not check[0](value):
            raise EntryFault(inside, f"{check[1]}; it is {value!r}")
