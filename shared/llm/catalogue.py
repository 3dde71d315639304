"""Which logical models there are at this moment, and which routes a call to one of them takes."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from shared.errors import InvalidRequest, ModelNotFound
from shared.llm.attempts.tries import Plan, Upstreams
from shared.llm.caller import ClientHints
from shared.llm.routing.models import Kind, LogicalModel, ModelTable, Route
from shared.llm.routing.order import Outlook, chain, plan_routes, usable_in_chain

DEFAULT_MODEL = "default"
"""An alias: whatever ``Catalogue.default_model`` says."""

OFFLINE_MODEL = "offline"
_ANSWER_MARGIN = 0.9
"""The share of a client's patience that a call may use: the rest is for the answer's way back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteStatus:
    """A route that can serve a model now. Unhealthy: it failed so often of late that it is avoided for a while."""

    provider: str
    model: str
    healthy: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelStatus:
    """A logical model that can be called now, with its routes in the file's order, its fallbacks' after its own."""

    id: str
    kind: Kind
    routes: tuple[RouteStatus, ...]


class Catalogue:
    """The table of models as the providers that are set up can serve it. ``table`` is asked anew each time."""

    def __init__(self, table: Callable[[], ModelTable], upstreams: Upstreams, *, deadline_s: float) -> None:
        self._table = table
        self._upstreams = upstreams
        self._deadline_s = deadline_s
        health = upstreams.health
        self._outlook = Outlook(resolve=self._resolve, permits=health.permits, last_failed_at=health.last_failed_at)

    def models(self) -> list[ModelStatus]:
        """The logical models that can be called now."""
        statuses = [self._status(model) for model in self._table().models.values()]
        return [status for status in statuses if status.routes]

    def knows(self, model: str, kind: Kind) -> bool:
        """Whether a call of this kind to this logical model has a route."""
        if model == DEFAULT_MODEL:
            return kind == "chat"
        models = self._table().models
        found = models.get(model)
        if found is None or found.kind != kind:
            return False
        return any(self._resolve(route) for one in chain(found, models) for route in one.routes)

    def default_model(self) -> str:
        """The configured default while a real model can serve it, otherwise ``offline``."""
        table = self._table()
        routes = [route for routes in self._usable(table.models[table.default]) for route in routes]
        is_real = any(route.provider != OFFLINE_MODEL for route in routes)
        return table.default if is_real else OFFLINE_MODEL

    def find(self, name: str, kind: Kind) -> LogicalModel:
        """The logical model behind a name or alias. Raises ModelNotFound, InvalidRequest for one of another kind."""
        name = self.default_model() if name == DEFAULT_MODEL and kind == "chat" else name
        model = self._table().models.get(name)
        if model is None:
            raise ModelNotFound(f"the model {name!r} does not exist; GET /v1/models lists those that do")
        if model.kind != kind:
            raise InvalidRequest(f"the model {name!r} is for {model.kind}, not for {kind}", param="model")
        return model

    def plan(self, model: LogicalModel, hints: ClientHints) -> Plan:
        """The routes of a call that begins now. Raises ModelNotFound when no provider of the model is set up."""
        table = self._table()
        routes = plan_routes(model, table.models, self._outlook, self._upstreams.draw)
        if not routes:
            needed = ", ".join(dict.fromkeys(route.provider for route in model.routes))
            raise ModelNotFound(f"the model {model.id!r} needs a provider that is not set up here: {needed}")
        seconds = self._deadline_s
        if hints.patience_s is not None:
            seconds = min(seconds, hints.patience_s * _ANSWER_MARGIN)
        return Plan(
            routes=routes,
            limits=table.providers,
            ends_at=time.monotonic() + seconds,
            most_tries=1 if hints.is_retry else None,
        )

    def _status(self, model: LogicalModel) -> ModelStatus:
        routes = [route for routes in self._usable(model) for route in routes]
        healthy = self._upstreams.health.is_healthy
        statuses = (RouteStatus(provider=one.provider, model=one.model, healthy=healthy(one)) for one in routes)
        return ModelStatus(id=model.id, kind=model.kind, routes=tuple(dict.fromkeys(statuses)))

    def _usable(self, model: LogicalModel) -> list[list[Route]]:
        return usable_in_chain(model, self._table().models, self._resolve)

    def _resolve(self, route: Route) -> str | None:
        provider = self._upstreams.providers.get(route.provider)
        return provider.resolve(route.model) if provider else None
