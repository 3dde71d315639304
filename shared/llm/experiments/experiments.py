"""Prompt experiments: the calls of a model or blueprint are shared out between variants, by weight.

A session keeps its variant. The variant is a pure function of the experiment's name and of who calls, so no assignment
is stored. An experiment that is made or changed takes effect in every process within ``REFRESH_S``.
"""

import hashlib
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from psycopg.errors import ForeignKeyViolation, UniqueViolation

from shared.db.database import Database, Row
from shared.errors import Conflict, NotFound
from shared.llm.caller import Caller
from shared.llm.experiments import store_experiments
from shared.wire.chat import ChatMessage, ChatRequest

REFRESH_S: Final = 5.0
_MOST_TENANTS: Final = 10_000
_QUOTED_SECTION: Final = re.compile(r"(?=\n\n(?:Relevant memories|Said lately in this channel):\n)")
"""Where an agent's own instructions end in its system message: what follows is quoted and stays."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One way to answer. What is None stays as it was asked; ``append`` adds to the system prompt."""

    name: str
    weight: int
    instructions: str | None = None
    instructions_mode: Literal["append", "replace"] = "append"
    model: str | None = None
    temperature: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """A split of the calls of a logical ``model`` or of a ``blueprint`` (one of them). Weights are relative."""

    name: str
    model: str | None
    blueprint: str | None
    variants: tuple[Variant, ...]
    active: bool


@dataclass(frozen=True, slots=True)
class Assignment:
    """The variant that a call got. ``label`` stands in the ledger and on the usage event."""

    experiment: str
    variant: Variant

    @property
    def label(self) -> str:
        """``experiment/variant``."""
        return f"{self.experiment}/{self.variant.name}"


class Experiments:
    """Every tenant's experiments, and the choice for each call."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._clock = clock
        self._active: dict[str, tuple[float, tuple[Experiment, ...]]] = {}

    async def apply(self, request: ChatRequest, caller: Caller) -> tuple[ChatRequest, Assignment | None]:
        """The request as its variant wants it (a copy), and the variant; the request itself when nobody experiments."""
        for experiment in await self._active_ones(caller.microdao_id):
            if _concerns(experiment, request, caller):
                variant = choose_variant(experiment, sticky_unit(request, caller))
                return vary(request, variant), Assignment(experiment.name, variant)
        return request, None

    async def create(self, microdao_id: str, experiment: Experiment) -> None:
        """Add an experiment. Raises NotFound, or Conflict when its name is taken or its target has an active one."""
        await self._write(microdao_id, experiment, is_new=True)

    async def replace(self, microdao_id: str, experiment: Experiment) -> None:
        """Set an experiment's definition. Raises NotFound, Conflict."""
        await self._write(microdao_id, experiment, is_new=False)

    async def delete(self, microdao_id: str, name: str) -> None:
        """Remove an experiment; what its calls cost stays recorded. Raises NotFound."""
        async with self._database.tenant(microdao_id) as connection:
            if not await store_experiments.delete(connection, name):
                raise _unknown(name)
        self._active.pop(microdao_id, None)

    async def get(self, microdao_id: str, name: str) -> Row:
        """The experiment's row. Raises NotFound."""
        async with self._database.tenant(microdao_id) as connection:
            rows = await store_experiments.list_named(connection, [name])
        if not rows:
            raise _unknown(name)
        return rows[0]

    async def list(self, microdao_id: str, after: str, limit: int) -> Sequence[Row]:
        """Experiments by name."""
        async with self._database.tenant(microdao_id) as connection:
            return await store_experiments.list_page(connection, after, limit)

    async def results(self, microdao_id: str, name: str) -> Sequence[Row]:
        """Requests, errors, tokens, cost and latency by variant, those without a call with zeros. Raises NotFound."""
        row = await self.get(microdao_id, name)
        async with self._database.tenant(microdao_id) as connection:
            return await store_experiments.results(connection, name, [one["name"] for one in row["variants"]])

    async def _write(self, microdao_id: str, experiment: Experiment, *, is_new: bool) -> None:
        write = store_experiments.insert if is_new else store_experiments.update
        try:
            async with self._database.tenant(microdao_id) as connection:
                done = await write(connection, microdao_id, asdict(experiment))
        except UniqueViolation:
            target = experiment.model or experiment.blueprint
            raise Conflict(f"{target!r} has an active experiment already", param="active") from None
        except ForeignKeyViolation:
            raise NotFound(f"no microDAO {microdao_id!r}", param="microdao_id") from None
        if not done:
            raise Conflict(f"experiment {experiment.name!r} exists") if is_new else _unknown(experiment.name)
        self._active.pop(microdao_id, None)

    async def _active_ones(self, microdao_id: str) -> tuple[Experiment, ...]:
        read_at, known = self._active.get(microdao_id, (float("-inf"), ()))
        if self._clock() - read_at < REFRESH_S:
            return known
        rows = await store_experiments.list_active(self._database, microdao_id)
        if len(self._active) >= _MOST_TENANTS:
            self._active.clear()
        found = tuple(map(experiment_of, rows))
        self._active[microdao_id] = (self._clock(), found)
        return found


def experiment_of(row: Row) -> Experiment:
    """The experiment in a row."""
    variants = tuple(Variant(**one) for one in row["variants"])
    return Experiment(
        name=row["name"], model=row["model"], blueprint=row["blueprint"], variants=variants, active=row["active"]
    )


def sticky_unit(request: ChatRequest, caller: Caller) -> str:
    """Who keeps a variant: the session; without one the request's ``user``, the agent, the flow or the key."""
    user = (request.model_extra or {}).get("user")
    said = (request.metadata.session_id if request.metadata else None, user if isinstance(user, str) else None)
    units = (caller.session_id, *said, caller.agent_id, caller.flow_id, caller.key_id)
    return next((unit for unit in units if unit), caller.microdao_id)


def choose_variant(experiment: Experiment, unit: str) -> Variant:
    """The unit's variant: a hash of names, spread evenly over the weights."""
    digest = hashlib.sha256(f"{experiment.name}\x1f{unit}".encode()).digest()
    total = sum(variant.weight for variant in experiment.variants)
    point = int.from_bytes(digest[:8]) * total >> 64
    for variant in experiment.variants:
        point -= variant.weight
        if point < 0:
            return variant
    raise ValueError(f"experiment {experiment.name} has no weights")


def vary(request: ChatRequest, variant: Variant) -> ChatRequest:
    """A copy of the request as the variant wants it."""
    update: dict[str, Any] = {}
    if variant.model is not None:
        update["model"] = variant.model
    if variant.temperature is not None:
        update["temperature"] = variant.temperature
    if variant.instructions is not None:
        update["messages"] = _with_instructions(request.messages, variant.instructions, variant.instructions_mode)
    return request.model_copy(update=update)


def _with_instructions(messages: Sequence[ChatMessage], text: str, mode: str) -> list[ChatMessage]:
    first = messages[0]
    if first.role not in ("system", "developer"):
        return [ChatMessage(role="system", content=text), *messages]
    if not isinstance(first.content, str):
        parts = [] if mode == "replace" else [part.model_dump(exclude_unset=True) for part in first.content or []]
        changed = ChatMessage.model_validate({"role": first.role, "content": [*parts, {"type": "text", "text": text}]})
        return [changed, *messages[1:]]
    own, *quoted = _QUOTED_SECTION.split(first.content, maxsplit=1)
    said = text if mode == "replace" else f"{own}\n\n{text}"
    return [first.model_copy(update={"content": "".join([said, *quoted])}), *messages[1:]]


def _concerns(experiment: Experiment, request: ChatRequest, caller: Caller) -> bool:
    if experiment.blueprint is not None:
        return experiment.blueprint == caller.blueprint
    return experiment.model == request.model


def _unknown(name: str) -> NotFound:
    return NotFound(f"no experiment {name!r} in this microDAO", param="name")
