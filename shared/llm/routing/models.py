"""Logical models, their routes and the limits of providers: what ``infra/config/models.yaml`` says, as plain data."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from shared.llm.routing.breaker import CircuitRule

PROVIDERS = ("openai", "anthropic", "deepseek", "local", "offline")
ANY_MODEL = "*"
KINDS = ("chat", "embedding")

Kind = Literal["chat", "embedding"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A physical provider and model that a logical model may use. Lower ``priority`` first; ``weight`` shares load.

    ``attempts`` bounds the tries of one call at this route. ``timeout_s`` bounds one whole answer,
    ``first_token_timeout_s`` the wait for the first piece of a stream; None means the process's own setting.
    ``max_tokens`` caps what a request may ask for.
    """

    provider: str
    model: str
    priority: int = 1
    weight: float = 1.0
    last_resort: bool = False
    attempts: int = 2
    timeout_s: float | None = None
    first_token_timeout_s: float | None = None
    max_tokens: int | None = None

    @property
    def name(self) -> str:
        """``openai/gpt-4.1``: what the circuit and the price belong to."""
        return f"{self.provider}/{self.model}"


@dataclass(frozen=True, slots=True, kw_only=True)
class LogicalModel:
    """A name that callers use, with its routes and the logical models to go on with when all of them fail."""

    id: str
    routes: tuple[Route, ...]
    kind: Kind = "chat"
    fallbacks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderLimits:
    """How many calls a provider gets at once from this process, and how many may wait for how long."""

    max_concurrency: int
    max_queue: int = 100
    queue_timeout_s: float = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelTable:
    """Every logical model by id. ``default`` names the one to use when nobody chose.

    A provider without an entry in ``providers`` has no limit.
    """

    models: Mapping[str, LogicalModel]
    default: str
    providers: Mapping[str, ProviderLimits] = field(default_factory=dict)
    circuit: CircuitRule = field(default_factory=CircuitRule)
